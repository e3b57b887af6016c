import type { CapabilityClass } from "../../fixtures/capability-classes.ts";
import { startScriptedUpstream } from "../../fixtures/scripted-upstream.ts";
import type { Exchange } from "../../fixtures/scripted-faults.ts";
import type { Answer, RecordedRequest } from "../../fixtures/scripted-store.ts";
import { indexLagMs } from "../config.ts";
import { randomOf } from "../random.ts";
import { chooseFault, slowTrickle, type NamedFault } from "./faults.ts";
import { markerOf, markersBetween, openJournal, type Marker } from "./journal.ts";
import { openWire } from "./wire.ts";

/** What the run asks of the upstream's process. */
export type UpstreamRequest =
  | { ask: "faults"; rate: number }
  /** The next change takes effect, is not answered before `release`, and is told of. */
  | { ask: "hold"; ms: number }
  | { ask: "release" }
  | { ask: "blackhole"; ms: number }
  | { ask: "outage"; ms: number }
  | { ask: "report" };

/** What the process says. */
export type UpstreamMessage =
  | { told: "ready"; port: number }
  | { told: "held"; marker: Marker }
  | { told: "report"; records: Record<string, string>; faults: Record<string, number> };

const [journalPath = "", seed = "0"] = process.argv.slice(2);
const random = randomOf(Number(seed), "upstream");
const journal = openJournal(journalPath);
const counts: Record<string, number> = {};
/** The records that are there, by collection and ID, as text. */
const now = new Map<string, string>();
/** Idempotency keys whose first call is still at work. */
const atWork = new Set<string>();
let rate = 0;
let requests = 0;
let holding = false;
let release = Promise.withResolvers<void>();

const upstream = await startScriptedUpstream({
  etags: true,
  clientIds: true,
  idempotencyHeader: "Idempotency-Key",
  filterLag: true,
  pages: {},
  updatedAt: { field: "changedAt", clock: () => new Date() },
});
const wire = await openWire(upstream.port);
upstream.always(() => true, meet);
setInterval(() => upstream.index(), indexLagMs / 4);

/** Answers a request, with or without a fault, and journals both the request and what it changes. */
async function meet(exchange: Exchange): Promise<void> {
  const { request } = exchange;
  // Nobody looks at them here, and a long run has many.
  upstream.requests.length = 0;
  const n = ++requests;
  const marker = markerOf(request);
  const isHeld = holding && marker !== undefined;
  const chosen = isHeld ? held(marker) : random.chance(rate) ? chooseFault(random, request) : undefined;
  const key = request.headers["idempotency-key"];
  if (key !== undefined && atWork.has(key)) {
    journalRequest(n, request, marker, { name: "in progress", fate: "refused" });
    return exchange.send({ status: 409 });
  }
  if (chosen) counts[chosen.name] = (counts[chosen.name] ?? 0) + 1;
  if (key !== undefined && chosen?.name === "late effect") atWork.add(key);
  journalRequest(n, request, marker, chosen);
  const apply = (): Answer => {
    atWork.delete(key ?? "");
    const answer = exchange.apply();
    journalEffects(n, request);
    return answer;
  };
  await (chosen?.fault ?? (({ send }: Exchange) => send(apply())))({ ...exchange, apply });
  const isWhole = exchange.response.writableEnded && !exchange.response.destroyed;
  if (chosen?.name === slowTrickle && isWhole) journal.write({ kind: "answer", n, at: Date.now() });
}

function held(marker: Marker): NamedFault {
  holding = false;
  process.send?.({ told: "held", marker } satisfies UpstreamMessage);
  return {
    name: "held answer",
    fate: "answered",
    async fault({ apply, send }) {
      const answer = apply();
      await release.promise;
      send(answer);
    },
  };
}

function journalRequest(
  n: number,
  { method, path, headers }: RecordedRequest,
  marker: Marker | undefined,
  chosen: Pick<NamedFault, "name" | "fate"> | undefined,
): void {
  const actor = headers["x-acting-user"] ?? "";
  const { name: fault, fate = "answered" } = chosen ?? {};
  journal.write({ kind: "request", n, at: Date.now(), method, path, actor, marker, fault, fate });
}

function journalEffects(n: number, request: RecordedRequest): void {
  for (const { op, collection, id, record } of upstream.effects.splice(0)) {
    const name = `${collection}/${id}`;
    const own = markerOf(request);
    // A whole record that is put over another says by its difference whose change it is.
    const isWhole = op === "update" && request.headers["if-match"] !== undefined && request.method === "PUT";
    const markers =
      isWhole && record !== undefined ? markersBetween(now.get(name), record) : own ? [own] : [];
    if (record === undefined) now.delete(name);
    else now.set(name, record);
    const line = {
      kind: "effect",
      n,
      at: Date.now(),
      op,
      collection: collection as CapabilityClass,
      id,
    } as const;
    journal.write({ ...line, markers, record });
  }
}

async function handle(request: UpstreamRequest): Promise<void> {
  switch (request.ask) {
    case "faults":
      ({ rate } = request);
      return;
    case "hold":
      holding = true;
      release = Promise.withResolvers();
      setTimeout(() => (holding = false), request.ms);
      return;
    case "release":
      holding = false;
      return release.resolve();
    case "blackhole":
      return await wire.blackhole(request.ms);
    case "outage":
      return await wire.refuse(request.ms);
    case "report":
      process.send?.({
        told: "report",
        records: Object.fromEntries(now),
        faults: counts,
      } satisfies UpstreamMessage);
  }
}

process.on("message", (request: UpstreamRequest) => void handle(request));
process.on("disconnect", () => process.exit());
process.send?.({ told: "ready", port: wire.port } satisfies UpstreamMessage);
