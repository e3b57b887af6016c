import { classes, type CapabilityClass } from "../fixtures/capability-classes.ts";
import type { Random } from "./random.ts";

/** A record that one phone creates and that it and others then change. */
export interface PlannedRecord {
  index: number;
  entity: CapabilityClass;
  phone: number;
  /** A bare UUID. */
  tempId: string;
}

export type Deed =
  | { op: "create"; record: PlannedRecord; refersTo: PlannedRecord | undefined }
  | {
      op: "update";
      record: PlannedRecord;
      byServerId: boolean;
      refersTo: PlannedRecord | undefined;
      /** Names the phone's last mutation in `dependsOn`. */
      dependsOnLast: boolean;
    }
  | { op: "delete"; record: PlannedRecord; byServerId: boolean };

/** What a phone does at one moment of the run. */
export interface Turn {
  atMs: number;
  phone: number;
  deeds: Deed[];
  waitSeconds: number;
  /** What goes wrong between the phone and the gateway. */
  mishap: Mishap | undefined;
}

/** `hang-up`: the phone does not wait for the answer. `twice`: two uploads at once. `again`: an old batch once more. */
export type Mishap = { kind: "hang-up"; afterMs: number } | { kind: "twice" } | { kind: "again" };

export interface Program {
  phones: number;
  turns: Turn[];
  records: PlannedRecord[];
}

/**
 * What the phones of one run do, in the order in which they think of it.
 *
 * A record is deleted once at most, so that a delete without a body is known in the journal. The records of class
 * `opaque` are their phone's own: others would wait for one that is parked.
 *
 * @param hot how many records most changes go to, so that phones meet there.
 */
export function planProgram(
  random: Random,
  { phones, seconds, hot }: { phones: number; seconds: number; hot: number },
): Program {
  const records: PlannedRecord[] = [];
  const deleted = new Set<PlannedRecord>();
  const turns: Turn[] = [];
  for (let atMs = 0; atMs < seconds * 1_000; atMs += random.between(10, 60)) {
    const phone = random.between(0, phones - 1);
    const deeds = Array.from({ length: random.between(1, 6) }, () =>
      planDeed(random, phone, { records, deleted, hot }),
    );
    turns.push({ atMs, phone, deeds, waitSeconds: random.pick([0, 0, 1, 3]), mishap: planMishap(random) });
  }
  return { phones, turns, records };
}

interface Plan {
  records: PlannedRecord[];
  deleted: Set<PlannedRecord>;
  hot: number;
}

function planDeed(random: Random, phone: number, plan: Plan): Deed {
  const isKnown = (record: PlannedRecord): boolean => record.entity !== "opaque" || record.phone === phone;
  const isAlive = (record: PlannedRecord): boolean => !plan.deleted.has(record) || random.chance(0.02);
  const hot = lastOf(plan, (record) => isKnown(record) && isAlive(record));
  const refersTo = random.chance(0.3) ? pickSafe(random, plan) : undefined;
  if (hot.length < 4 || random.chance(0.3)) return planCreate(random, phone, plan.records, refersTo);
  const record = random.pick(hot);
  const byServerId = random.chance(0.4);
  if (random.chance(0.06) && !plan.deleted.has(record)) {
    plan.deleted.add(record);
    return { op: "delete", record, byServerId };
  }
  return { op: "update", record, byServerId, refersTo, dependsOnLast: random.chance(0.1) };
}

/** A reference to what may be parked would only hold more and more back. */
function pickSafe(random: Random, plan: Plan): PlannedRecord | undefined {
  const safe = lastOf(plan, ({ entity }) => entity !== "opaque");
  return safe.length === 0 ? undefined : random.pick(safe);
}

/** As many of the latest records as are hot. A long run has many, and most are never looked at again. */
function lastOf({ records, hot }: Plan, isMeant: (record: PlannedRecord) => boolean): PlannedRecord[] {
  const found: PlannedRecord[] = [];
  for (let at = records.length - 1; at >= 0 && found.length < hot; at--) {
    const record = records[at];
    if (record && isMeant(record)) found.unshift(record);
  }
  return found;
}

function planCreate(
  random: Random,
  phone: number,
  records: PlannedRecord[],
  refersTo: PlannedRecord | undefined,
): Deed {
  const record = { index: records.length, entity: random.pick(classes), phone, tempId: random.uuid() };
  records.push(record);
  return { op: "create", record, refersTo };
}

function planMishap(random: Random): Mishap | undefined {
  if (!random.chance(0.25)) return undefined;
  return random.pick<Mishap>([
    { kind: "hang-up", afterMs: random.between(0, 40) },
    { kind: "twice" },
    { kind: "again" },
  ]);
}
