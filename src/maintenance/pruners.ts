import { markHead, moveHorizon } from "../change-feed/horizon.ts";
import { pruneFeed, type FeedRowKey } from "../change-feed/prune.ts";
import type { Retention } from "../platform/config/schema.ts";
import { roundEveryMs, type Pruner } from "./round.ts";

const dayMs = 86_400_000;

/** What is pruned, and after which time. */
export function prunersOf({ feedDays }: Retention): Pruner[] {
  return [feedPruner({ keepMs: feedDays * dayMs, rowsMax: 2_000 })];
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
