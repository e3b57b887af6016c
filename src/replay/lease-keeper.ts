import type { Logger } from "pino";

import type { ReplayStore } from "./store.ts";
import type { Slice } from "./slice.ts";

/** Keeps the leases of the lanes in hand while their calls wait for a place, and for as long as this process runs. */
export interface LeaseKeeper {
  /** Keeps a slice's lease while it is drained. */
  keep<T>(slice: Slice, drain: () => Promise<T>): Promise<T>;
  stop(): void;
}

/**
 * Renews the leases of a tenant's lanes, and of their claims on records, that are down to two thirds, together; commits renew
 * most of them before. A lease of three calls' deadlines is thus never shorter than one and a half when a call starts.
 */
export function createLeaseKeeper(
  store: Pick<ReplayStore, "renew" | "renewRecords">,
  { leaseMs, log }: { leaseMs: number; log: Logger },
): LeaseKeeper {
  const slices = new Set<Slice>();
  let isRenewing = false;

  async function renew(): Promise<void> {
    const startedAt = performance.now();
    const short = [...slices].filter((slice) => endOf(slice) - startedAt < (2 / 3) * leaseMs);
    if (short.length === 0 || isRenewing) return;
    isRenewing = true;
    try {
      const ours = await store.renew(short.map(({ claim }) => claim));
      for (const slice of short) {
        if (ours.has(slice.claim.laneId)) slice.leaseUntil = Math.max(slice.leaseUntil, startedAt + leaseMs);
        else slice.isLost = true;
      }
      await renewRecords(short, startedAt);
    } catch (error) {
      log.warn({ lanes: short.length, err: error }, "leases could not be renewed");
    } finally {
      isRenewing = false;
    }
  }

  async function renewRecords(short: Slice[], startedAt: number): Promise<void> {
    const claims = short.flatMap(({ recordClaim }) => recordClaim ?? []);
    if (claims.length === 0) return;
    const ours = await store.renewRecords(claims);
    // One that was lost is not renewed: its time runs out, and the next call finds out.
    for (const claim of claims) if (ours.has(claim.laneId)) claim.leaseUntil = startedAt + leaseMs;
  }

  const timer = setInterval(() => void renew(), leaseMs / 10);
  return {
    async keep(slice, drain) {
      slices.add(slice);
      try {
        return await drain();
      } finally {
        slices.delete(slice);
      }
    },
    stop: () => clearInterval(timer),
  };
}

/** Lost claims are not renewed, so they don't count. */
function endOf({ leaseUntil, recordClaim }: Slice): number {
  return Math.min(leaseUntil, recordClaim?.leaseUntil ?? Infinity);
}
