import { sql, type Transaction } from "kysely";

import { markHead, moveHorizon } from "../change-feed/horizon.ts";
import { pruneFeed, type FeedRowKey } from "../change-feed/prune.ts";
import { prunePayloads, type BlockKey } from "../inbox/prune.ts";
import type { Retention } from "../platform/config/schema.ts";
import type { Database, PruningKind } from "../platform/schema.ts";
import { pruneAttempts, type AttemptKey } from "../replay/prune-attempts.ts";
import { clearForgotten } from "../replay/shadows/forget.ts";
import { pruneLog, pruneSeeds, type LogPlace } from "../replay/shadows/prune.ts";
import { roundEveryMs, type Pruner } from "./round.ts";

const dayMs = 86_400_000;

/** What is pruned, and after which time. */
export function prunersOf({ feedDays, payloadDays, attemptDays }: Retention): Pruner[] {
  return [
    feedPruner({ keepMs: feedDays * dayMs, rowsMax: 2_000 }),
    // A block may hold hundreds of mutations, of which each is looked up.
    payloadPruner({ keepMs: payloadDays * dayMs, blocksMax: 200 }),
    attemptPruner({ keepMs: attemptDays * dayMs, rowsMax: 2_000 }),
    ...shadowPruners({ rowsMax: 500 }),
  ];
}

/** @param rowsMax how many rows a batch looks at. */
export function feedPruner({ keepMs, rowsMax }: { keepMs: number; rowsMax: number }): Pruner {
  return {
    kind: "feed",
    async begin(trx, tenantId) {
      await markHead(trx, tenantId, { everyMs: roundEveryMs / 2 });
      await moveHorizon(trx, tenantId, { keepMs });
    },
    prune: (trx, tenantId, after) =>
      pruneFeed(trx, tenantId, { after: after as FeedRowKey | undefined, limit: rowsMax }),
  };
}

/** @param blocksMax how many blocks a batch looks at. */
export function payloadPruner({ keepMs, blocksMax }: { keepMs: number; blocksMax: number }): Pruner {
  return {
    kind: "payloads",
    begin: (trx, tenantId) => moveGoneUntil(trx, tenantId, "payloads", keepMs),
    prune: (trx, tenantId, after) =>
      prunePayloads(trx, tenantId, { keepMs, after: after as BlockKey | undefined, limit: blocksMax }),
  };
}

/** @param rowsMax how many attempts a batch looks at. */
export function attemptPruner({ keepMs, rowsMax }: { keepMs: number; rowsMax: number }): Pruner {
  return {
    kind: "attempts",
    begin: (trx, tenantId) => moveGoneUntil(trx, tenantId, "attempts", keepMs),
    prune: (trx, tenantId, after) =>
      pruneAttempts(trx, tenantId, { keepMs, after: after as AttemptKey | undefined, limit: rowsMax }),
  };
}

/** It does not move back: what is gone stays so, however long things are kept from here on. */
async function moveGoneUntil(
  trx: Transaction<Database>,
  tenantId: string,
  kind: PruningKind,
  keepMs: number,
): Promise<void> {
  await sql`
    update pruning set gone_until = greatest(gone_until, now() - ${keepMs}::float8 * interval '1 millisecond')
    where tenant_id = ${tenantId} and kind = ${kind}`.execute(trx);
}

/** What shadows leave behind: the log that all have passed, their seeds, and whatever is left of forgotten ones. */
export function shadowPruners({ rowsMax: limit }: { rowsMax: number }): Pruner[] {
  return [
    {
      kind: "shadow-log",
      prune: (trx, tenantId, after) =>
        pruneLog(trx, tenantId, { after: after as LogPlace | undefined, limit }),
    },
    {
      kind: "shadow-rows",
      async prune(trx, tenantId) {
        const seed = await pruneSeeds(trx, tenantId, limit);
        const forgotten = await clearForgotten(trx, tenantId, limit);
        return { next: seed + forgotten > 0 ? {} : undefined, pruned: { seed, forgotten } };
      },
    },
  ];
}
