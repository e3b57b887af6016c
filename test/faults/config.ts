import { entityOfClass } from "../fixtures/capability-classes.ts";
import { jwtIssuer } from "./tokens.ts";

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
    // What is seen of the lanes' own changes, before and after their answers, must be no second change.
    poll: { everyMs: 300, overlapMs: 2_000, sweepEveryMs: 3_000 },
    retry: { baseMs: 10, capMs: 200 },
    circuit: { failures: 20, cooldownMs: 100 },
    entities: {
      "idempotency-key": entityOfClass("idempotency-key", { list }),
      upsert: entityOfClass("upsert", { create: { class: "upsert", method: "PUT" } }),
      "client-id": entityOfClass("client-id", { list }),
      conditional: entityOfClass("conditional", {
        create: { class: "conditional", method: "PUT" },
        update: { class: "conditional", method: "PUT" },
      }),
      lookup: entityOfClass("lookup", {
        list,
        reference: "/externalRef",
        lookup: "{path}?externalRef={tempId}",
      }),
      opaque: entityOfClass("opaque", { list }),
    },
  };
}

/** Not of those that are made by PUT: they don't say their ID. */
const list = { since: "since", page: "page", size: "size", updatedAt: "/changedAt" };
