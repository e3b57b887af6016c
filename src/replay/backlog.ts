import { decodeBlock } from "../inbox/block.ts";
import type { ClaimedEntry } from "./entries.ts";
import type { OpenDelivery } from "./open-delivery.ts";
import { isShadow, whileLeased, type Slice } from "./slice.ts";

/** What one turn at a lane replays, in this order. */
export interface Turn {
  entries: ClaimedEntry[];
  /** How many of them the lane had passed before. */
  backlog: number;
}

/**
 * What a lane has to do: first the mutations that it has passed and that can go on by now, in order; then its log.
 *
 * Except behind an owner that died: the head of the log may have been sent, and is resolved first, since nobody would know
 * that any more once the lane was given back. It can only have been sent if it depends on nothing of the backlog. (An
 * entry of the backlog that may have been sent says so itself: each leaves a trace before its call.)
 */
export async function toTurn(slice: Slice, mutationsMax: number): Promise<Turn> {
  const { claim, entries: log } = slice;
  const runnable = runnableOf(slice);
  const first = givenUpFirst(slice, runnable, ({ mutationId }) => mutationId).slice(0, mutationsMax);
  const backlog = first.length === 0 ? [] : await readBacklog(slice, first);
  const [head, ...rest] = log;
  const mustResolveHead = claim.takenOver && !runnable.some(({ state }) => state === "sending");
  if (backlog.length < runnable.length) {
    slice.hasMore = true;
    const entries = head && mustResolveHead ? [head, ...backlog] : backlog;
    return { entries, backlog: entries.length };
  }
  if (!head || !mustResolveHead || backlog.length === 0) {
    return { entries: [...backlog, ...log].slice(0, mutationsMax), backlog: backlog.length };
  }
  // What it may have to be held behind is only looked at again in another turn.
  slice.hasMore = true;
  return { entries: [head, ...backlog, ...rest].slice(0, mutationsMax), backlog: backlog.length + 1 };
}

/**
 * The mutations that the lane has passed and whose turn it is: those that a command is for, that were about to be sent
 * or retried, and the held ones whose blocker has ended or has its turn as well.
 */
function runnableOf({ claim: { deliveries, position }, commands }: Slice): OpenDelivery[] {
  const commanded = new Set(commands.map(({ mutationId }) => mutationId));
  const stuck = new Set<string>();
  return deliveries.filter(({ mutationId, seq, state, blockedBy, isBehindAnother }) => {
    const isBehind = state === "held" && (isBehindAnother || (blockedBy !== null && stuck.has(blockedBy)));
    const isStuck = !commanded.has(mutationId) && (state === "parked" || isBehind);
    if (isStuck) stuck.add(mutationId);
    return !isStuck && seq <= position;
  });
}

/** To give a change up needs no upstream: it must not stand behind one that is tried again and again. */
function givenUpFirst<T>({ commands }: Slice, items: T[], idOf: (item: T) => string): T[] {
  const decided = new Map(
    commands.map(({ mutationId, command }) => [mutationId, command] as const).toReversed(),
  );
  const isGivenUp = (item: T): boolean => decided.get(idOf(item)) === "reject";
  return [...items.filter(isGivenUp), ...items.filter((item) => !isGivenUp(item))];
}

function idOfEntry(entry: ClaimedEntry): string {
  return "mutation" in entry ? entry.mutation.id : entry.rejected.id;
}

/** As many of them, from the first on, as one turn may read. */
async function readBacklog(slice: Slice, deliveries: OpenDelivery[]): Promise<ClaimedEntry[]> {
  const entries = await whileLeased(slice, async () =>
    isShadow(slice) ? await readFollowedAgain(slice, deliveries) : await readMutations(slice, deliveries),
  );
  if (entries.length === 0)
    throw new Error("the log lacks mutations that its lane has passed without an outcome");
  return givenUpFirst(slice, entries, idOfEntry);
}

async function readMutations({ store, claim }: Slice, deliveries: OpenDelivery[]): Promise<ClaimedEntry[]> {
  const seqs = deliveries.map(({ seq }) => seq);
  const blocks = await store.readPassed(claim.clientId, seqs);
  const wanted = new Set(seqs);
  return blocks.flatMap(({ text, author }) =>
    decodeBlock(text, 0).flatMap((entry) =>
      "mutation" in entry && wanted.has(entry.mutation.seq) ? [{ ...entry, author }] : [],
    ),
  );
}

async function readFollowedAgain(
  { store, claim }: Slice,
  deliveries: OpenDelivery[],
): Promise<ClaimedEntry[]> {
  return await store.readFollowedAgain(
    claim.laneId,
    deliveries.map(({ seq }) => seq),
  );
}
