import type { UpstreamConfig } from "../../platform/config/upstream-schema.ts";

export interface SeededEntity {
  entity: string;
  /** Higher than that of every entity that it refers to, but for circles. */
  rank: number;
  /** It refers to an entity that does not come before it: to itself, or in a circle. */
  inCircle: boolean;
}

/** The shadow's entities in the order in which they can be created: those that others refer to first. */
export function seedOrder(shadow: UpstreamConfig, primary: UpstreamConfig): SeededEntity[] {
  const referred = (entity: string): string[] => {
    const references = shadow.entities[entity]?.references ?? primary.entities[entity]?.references ?? {};
    return Object.values(references).filter((other) => other in shadow.entities);
  };
  const ranks = new Map<string, number>();
  const visit = (entity: string, path: readonly string[]): number => {
    const known = ranks.get(entity);
    if (known !== undefined) return known;
    const others = referred(entity).filter((other) => other !== entity && !path.includes(other));
    const rank = Math.max(-1, ...others.map((other) => visit(other, [...path, entity]))) + 1;
    ranks.set(entity, rank);
    return rank;
  };
  const entities = Object.keys(shadow.entities).filter((entity) => entity in primary.entities);
  for (const entity of entities) visit(entity, []);
  const rankOf = (entity: string): number => ranks.get(entity) ?? 0;
  return entities.map((entity) => ({
    entity,
    rank: rankOf(entity),
    inCircle: referred(entity).some((other) => rankOf(other) >= rankOf(entity)),
  }));
}
