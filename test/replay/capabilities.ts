import { entityOfClass } from "../fixtures/capability-classes.ts";

export const storeOptions = { etags: true, clientIds: true, idempotencyHeader: "Idempotency-Key" } as const;

/** The time after which a search that finds nothing proves something. */
export const quarantineMs = 400;

/** One entity for each capability class, at one scripted upstream that can do all of them. */
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
        "idempotency-key": entityOfClass("idempotency-key"),
        upsert: entityOfClass("upsert", { create: { class: "upsert", method: "PUT" } }),
        "client-id": entityOfClass("client-id"),
        conditional: entityOfClass("conditional", { create: { class: "conditional", method: "PUT" } }),
        lookup: entityOfClass("lookup", lookup),
        opaque: entityOfClass("opaque"),
      },
    },
  };
}
