import type { Kysely } from "kysely";

import { assertOwnClient } from "../clients/client.ts";
import type { Identity } from "../http/identity.ts";
import { inTenantSnapshot } from "../platform/db.ts";
import type { PayloadCodec } from "../platform/payload-codec.ts";
import type { Database } from "../platform/schema.ts";
import { cursorExpired, readCursor, signCursor } from "./cursor.ts";
import { readChanges, type Change } from "./read.ts";

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

/**
 * The page of changes after a cursor, and the cursor to go on from. Without a cursor it begins with the first change.
 *
 * @throws {TidegateError} `cursor-expired`: the client starts over. `client-owned`: it is another user's client.
 */
export async function pullChanges(
  { db, codec, cursorSecrets, epoch, onRead }: FeedDeps,
  identity: Identity,
  { clientId, cursor, limit }: { clientId: string | undefined; cursor: string | undefined; limit: number },
): Promise<Pulled> {
  const { tenantId, userId, scopes, roles } = identity;
  const claims = { tenantId, clientId, scopes, epoch: epoch() };
  const after = cursor === undefined ? 0 : readCursor(cursorSecrets, claims, cursor);
  const page = await inTenantSnapshot(db, tenantId, async (trx) => {
    if (clientId !== undefined) await assertOwnClient(trx, { tenantId, clientId }, userId);
    const reader = { tenantId, userId, scopes, roles, clientId };
    const found = await readChanges(trx, reader, { after, limit, codec });
    if (found.isAhead) throw cursorExpired("It is ahead of this feed.");
    // The database was recovered a moment ago: its positions are other ones.
    if (cursor !== undefined && found.epoch !== claims.epoch) throw cursorExpired("It is of another epoch.");
    return found;
  });
  const { changes, more, position, epoch: pageEpoch } = page;
  if (clientId !== undefined) {
    const hasNews = changes.length > 0;
    onRead?.({ tenantId, clientId, scopes, epoch: pageEpoch, from: after, to: position, hasNews });
  }
  return { changes, more, cursor: signCursor(cursorSecrets, { ...claims, epoch: pageEpoch }, position) };
}
