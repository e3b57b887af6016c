import { assertOwnClient } from "../clients/client.ts";
import type { Identity } from "../http/identity.ts";
import { inTenantSnapshot } from "../platform/db.ts";
import { signCursor } from "./cursor.ts";
import { assertReadOnce, type Polled } from "./first-reading.ts";
import { readHead, type FeedHead } from "./head.ts";
import type { FeedDeps } from "./pull.ts";
import { readSnapshot, type SnapshotPlace } from "./read-snapshot.ts";
import type { ShownRecord } from "./shown-record.ts";
import { readToken, signToken, tokenExpired } from "./token.ts";

export interface SnapshotAnswer {
  records: ShownRecord[];
  more: boolean;
  /** What to ask for next, while there is more. */
  page?: string;
  /** Where to follow from, at the end: the feed's head when the snapshot began. */
  cursor?: string;
}

/**
 * A page of a snapshot: of one that begins, or the one that a `page` names. Each may be asked for again.
 *
 * What changes after the snapshot has begun is left out of the pages that are still to come, and stands behind the cursor.
 *
 * @throws {TidegateError} `cursor-expired`: the client begins another snapshot. `client-owned`: it is another user's client.
 * `not-ready`: the primary's records are not known yet, the client asks again later.
 */
export async function takeSnapshot(
  {
    db,
    codec,
    cursorSecrets,
    epoch,
    onRead,
    polledOf,
  }: FeedDeps & { polledOf: (tenantId: string) => Polled },
  { tenantId, userId, scopes }: Identity,
  { clientId, page, limit }: { clientId: string | undefined; page: string | undefined; limit: number },
): Promise<SnapshotAnswer> {
  const claims = { tenantId, clientId, scopes, epoch: epoch() };
  const place = page === undefined ? undefined : toPlace(readToken(cursorSecrets, "page", claims, page));
  return await inTenantSnapshot(db, tenantId, async (trx) => {
    if (clientId !== undefined) await assertOwnClient(trx, { tenantId, clientId }, userId);
    if (!place) await assertReadOnce(trx, tenantId, polledOf(tenantId));
    const head = await readHead(trx, tenantId);
    if (place) assertHonoured(place, head, claims.epoch);
    const from = place ?? { until: head.position, scope: 0, after: 0 };
    const { records, next } = await readSnapshot(trx, { tenantId, scopes, clientId }, from, { limit, codec });
    const current = { ...claims, epoch: head.epoch };
    if (!next && clientId !== undefined) {
      const read = { from: 0, untoldTo: 0, to: from.until, hasNews: true };
      onRead?.({ tenantId, clientId, scopes, epoch: head.epoch, ...read });
    }
    // A snapshot tells no outcomes.
    const rest = clientId === undefined ? {} : { untoldTo: from.until };
    return next
      ? { records, more: true, page: signToken(cursorSecrets, "page", current, toNumbers(next)) }
      : { records, more: false, cursor: signCursor(cursorSecrets, current, from.until, rest) };
  });
}

function assertHonoured({ until }: SnapshotPlace, head: FeedHead, epoch: string): void {
  if (until > head.position) throw tokenExpired("page", "It is ahead of this feed.");
  // The database was recovered a moment ago: its positions are other ones.
  if (head.epoch !== epoch) throw tokenExpired("page", "It is of another epoch.");
  if (until < head.horizon) throw tokenExpired("page", "What came after its snapshot began was pruned.");
}

function toNumbers({ until, scope, after }: SnapshotPlace): number[] {
  return [until, scope, after];
}

function toPlace([until = 0, scope = 0, after = 0]: number[]): SnapshotPlace {
  return { until, scope, after };
}
