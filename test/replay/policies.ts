import { classes, entityOfClass, type CapabilityClass } from "../fixtures/capability-classes.ts";
import { capabilities } from "./capabilities.ts";

/** In the order of the table in docs/conflicts.md. */
export const policies = ["reject", "client-wins", "server-wins", "merge"] as const;
export type Policy = (typeof policies)[number];

/** The entity with a conflict policy whose operations are all of one class. */
export const entityName = (policy: Policy, name: CapabilityClass): string => `${policy}-${name}`;

/**
 * One entity for each policy and each class. Only `conditional` has versions; the upstream takes clients' IDs for all.
 */
export function policyEntities(baseUrl: string, rest: object = {}): { crm: object } {
  const { crm } = capabilities(baseUrl, rest) as { crm: { entities: Record<string, object> } };
  const entities = policies.flatMap((policy) =>
    classes.map((name) => [entityName(policy, name), ofClass(policy, name)] as const),
  );
  return { crm: { ...crm, entities: Object.fromEntries(entities) } };
}

function ofClass(policy: Policy, name: CapabilityClass): object {
  const { version, ...bare } = entityOfClass(name) as { version: object };
  return {
    ...bare,
    ...(name === "conditional" && { version }),
    ...(name === "lookup" && { reference: "/externalRef", lookup: "{path}?externalRef={tempId}" }),
    path: `/${entityName(policy, name)}`,
    // A PUT would write over a record that is there; a POST is refused.
    create: { class: name, method: createsByPut(policy) ? "PUT" : "POST" },
    conflict: policy,
  };
}

const createsByPut = (policy: Policy): boolean => policy === "reject" || policy === "merge";

/** Whether phones may choose the IDs of this entity's records. */
export function canChooseId(policy: Policy, name: CapabilityClass): boolean {
  return name === "client-id" || (createsByPut(policy) && (name === "conditional" || name === "upsert"));
}
