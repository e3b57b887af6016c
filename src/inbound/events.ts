import type { EventsConfig } from "../platform/config/upstream-schema.ts";
import { TidegateError } from "../platform/errors.ts";
import { slicesAt, textAt } from "../platform/json-text.ts";
import type { RecordKey } from "../records/record.ts";
import { isUsableName } from "../upstream/usable.ts";

/** Events in one request. */
export const eventsMax = 1_000;

/**
 * The records that events name, each once, and how many events are about none of ours. Only which record it is counts:
 * what the event says of it may be overtaken by the time that it arrives.
 *
 * @throws {TidegateError} `invalid-request`
 */
export function recordsNamed(
  body: string,
  config: EventsConfig,
  entities: readonly string[],
): { keys: RecordKey[]; ignored: number } {
  const events = eventsIn(body, config);
  const keys = new Map<string, RecordKey>();
  let ignored = 0;
  for (const event of events) {
    const entity = entityOf(event, config);
    if (entity === undefined || !entities.includes(entity)) {
      ignored++;
      continue;
    }
    const serverId = nameAt(event, config.id);
    if (!isUsableName(serverId)) {
      throw new TidegateError("invalid-request", `An event has no usable ID at ${config.id}.`);
    }
    keys.set(`${entity}/${serverId}`, { entity, serverId });
  }
  return { keys: [...keys.values()], ignored };
}

function eventsIn(body: string, { items }: EventsConfig): string[] {
  const at = items === undefined ? body.trim() : textAt(body, items);
  if (at === undefined) throw new TidegateError("invalid-request", `There is nothing at ${items}.`);
  if (!at.startsWith("[")) return [at];
  const events = slicesAt(at).map(({ start, end }) => at.slice(start, end));
  if (events.length > eventsMax) {
    throw new TidegateError("invalid-request", `There are more than ${eventsMax} events.`);
  }
  return events;
}

function entityOf(event: string, { entity, entities }: EventsConfig): string | undefined {
  const name = nameAt(event, entity);
  if (name === undefined || !entities) return name;
  return Object.hasOwn(entities, name) ? entities[name] : undefined;
}

/** A text, or a number's digits as they were sent. */
function nameAt(event: string, pointer: string): string | undefined {
  const token = textAt(event, pointer);
  if (token?.startsWith('"')) return JSON.parse(token) as string;
  return token !== undefined && /^-?\d/.test(token) ? token : undefined;
}
