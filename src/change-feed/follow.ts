import { setTimeout as delay } from "node:timers/promises";

import { clientOwned } from "../clients/client.ts";
import { createBatcher, type Batched } from "../platform/batcher.ts";
import { inTenantSnapshot } from "../platform/db.ts";
import { assertHonoured, readPage, type FeedDeps, type Follower, type Place } from "./pull.ts";
import type { ChangePage } from "./read.ts";
import { readChangesTogether } from "./read-together.ts";

export interface FollowerAt {
  follower: Follower;
  place: Place;
  limit: number;
  /** It is known that there is more than a page. */
  isBehind?: boolean;
}

/**
 * Reads the page behind a place, for those who have been told nearly everything.
 * @throws {TidegateError} as `pullChanges`
 */
export type ReadNext = (at: FollowerAt) => Promise<ChangePage>;

const togetherMax = 500;
/** Of the process, so that those who catch up leave connections to uploads. */
const aloneMax = 4;
const restMsMax = 100;

/**
 * One commit wakes all readers of a scope at the same moment: what they then ask for is read together, one batch of a
 * tenant at a time. Who is further behind than a batch reaches reads alone.
 */
export function createReadNext(deps: Pick<FeedDeps, "db" | "codec">): ReadNext {
  const alone = createBatcher<FollowerAt, Read>(
    async (items) => await Promise.all(items.map(async (item) => await settled(readAlone(deps, item)))),
    { itemsMax: 1, callsMax: aloneMax },
  );
  const together = new Map<string, Batched<FollowerAt, Read>>();

  function batcherOf(tenantId: string): Batched<FollowerAt, Read> {
    const known = together.get(tenantId);
    if (known) return known;
    const batcher = createBatcher<FollowerAt, Read>(
      rested(async (items) => await readTogether(deps, tenantId, items)),
      { itemsMax: togetherMax },
    );
    together.set(tenantId, batcher);
    return batcher;
  }

  return async (at) => {
    if (at.isBehind) return pageOf(await alone(at));
    const page = pageOf(await batcherOf(at.follower.identity.tenantId)(at));
    const isStuck = page.more && page.position <= at.place.position;
    return isStuck ? pageOf(await alone(at)) : upTo(at.limit, page);
  };
}

function upTo(limit: number, page: ChangePage): ChangePage {
  const end = page.changes[limit - 1]?.isBeforeOutcome ? limit + 1 : limit;
  const changes = page.changes.slice(0, end);
  if (changes.length === page.changes.length) return page;
  return { ...page, changes, position: changes.at(-1)?.position ?? page.position, more: true };
}

type Read = { page: ChangePage } | { error: unknown };

function pageOf(read: Read): ChangePage {
  if ("error" in read) throw read.error;
  return read.page;
}

async function settled(reading: Promise<ChangePage>): Promise<Read> {
  return await reading.then(
    (page) => ({ page }),
    (error: unknown) => ({ error }),
  );
}

async function readAlone(deps: Pick<FeedDeps, "db" | "codec">, at: FollowerAt): Promise<ChangePage> {
  return await readPage(deps, at.follower, at.place, at.limit);
}

async function readTogether(
  { db, codec }: Pick<FeedDeps, "db" | "codec">,
  tenantId: string,
  items: FollowerAt[],
): Promise<Read[]> {
  const readers = items.map(({ follower: { identity, clientId }, place }) => ({
    ...identity,
    clientId,
    after: place.position,
  }));
  const pages = await inTenantSnapshot(db, tenantId, (trx) =>
    readChangesTogether(trx, tenantId, readers, codec),
  );
  return items.map(({ place }, index) => honoured(place, pages[index]!));
}

function honoured(place: Place, page: ChangePage | "client-owned"): Read {
  try {
    if (page === "client-owned") throw clientOwned();
    assertHonoured(place, page.head);
    return { page };
  } catch (error) {
    return { error };
  }
}

/** Rests after each call for as long as it took, so that who follows leaves half of the process to others. */
function rested<Item, Result>(
  run: (items: Item[]) => Promise<Result[]>,
): (items: Item[]) => Promise<Result[]> {
  let restedAt = 0;
  return async (items) => {
    const restMs = restedAt - performance.now();
    if (restMs > 1) await delay(restMs);
    const startedAt = performance.now();
    const results = await run(items);
    const endedAt = performance.now();
    restedAt = endedAt + Math.min(restMsMax, endedAt - startedAt);
    return results;
  };
}
