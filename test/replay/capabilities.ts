/** One entity for each capability class, at one scripted upstream that can do all of them. */
export const classes = ["idempotency-key", "upsert", "client-id", "conditional", "lookup", "opaque"] as const;
export type CapabilityClass = (typeof classes)[number];

export const storeOptions = { etags: true, clientIds: true, idempotencyHeader: "Idempotency-Key" } as const;

/** The time after which a search that finds nothing proves something. */
export const quarantineMs = 400;

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

export function capabilities(baseUrl: string, rest: object = {}): object {
  const lookup = { reference: "/externalRef", lookup: "{path}?externalRef={tempId}" };
  return {
    crm: {
      role: "primary",
      kind: "rest",
      baseUrl,
      timeoutMs: quarantineMs,
      retry: { baseMs: 10, capMs: 100 },
      circuit: { failures: 10_000, cooldownMs: 20 },
      ...rest,
      entities: {
        "idempotency-key": entity("idempotency-key"),
        upsert: entity("upsert", { create: { class: "upsert", method: "PUT" } }),
        "client-id": entity("client-id"),
        conditional: entity("conditional", { create: { class: "conditional", method: "PUT" } }),
        lookup: entity("lookup", lookup),
        opaque: entity("opaque"),
      },
    },
  };
}
