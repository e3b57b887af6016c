import type { Kysely } from "kysely";

import { assertOwnClient } from "../clients/client.ts";
import type { Identity } from "../http/identity.ts";
import { inTenantSnapshot } from "../platform/db.ts";
import type { PayloadCodec } from "../platform/payload-codec.ts";
import type { Database } from "../platform/schema.ts";
import { cursorExpired, readCursor, signCursor } from "./cursor.ts";
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
  noteRead(deps, follower, place.position, page);
  return toPulled(deps, follower, page);
}

/** @throws {TidegateError} `cursor-expired` */
export function placeOf(deps: FeedDeps, follower: Follower, cursor: string | undefined): Place {
  if (cursor === undefined) return { position: 0, epoch: undefined };
  const epoch = deps.epoch();
  return { position: readCursor(deps.cursorSecrets, claimsOf(follower, epoch), cursor), epoch };
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
    if (clientId !== undefined) await assertOwnClient(trx, { tenantId, clientId }, userId);
    const reader = { tenantId, userId, scopes, roles, clientId };
    const page = await readChanges(trx, reader, { after: place.position, limit, codec });
    assertHonoured(place, page);
    return page;
  });
}

/** @throws {TidegateError} `cursor-expired` when the place is none of the feed that the page is of. */
export function assertHonoured({ position, epoch }: Place, page: { head: number; epoch: string }): void {
  if (position > page.head) throw cursorExpired("It is ahead of this feed.");
  // The database was recovered a moment ago: its positions are other ones.
  if (epoch !== undefined && epoch !== page.epoch) throw cursorExpired("It is of another epoch.");
}

/** Says that a client which came with a position is about to be told a page. */
export function noteRead(
  { onRead }: Pick<FeedDeps, "onRead">,
  { identity: { tenantId, scopes }, clientId }: Follower,
  from: number,
  { epoch, position: to, changes }: Pick<ChangePage, "epoch" | "position" | "changes">,
): void {
  if (clientId === undefined) return;
  onRead?.({ tenantId, clientId, scopes, epoch, from, to, hasNews: changes.length > 0 });
}

export function toPulled({ cursorSecrets }: FeedDeps, follower: Follower, page: ChangePage): Pulled {
  const { changes, more, position, epoch } = page;
  const cursor = signCursor(cursorSecrets, claimsOf(follower, epoch), position);
  return { changes: changes.map(({ change }) => change), more, cursor };
}

export function claimsOf({ identity: { tenantId, scopes }, clientId }: Follower, epoch: string) {
  return { tenantId, clientId, scopes, epoch };
}
