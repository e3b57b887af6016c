import { textAt } from "../../src/platform/json-text.ts";
import type { OperationClass } from "../../src/platform/config/operation-schema.ts";
import { openRestConnector } from "../../src/upstream/rest/rest-connector.ts";
import { faults, hanging, type Fault as ScriptedFault } from "../fixtures/scripted-faults.ts";
import { startScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { aRestUpstream } from "../fixtures/upstream-config.ts";
import { describeConnector } from "./connector.ts";
import type { Fault, Kind, StartOptions } from "./kind.ts";

const statusOf = { retry: 429, conflict: 409, reject: 422, park: 415, systemic: 401 } as const;

function scripted(fault: Fault, held: Set<unknown>): ScriptedFault {
  if (typeof fault === "object") {
    const body = '{"message":"no: kari@example.org, 90 12 34 56"}';
    return faults.status(statusOf[fault.answer], { body });
  }
  return {
    "lose-request": faults.loseRequest,
    "lose-reply": faults.loseReply,
    hang: () => hanging(held),
    garbage: faults.garbage,
  }[fault]();
}

const choosing: readonly OperationClass[] = ["upsert", "client-id", "conditional"];

const rest: Kind = {
  entity: "activity",
  can: {
    create: ["opaque", "idempotency-key", "upsert", "client-id", "conditional", "lookup"],
    update: ["opaque", "idempotency-key", "client-id", "conditional"],
    delete: ["opaque", "idempotency-key", "client-id", "conditional"],
    ids: ["a/b", "..a", "x?y#z", "100%", "æ ø", "a+b&c", "'quoted'", "(1)"],
    reference: "/externalRef",
    pages: true,
    since: true,
    failures: ["retry", "conflict", "reject", "park", "systemic"],
    exact: {
      minutes: ["9007199254740993", "0.10", "1e3", "-0"],
      note: [String.raw`"\u0000"`, String.raw`"\ud800"`, '"æ 𝄞 \\" \\\\"', '""'],
    },
    keyOrder: true,
    actor: true,
    requestId: true,
  },
  async start({ create = "opaque", update = "opaque", delete: remove = "opaque", ...options }) {
    const held = new Set<unknown>();
    const chooses = choosing.includes(create);
    const upstream = await startScriptedUpstream(storeOptions(options, chooses));
    const { timeoutMs = 10_000, pageSize, ignoresPages } = options;
    const paged = pageSize !== undefined || ignoresPages === true;
    const connector = openRestConnector({
      ...aRestUpstream(upstream.url, {
        entity: {
          create: { method: chooses ? "PUT" : "POST", class: create, enabled: true },
          update: { method: "PATCH", class: update, enabled: true },
          delete: { method: "DELETE", class: remove, enabled: true },
          version: { header: "etag" },
          reference: "/externalRef",
          lookup: "{path}?externalRef={tempId}",
          list: { since: "since", ...(paged && { page: "page", size: "size" }) },
        },
      }),
      timeoutMs,
      actorHeader: "X-Acting-User",
    });
    return {
      connector,
      server: {
        records: () => upstream.records("activities"),
        seed(texts) {
          const before = upstream.records("activities").length;
          upstream.seed("activities", [...texts]);
          return upstream
            .records("activities")
            .slice(before)
            .map((text) => textAt(text, "/id")!);
        },
        change: (id, patch) => upstream.change("activities", id, patch),
        next: (fault) => upstream.script({}, scripted(fault, held)),
        hanging: () => held.size,
        requests: () =>
          upstream.requests.map(({ headers }) => ({
            actor: headers["x-acting-user"],
            requestId: headers["x-request-id"],
          })),
        stop: upstream.stop,
      },
      async [Symbol.asyncDispose]() {
        await connector.close();
        await upstream.stop();
      },
    };
  },
};

function storeOptions({ pageSize, ignoresPages, ignoresFilters }: StartOptions, chooses: boolean): object {
  return {
    idempotencyHeader: "Idempotency-Key",
    etags: true,
    clientIds: chooses,
    updatedAt: { field: "updatedAt", clock: () => new Date() },
    ...(ignoresFilters && { filters: "ignored" }),
    ...(pageSize !== undefined && { pages: { cap: pageSize } }),
    ...(ignoresPages && { pages: { ignored: true } }),
  };
}

describeConnector("REST, against a JSON system", rest);
