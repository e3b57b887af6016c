import { faults, type Exchange, type Fault } from "../../fixtures/scripted-faults.ts";
import { processingMs, timeoutMs } from "../config.ts";
import type { Random } from "../random.ts";
import type { Fate } from "./journal.ts";

/** A fault with its name, and what its request's sender knows afterwards. */
export interface NamedFault {
  name: string;
  fate: Fate;
  fault: Fault;
}

const retryAfter = { headers: { "retry-after": "1" } };
const delay = async (ms: number): Promise<void> => await new Promise((resolve) => setTimeout(resolve, ms));

const common: NamedFault[] = [
  { name: "lose request", fate: "unclear", fault: faults.loseRequest() },
  { name: "lose reply", fate: "unclear", fault: faults.loseReply() },
  { name: "close without reply", fate: "unclear", fault: faults.closeWithoutReply() },
  { name: "hang, no effect", fate: "unclear", fault: faults.hang({ effect: false }) },
  { name: "hang after effect", fate: "unclear", fault: faults.hang({ effect: true }) },
  { name: "500, no effect", fate: "unclear", fault: faults.status(500) },
  { name: "500 after effect", fate: "unclear", fault: faults.status(500, { effect: true }) },
  { name: "503 Retry-After", fate: "unclear", fault: faults.status(503, retryAfter) },
  { name: "429 Retry-After", fate: "refused", fault: faults.status(429, retryAfter) },
  { name: "truncated head", fate: "unclear", fault: faults.truncateHead() },
  { name: "slow", fate: "answered", fault: slow(0.6 * timeoutMs) },
];

/** Takes longer than its sender waits; unless that stands still, and finds the whole answer when it goes on. */
export const slowTrickle = "slow trickle";

/** Of answers that have a body. */
const ofBodies: NamedFault[] = [
  { name: slowTrickle, fate: "unclear", fault: faults.trickle(100) },
  { name: "truncated body", fate: "unclear", fault: faults.truncate() },
];

/** A success with a body that is no JSON: where we choose the ID, or can look it up, nothing is unclear. */
const garbage: NamedFault = { name: "garbage body", fate: "unclear", fault: faults.garbage() };

/**
 * The change takes place after its sender has given up. Only where the class promises to stand that: the key is known
 * from the start, the version protects, or the quarantine waits for it.
 */
const late: NamedFault = {
  name: "late effect",
  fate: "unclear",
  async fault({ apply, socket }: Exchange) {
    await delay(timeoutMs + 0.4 * processingMs);
    apply();
    socket.resetAndDestroy();
  },
};

export function chooseFault(random: Random, { method, path }: { method: string; path: string }): NamedFault {
  const [collection = ""] = path.split(/[/?]/).slice(1);
  const list = method === "DELETE" ? [...common] : [...common, ...ofBodies];
  if (method !== "GET") {
    if (["client-id", "upsert", "conditional", "lookup"].includes(collection)) list.push(garbage);
    if (collection === "idempotency-key" && method !== "DELETE") list.push(late, late);
    if (collection === "lookup" && method === "POST") list.push(late, late, late);
  }
  return random.pick(list);
}

function slow(ms: number): Fault {
  return async ({ apply, send }) => {
    const answer = apply();
    await delay(ms);
    send(answer);
  };
}
