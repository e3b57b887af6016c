import type { Kysely } from "kysely";

import { assertOwnClient } from "../clients/client.ts";
import type { Identity } from "../http/identity.ts";
import { inTenantSnapshot } from "../platform/db.ts";
import type { PayloadCodec } from "../platform/payload-codec.ts";
import type { Database } from "../platform/schema.ts";
import { cursorExpired, readCursor, signCursor, type FeedPlace } from "./cursor.ts";
import type { FeedHead } from "./head.ts";
import { readChanges, type Change, type ChangePage } from "./read.ts";

export interface FeedDeps {
  db: Kysely<Database>;
  codec: PayloadCodec;
  /** Newest first. */
  cursorSecrets: string[];
  /** As it was last seen; the page tells whether it still is. */
  epoch: () => string;
  /** Told of what a client reads, when it is about to be answered. Must be quick, and not throw. */
  onRead?: ((read: ClientRead) => void) | undefined;
}

/** How far one client has come in the feed. */
export interface ClientRead {
  tenantId: string;
  clientId: string;
  scopes: readonly string[];
  epoch: string;
  /** The position that it came with, which it has therefore read up to. */
  from: number;
  /** As in `FeedPlace`, of what it came with. */
  untoldTo: number;
  /** The position that its answer brings it to. */
  to: number;
  /** Whether the answer tells it anything. */
  hasNews: boolean;
}

export interface Pulled {
  changes: Change[];
  cursor: string;
  more: boolean;
}

/** Who follows the feed. */
export interface Follower {
  identity: Identity;
  clientId: string | undefined;
}

/** Up to where a follower has been told everything. */
export interface Place {
  position: number;
  /** As in `FeedPlace`; undefined when it begins, until its first page tells where the head is. */
  begunAt: number | undefined;
  /** As in `FeedPlace`. */
  untoldTo: number;
  /** The feed that the position is of; undefined at the beginning, which every feed has. */
  epoch: string | undefined;
}

/**
 * The page of changes after a cursor, and the cursor to go on from. Without a cursor it begins with the first change.
 *
 * @throws {TidegateError} `cursor-expired`: the client starts over. `client-owned`: it is another user's client.
 */
export async function pullChanges(
  deps: FeedDeps,
  identity: Identity,
  { clientId, cursor, limit }: { clientId: string | undefined; cursor: string | undefined; limit: number },
): Promise<Pulled> {
  const follower = { identity, clientId };
  const place = placeOf(deps, follower, cursor);
  const page = await readPage(deps, follower, place, limit);
  noteRead(deps, follower, place, page);
  return toPulled(deps, follower, place, page);
}

/** @throws {TidegateError} `cursor-expired` */
export function placeOf(deps: FeedDeps, follower: Follower, cursor: string | undefined): Place {
  if (cursor === undefined) return { position: 0, begunAt: undefined, untoldTo: 0, epoch: undefined };
  const epoch = deps.epoch();
  return { ...readCursor(deps.cursorSecrets, claimsOf(follower, epoch), cursor), epoch };
}

/** Where one who was told a page from `place` on goes on: up to `position`, or at the page's end. */
export function placeAfter(
  { position: before, begunAt, untoldTo }: Place,
  { head, position }: Pick<ChangePage, "head" | "position">,
): FeedPlace & { epoch: string } {
  const isPruned = before < head.horizon;
  return {
    position,
    begunAt: begunAt ?? head.position,
    untoldTo: isPruned ? head.horizon : untoldTo,
    epoch: head.epoch,
  };
}

/** The page of changes after a place. @throws {TidegateError} as `pullChanges` */
export async function readPage(
  { db, codec }: Pick<FeedDeps, "db" | "codec">,
  { identity, clientId }: Follower,
  place: Place,
  limit: number,
): Promise<ChangePage> {
  const { tenantId, userId, scopes, roles } = identity;
  return await inTenantSnapshot(db, tenantId, async (trx) => {
    const reader = { tenantId, userId, scopes, roles, clientId };
    // Sent together. Neither may go on when the other has failed and the transaction is over.
    const [owned, read] = await Promise.allSettled([
      clientId === undefined ? undefined : assertOwnClient(trx, { tenantId, clientId }, userId),
      readChanges(trx, reader, { after: place.position, limit, codec }),
    ]);
    if (owned.status === "rejected") throw owned.reason;
    if (read.status === "rejected") throw read.reason;
    const page = read.value;
    assertHonoured(place, page.head);
    return page;
  });
}

/** @throws {TidegateError} `cursor-expired` when the feed doesn't have the place, or not all that comes after it. */
export function assertHonoured({ position, begunAt = position, epoch }: Place, head: FeedHead): void {
  // Whoever begins is at the beginning of every feed.
  if (epoch === undefined) return;
  if (Math.max(position, begunAt) > head.position) throw cursorExpired("It is ahead of this feed.");
  // The database was recovered a moment ago: its positions are other ones.
  if (epoch !== head.epoch) throw cursorExpired("It is of another epoch.");
  if (Math.max(position, begunAt) < head.horizon) throw cursorExpired("What came after it was pruned.");
}

/** Says that a client which came with a place is about to be told a page. */
export function noteRead(
  { onRead }: Pick<FeedDeps, "onRead">,
  { identity: { tenantId, scopes }, clientId }: Follower,
  { position: from, untoldTo }: Pick<Place, "position" | "untoldTo">,
  { head: { epoch }, position: to, changes }: Pick<ChangePage, "head" | "position" | "changes">,
): void {
  if (clientId === undefined) return;
  onRead?.({ tenantId, clientId, scopes, epoch, from, untoldTo, to, hasNews: changes.length > 0 });
}

export function toPulled(
  { cursorSecrets }: FeedDeps,
  follower: Follower,
  place: Place,
  page: ChangePage,
): Pulled {
  const { epoch, position, ...rest } = placeAfter(place, page);
  const cursor = signCursor(cursorSecrets, claimsOf(follower, epoch), position, rest);
  const { changes, more } = page;
  return { changes: changes.map(({ change }) => change), more, cursor };
}

export function claimsOf({ identity: { tenantId, scopes }, clientId }: Follower, epoch: string) {
  return { tenantId, clientId, scopes, epoch };
}
