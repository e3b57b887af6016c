import type { Logger } from "pino";
import { Gauge, type Registry } from "prom-client";

import { TidegateError } from "./errors.ts";

/** Runs one statement. */
export type Ask = (text: string, values?: unknown[]) => Promise<{ rows: unknown[] }>;

/** What a database says of itself. */
export interface Installation {
  /** Undefined on a standby. */
  identity: string | undefined;
  /** Under which it is served; undefined while it never was. */
  servedAs: string | undefined;
  /** The feed's epoch. */
  epoch: string;
  recoveredAt: Date | undefined;
  /** How much of its log is on the disk, in bytes: it only grows. */
  logBytes: bigint;
}

export async function readInstallation(ask: Ask): Promise<Installation> {
  const { rows } = await ask(`
    select database_identity() as identity, served_as, epoch, recovered_at,
      case when pg_is_in_recovery() then 0 else pg_current_wal_flush_lsn() - '0/0' end::text as log_bytes
    from installation`);
  const [row] = rows as {
    identity: string | null;
    served_as: string | null;
    epoch: string;
    recovered_at: Date | null;
    log_bytes: string;
  }[];
  if (!row) throw new Error("the installation row is missing");
  return {
    identity: row.identity ?? undefined,
    servedAs: row.served_as ?? undefined,
    epoch: row.epoch,
    recoveredAt: row.recovered_at ?? undefined,
    logBytes: BigInt(row.log_bytes),
  };
}

export interface InstallationWatch {
  /** Looks before anything is served; a database that was never served is taken over as it is. */
  open: (ask: Ask) => Promise<void>;
  /** Looks at the database behind a new connection, once open. Never fails; an answer that does not come says nothing. */
  look: (ask: Ask) => Promise<void>;
  /** The feed's epoch, as it was last seen. */
  epoch: () => string;
  /** @throws {TidegateError} `recovery-needed` when this is not the database that was served. */
  assertServed: () => void;
  isServed: () => boolean;
  close: () => void;
}

/** Another process may have recovered the database. */
const lookIntervalMs = 2_000;

/**
 * Watches which database is served. One that was put back to an earlier moment is not drained: that is decided with
 * each claim and each commit, by the database itself (`servedHere`). What only this process can know, since it has seen
 * more of the database than there is, it writes down there, so that all processes refuse. This watch tells people.
 */
export function createInstallationWatch({ log }: { log: Logger }): InstallationWatch {
  let latest: Installation | undefined;
  /** The last one that was served. */
  let known: Installation | undefined;
  let fault: string | undefined;
  let timer: NodeJS.Timeout | undefined;

  async function look(ask: Ask): Promise<void> {
    // What is read now can't be older than what was known before it was asked for.
    const before = known;
    const found = await readInstallation(ask);
    const wentBack = before && contradictionOf(before, found);
    if (wentBack !== undefined && found.identity === found.servedAs) await refuse(ask, found, wentBack);
    latest = found;
    tell(found, wentBack ?? mismatchOf(found));
    if (fault === undefined && (known === undefined || isLater(found, known))) known = found;
  }

  function tell({ identity, servedAs }: Installation, found: string | undefined): void {
    if (found !== undefined && fault === undefined) {
      const code = "recovery-needed";
      const action = "nothing is replayed until an operator has run `npm run recover -- --yes`";
      log.error({ code, identity, servedAs, reason: found }, `the database is not the one it was: ${action}`);
    }
    if (found === undefined && fault !== undefined) log.info({ identity }, "the database was recovered");
    fault = found;
  }

  const lookQuietly = async (ask: Ask): Promise<void> =>
    await look(ask).catch((error: unknown) => log.warn({ err: error }, "the database did not say who it is"));

  return {
    async look(ask) {
      if (timer) await lookQuietly(ask);
    },
    async open(ask) {
      await ask("update installation set served_as = database_identity() where served_as is null");
      await look(ask);
      timer = setInterval(() => void lookQuietly(ask), lookIntervalMs);
      timer.unref();
    },
    epoch: () => latest?.epoch ?? "",
    assertServed() {
      if (fault !== undefined) throw new TidegateError("recovery-needed", fault);
    },
    isServed: () => fault === undefined,
    close: () => clearInterval(timer),
  };
}

function mismatchOf({ identity, servedAs }: Installation): string | undefined {
  if (identity === undefined) return "It is a standby.";
  return identity === servedAs ? undefined : `It is ${identity}, and was served as ${servedAs ?? "nothing"}.`;
}

/** Why the database can't be what became of the one that this process knows. A recovery since then explains everything. */
function contradictionOf(before: Installation, found: Installation): string | undefined {
  if (found.identity === undefined || recoveredMs(found) > recoveredMs(before)) return undefined;
  if (found.identity !== before.identity) return `It is ${found.identity}, and was ${before.identity}.`;
  return found.logBytes < before.logBytes ? "Its log ends before what was seen of it." : undefined;
}

/** Of two that were asked for at the same time, either may answer first. */
function isLater(found: Installation, known: Installation): boolean {
  if (recoveredMs(found) !== recoveredMs(known)) return recoveredMs(found) > recoveredMs(known);
  return found.identity !== known.identity || found.logBytes >= known.logBytes;
}

function recoveredMs({ recoveredAt }: Installation): number {
  return recoveredAt?.getTime() ?? 0;
}

/** Lets every process refuse, and those that start later. */
async function refuse(ask: Ask, { identity }: Installation, why: string): Promise<void> {
  await ask("update installation set served_as = $1 where served_as = $2", [`another: ${why}`, identity]);
}

export function registerRecoveryGauge(registry: Registry, { assertServed }: InstallationWatch): void {
  registry.registerMetric(
    new Gauge({
      name: "tidegate_recovery_needed",
      help: "1 while nothing is replayed since the database is not the one that was served.",
      registers: [],
      collect() {
        try {
          assertServed();
          this.set(0);
        } catch {
          this.set(1);
        }
      },
    }),
  );
}
