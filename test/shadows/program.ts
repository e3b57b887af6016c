import { tempId } from "../fixtures/gateway.ts";
import { faults, type Fault } from "../fixtures/scripted-faults.ts";
import type { ScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { newPhone, type Phone } from "../replay/phone.ts";
import type { Pair } from "./pair.ts";

/** Numbers below `max` that a seed decides (mulberry32). */
export function numbersOf(seed: number): (max: number) => number {
  let state = seed;
  return (max) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % max;
  };
}

export const misfortunes: Fault[] = [
  faults.loseRequest(),
  faults.loseReply(),
  faults.status(503),
  faults.status(503, { effect: true }),
  faults.truncate(),
  faults.hang(),
  faults.status(429, { headers: { "retry-after": "0" } }),
];

export function misfortune(
  system: ScriptedUpstream,
  next: (max: number) => number,
  among: Fault[] = misfortunes,
): void {
  const every = 4 + next(6);
  for (let n = 0; n < 25; n++) {
    let waits = next(every);
    system.script(() => waits-- === 0, among[next(among.length)] ?? faults.loseReply());
  }
}

interface Known {
  entity: "mentor" | "activity";
  recordId: string;
}

/** @param n the number of the mutation, which no other has. */
function act(phone: Phone, known: Known[], next: (max: number) => number, n: number): void {
  const mentors = known.filter(({ entity }) => entity === "mentor");
  const anyMentor = (): string | undefined => mentors[next(Math.max(1, mentors.length))]?.recordId;
  const target = known[next(known.length + 4)];
  const entity = target?.entity ?? (next(3) === 0 ? "mentor" : "activity");
  const mentor = anyMentor();
  const fields = {
    n,
    [`f${next(3)}`]: next(1000),
    ...(mentor !== undefined && next(2) === 0 && { mentor }),
    ...(mentor !== undefined && entity === "activity" && next(4) === 0 && { others: [mentor, anyMentor()] }),
    ...(next(5) === 0 && { f0: null }),
  };
  if (!target) {
    const recordId = tempId();
    known.push({ entity, recordId });
    phone.add({ op: "create", entity, recordId, data: fields });
  } else if (next(12) === 0 && target.entity === "activity") phone.add({ op: "delete", ...target });
  else phone.add({ op: "update", ...target, data: fields });
}

/** What happened to each record, by its name: the numbers of the mutations that it held one after the other. */
export function numbersIn(
  { effects }: ScriptedUpstream,
  nameOf: (collection: string, id: string) => string,
): Map<string, string[]> {
  const numbers = new Map<string, string[]>();
  for (const { collection, id, record } of effects) {
    const name = nameOf(collection, id);
    const { n } = record === undefined ? { n: "deleted" } : (JSON.parse(record) as { n: number });
    numbers.set(name, [...(numbers.get(name) ?? []), String(n)]);
  }
  return numbers;
}

/** Three phones create, change and delete each other's records. */
export async function runProgram({ gateway }: Pair, next: (max: number) => number): Promise<void> {
  const phones = Array.from({ length: 3 }, () => newPhone(gateway));
  const known: Known[] = [];
  let mutations = 0;
  for (let round = 0; round < 4; round++) {
    const before = known.length;
    for (const phone of phones) {
      // What another phone creates in this round is not known here yet.
      const own = known.slice(0, before);
      for (let n = 0; n < 10; n++) act(phone, own, next, mutations++);
      known.push(...own.slice(before));
    }
    await Promise.all(phones.map(async (phone) => await phone.send({ wait: 0 })));
  }
  for (const phone of phones) await phone.settled(60_000);
}
