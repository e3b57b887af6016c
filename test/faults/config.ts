import { jwtIssuer } from "./tokens.ts";

/** One entity for each class of what an upstream can guarantee; the upstream really has that capability. */
export const classes = ["idempotency-key", "upsert", "client-id", "conditional", "lookup", "opaque"] as const;
export type CapabilityClass = (typeof classes)[number];

export const tenantId = "ours";

export const timeoutMs = 1_000;
/** How long after its deadline a call may still take effect at an upstream that is said to be that slow. */
export const processingMs = 1_500;
/** The upstream's search lags behind by less than half of this. */
export const indexLagMs = 400;

/** The gateway's configuration, as YAML is JSON. */
export function configOf(upstreamUrl: string): object {
  return {
    limits: {},
    tenants: { [tenantId]: { auth: jwtIssuer, upstreams: { crm: primary(upstreamUrl) } } },
  };
}

function primary(baseUrl: string): object {
  return {
    role: "primary",
    kind: "rest",
    baseUrl,
    timeoutMs,
    processingMs,
    indexLagMs,
    actorHeader: "X-Acting-User",
    // Fewer calls than lanes, so that some always wait for a place when a worker is stopped.
    concurrency: 4,
    retry: { baseMs: 10, capMs: 200 },
    circuit: { failures: 20, cooldownMs: 100 },
    entities: {
      "idempotency-key": entity("idempotency-key"),
      upsert: entity("upsert", { create: { class: "upsert", method: "PUT" } }),
      "client-id": entity("client-id"),
      conditional: entity("conditional", {
        create: { class: "conditional", method: "PUT" },
        update: { class: "conditional", method: "PUT" },
      }),
      lookup: entity("lookup", { reference: "/externalRef", lookup: "{path}?externalRef={tempId}" }),
      opaque: entity("opaque"),
    },
  };
}

function entity(name: CapabilityClass, more: object = {}): object {
  return {
    path: `/${name}`,
    id: "/id",
    version: { header: "etag" },
    create: { class: name },
    update: { class: name },
    delete: { class: name },
    ...more,
  };
}
