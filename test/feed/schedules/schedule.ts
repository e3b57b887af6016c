import { markHead, moveHorizon } from "../../../src/change-feed/horizon.ts";
import { pruneFeed, type FeedRowKey } from "../../../src/change-feed/prune.ts";
import { pruneBatch, type PrunedBatch, type Pruner } from "../../../src/maintenance/round.ts";
import { randomOf, type Random } from "../../faults/random.ts";
import { newReader, type Reader } from "./reader.ts";
import { assertWholeStory } from "./story.ts";
import { holdCounter, openLanes, type Lane, type World } from "./world.ts";
import { nap, replayLanes, writeInOrder, writeSlowly, type Tenant, type WriteRecord } from "./writers.ts";

/** What came about in a schedule, so that a suite can say that it met what it is for. */
export interface Met {
  pruned: number;
  expired: number;
}

/** Who writes besides those whose mutations are replayed. */
export interface Mix {
  write: WriteRecord;
  records: number;
  slowWritesMax: number;
}

/**
 * Writers, readers and pruning of one tenant at the same time, as the seed says; then everybody reads to the end. Only
 * the order in which the database lets them go on is not the seed's.
 *
 * @throws {Error} when somebody was told wrong, or ends with something else than there is.
 */
export async function runSchedule(world: World, seed: number, options: Partial<Mix> = {}): Promise<Met> {
  const random = randomOf(seed, "feed");
  const mix: Mix = {
    write: writeInOrder,
    records: random.pick([1, 2, 4, 8, 30]),
    slowWritesMax: 12,
    ...options,
  };
  const tenant: Tenant = {
    world,
    tenantId: `schedule-${seed}`,
    scopes: ["a", "b", "c", "d", "e"].slice(0, random.between(2, 5)),
    records: mix.records,
  };
  const lanes = await openLanes(world, tenant.tenantId, {
    lanes: random.between(2, 4),
    mutations: random.between(4, 10),
  });
  const readers = openReaders(tenant, lanes, random);
  const writing = new AbortController();
  const pruning = [0, 1].map((n) => pruneAlways(tenant, random.fork(`pruner ${n}`), writing.signal));
  const reading = readers.map((reader, n) => readAlways(reader, random.fork(`reader ${n}`), writing.signal));
  const holding = holdAlways(tenant, random.fork("holder"), writing.signal);
  // Who fails early is heard when the writing is over.
  for (const early of [...pruning, ...reading, holding]) early.catch(() => undefined);
  try {
    await Promise.all([
      replayLanes(tenant, lanes.slice(0, 2), random.fork("worker 0")),
      replayLanes(tenant, lanes.slice(2), random.fork("worker 1")),
      writeSlowly(tenant, mix, random.fork("others 0")),
      writeSlowly(tenant, mix, random.fork("others 1")),
      writeSlowly(tenant, mix, random.fork("others 2")),
    ]);
  } finally {
    writing.abort();
  }
  const pruned = (await Promise.all(pruning)).reduce((sum, one) => sum + one, 0);
  await Promise.all([holding, ...reading]);
  const last = await pruneRound(tenant, { keepMs: random.pick([600_000, 600_000, 0]) }, random);
  await Promise.all(readers.map(readToTheEnd));
  await assertWholeStory(tenant, readers);
  return { pruned: pruned + last, expired: readers.reduce((sum, { expired }) => sum + expired, 0) };
}

/** One for each client, and some without; each sees something else. */
function openReaders(tenant: Tenant, lanes: Lane[], random: Random): Reader[] {
  return [...lanes, undefined, undefined, undefined].map((client, n) => {
    const own = tenant.scopes.filter(() => random.chance(0.5));
    const scopes = own.length > 0 ? own : [random.pick(tenant.scopes)];
    const options = { name: `reader ${n}`, scopes, client, pageMax: random.pick([1, 2, 3, 5, 20]) };
    return newReader(tenant, options, random.fork(`pages ${n}`));
  });
}

/**
 * Reads on and on, with rests; every other reader falls asleep at some time, until the writing is over. Few begin anew:
 * that would make good what they were not told.
 */
async function readAlways(reader: Reader, random: Random, signal: AbortSignal): Promise<void> {
  const pages = random.pick([Infinity, random.between(1, 40)]);
  const fickleness = random.pick([0, 0, 0, 0.05]);
  for (let read = 0; !signal.aborted && read < pages; read++) {
    if (random.chance(fickleness)) random.pick([reader.beginFromSnapshot, reader.beginWithoutCursor])();
    await reader.readOn();
    await nap(random, random.chance(0.1) ? 20 : 3);
  }
}

async function readToTheEnd(reader: Reader): Promise<void> {
  for (let pages = 0; await reader.readOn(); pages++)
    if (pages > 5_000) throw new Error(`${reader.name} comes to no end`);
}

async function holdAlways(tenant: Tenant, random: Random, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    await nap(random, 20);
    await holdCounter(tenant.world, tenant.tenantId, random.pick([1, 3, 10]));
  }
}

async function pruneAlways(tenant: Tenant, random: Random, signal: AbortSignal): Promise<number> {
  let pruned = 0;
  // In half of the schedules all cursors stay good.
  const keepMs = random.pick([600_000, 0, 5, 30]);
  while (!signal.aborted) {
    pruned += countOf(await pruneOnce(tenant, { keepMs, rowsMax: random.between(1, 12) }));
    await nap(random, 3);
  }
  return pruned;
}

/** What is left of the round that is under way, and a whole one. */
async function pruneRound(tenant: Tenant, { keepMs }: { keepMs: number }, random: Random): Promise<number> {
  let pruned = 0;
  for (let rounds = 0; rounds < 2;) {
    const batch = await pruneOnce(tenant, { keepMs, rowsMax: random.between(2, 12) });
    pruned += countOf(batch);
    if (!batch?.next) rounds++;
  }
  return pruned;
}

/** A batch of a round; the next round begins as soon as one has ended. */
async function pruneOnce(
  { world, tenantId }: Tenant,
  { keepMs, rowsMax }: { keepMs: number; rowsMax: number },
): Promise<PrunedBatch | undefined> {
  const pruner: Pruner = {
    kind: "feed",
    async begin(trx) {
      await markHead(trx, tenantId, { everyMs: 0 });
      await moveHorizon(trx, tenantId, { keepMs });
    },
    prune: (trx, _, after) => pruneFeed(trx, tenantId, { after: after as FeedRowKey, limit: rowsMax }),
  };
  await world.query(
    `insert into tidegate.pruning (tenant_id, kind) values ($1, 'feed')
     on conflict (tenant_id, kind) do update set due_at = now()`,
    [tenantId],
  );
  return await pruneBatch(world.db, tenantId, pruner);
}

function countOf(batch: PrunedBatch | undefined): number {
  return Object.values(batch?.pruned ?? {}).reduce((sum, count) => sum + count, 0);
}
