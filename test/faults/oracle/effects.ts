import type { Queued } from "../phone.ts";
import type { Effect, Evidence } from "./evidence.ts";
import type { Violation } from "./violation.ts";

/** What an upstream can't tell from the first time, and that leaves everything as it was: documented per class. */
const mayRepeat = new Set(["upsert create", "upsert update", "client-id update"]);

/** Effects once for each mutation, in each phone's order, and none after its record's end. */
export function judgeEffects({ effects }: Pick<Evidence, "effects">): Violation[] {
  const violations: Violation[] = [];
  const count = new Map<Queued, number>();
  /** By phone, how far its effects have come. */
  const reached = new Map<number, number>();
  const ended = new Set<string>();
  for (const effect of effects) {
    const name = `${effect.collection}/${effect.id}`;
    if (ended.has(name))
      violations.push({
        kind: "duplicate",
        what: `${name} took effect after its delete`,
        about: effect.causes,
      });
    if (effect.op === "delete") ended.add(name);
    violations.push(...judgeOne(effect, count, reached));
  }
  return violations;
}

function judgeOne(effect: Effect, count: Map<Queued, number>, reached: Map<number, number>): Violation[] {
  const [cause] = effect.causes;
  if (!cause || effect.causes.length > 1) {
    const what = `request ${effect.n} changed ${effect.collection}/${effect.id} as ${effect.causes.length} mutations`;
    return [{ kind: "duplicate", what, about: effect.causes }];
  }
  const violations: Violation[] = [];
  const { body, phone } = cause;
  const times = (count.get(cause) ?? 0) + 1;
  count.set(cause, times);
  if (times > 1 && !mayRepeat.has(`${body.entity} ${body.op}`))
    violations.push({
      kind: "duplicate",
      what: `${body.entity} ${body.op} took effect ${times} times`,
      about: [cause],
    });
  const before = reached.get(phone.index) ?? 0;
  if (body.seq < before) {
    const what = `phone ${phone.index}'s mutation ${body.seq} took effect after its ${before}`;
    violations.push({ kind: "reorder", what, about: [cause] });
  }
  reached.set(phone.index, Math.max(before, body.seq));
  return violations;
}

/** A call of class `opaque` that was not plainly refused is the mutation's last; if it was unclear, the mutation is parked. */
export function judgeOpaque({ requests, answered, mutations, keys }: Evidence): Violation[] {
  const violations: Violation[] = [];
  for (const queued of mutations) {
    if (queued.body.entity !== "opaque" || queued.body.op === "delete") continue;
    const calls = requests.filter(({ marker }) => marker === queued.marker);
    const decisive = calls.findIndex(({ fate }) => fate !== "refused");
    if (decisive === -1) continue;
    if (decisive < calls.length - 1)
      violations.push({ kind: "duplicate", what: "an opaque call was sent again", about: [queued] });
    const status = keys.get(queued.body.id)?.status;
    const mayBeKnown = status === "applied" && answered.has(calls[decisive]?.n ?? 0);
    if (calls[decisive]?.fate === "unclear" && status !== null && !mayBeKnown)
      violations.push({ kind: "opaque", what: `an unclear opaque call ended as ${status}`, about: [queued] });
  }
  return violations;
}
