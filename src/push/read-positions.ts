import { sql, type Kysely, type Transaction } from "kysely";
import type { Logger } from "pino";

import type { ClientRead } from "../change-feed/pull.ts";
import { inTenant } from "../platform/db.ts";
import type { Database } from "../platform/schema.ts";
import { replaceAudiences } from "./registration.ts";

/** Keeps how far registered clients have read. */
export interface ReadPositions {
  /** Notes what a client reads. Written down within `writeMsMax`, together with what others read meanwhile. */
  note: (read: ClientRead) => void;
  /** Writes down what has been noted, and notes nothing more. */
  close: () => Promise<void>;
}

export interface ReadPositionsDeps {
  db: Kysely<Database>;
  log: Logger;
  /** Those that wake apps, with the time within which a client that reads is not woken. */
  tenants: ReadonlyMap<string, { delayMs: number }>;
}

/** Well before a client that reads could be woken for what it has read. */
const writeMsMax = 2_000;
const writesPerDelay = 4;

/**
 * Gathers what clients read, and writes it down a few times within `delayMs`, one statement for each tenant: that is the
 * price however often they read. What a process had gathered when it died costs a push that nobody needed.
 */
export function createReadPositions({ db, log, tenants }: ReadPositionsDeps): ReadPositions {
  const gathered = new Map<string, Map<string, ClientRead>>();
  const timers = new Map<string, NodeJS.Timeout>();
  const underWay = new Set<Promise<void>>();
  let isClosed = false;

  async function write(tenantId: string): Promise<void> {
    const reads = [...(gathered.get(tenantId)?.values() ?? [])];
    const delayMs = tenants.get(tenantId)?.delayMs ?? 0;
    timers.delete(tenantId);
    gathered.delete(tenantId);
    try {
      await inTenant(db, tenantId, (trx) => writeReads(trx, tenantId, reads, { delayMs }));
    } catch (error) {
      log.warn(
        { tenantId, err: error },
        "what clients have read was not written down; some may be woken needlessly",
      );
    }
  }

  function writeNow(tenantId: string): void {
    const written = write(tenantId).finally(() => underWay.delete(written));
    underWay.add(written);
  }

  return {
    note(read) {
      const tenant = tenants.get(read.tenantId);
      if (!tenant || isClosed) return;
      const reads = gathered.get(read.tenantId) ?? new Map<string, ClientRead>();
      gathered.set(read.tenantId, reads.set(read.clientId, joined(reads.get(read.clientId), read)));
      if (timers.has(read.tenantId)) return;
      const pauseMs = Math.min(writeMsMax, tenant.delayMs / writesPerDelay);
      timers.set(read.tenantId, setTimeout(writeNow, pauseMs, read.tenantId));
    },
    async close() {
      isClosed = true;
      for (const [tenantId, timer] of timers) {
        clearTimeout(timer);
        writeNow(tenantId);
      }
      await Promise.all(underWay);
    },
  };
}

/** Two reads of one client as one: the later one's scopes, and the furthest of both within its epoch. */
function joined(before: ClientRead | undefined, read: ClientRead): ClientRead {
  if (before?.epoch !== read.epoch) return read;
  return {
    ...read,
    from: Math.max(before.from, read.from),
    to: Math.max(before.to, read.to),
    hasNews: before.hasNews || read.hasNews,
  };
}

interface Written {
  client_id: string;
  scopes_before: string[];
  scopes: string[];
}

/**
 * Writes down how far clients have read: of those that are registered, and only what makes a difference. Whoever has been
 * told what it is wanted for is looked at once more, since something else may have come behind it.
 */
export async function writeReads(
  trx: Transaction<Database>,
  tenantId: string,
  reads: readonly ClientRead[],
  { delayMs }: { delayMs: number },
): Promise<void> {
  const { rows } = await sql<Written>`
    with seen as materialized (
      select client_id, read_to, told_to, has_news, epoch, scopes::text[] as scopes
      from unnest(
        ${reads.map(({ clientId }) => clientId)}::uuid[], ${reads.map(({ from }) => from)}::bigint[],
        ${reads.map(({ to }) => to)}::bigint[], ${reads.map(({ hasNews }) => hasNews)}::boolean[],
        ${reads.map(({ epoch }) => epoch)}::uuid[], ${reads.map(({ scopes }) => arrayLiteral(scopes))}::text[]
      ) as s (client_id, read_to, told_to, has_news, epoch, scopes)
    ), known as materialized (
      select r.client_id, r.scopes as scopes_before, s.scopes, s.read_to, s.told_to, s.epoch,
        r.epoch <> s.epoch as is_new_epoch
      from seen s
      join installation i on i.epoch = s.epoch
      join push_registration r on r.tenant_id = ${tenantId} and r.client_id = s.client_id
      where r.epoch <> s.epoch or r.scopes <> s.scopes or s.told_to >= r.wanted_position
        or (s.has_news and s.told_to > r.told_position) or (s.read_to > r.read_position and r.due_at is not null)
      order by r.client_id for update of r
    )
    update push_registration r set
      scopes = k.scopes,
      epoch = k.epoch,
      read_position = case when k.is_new_epoch then k.read_to else greatest(r.read_position, k.read_to) end,
      told_position = case when k.is_new_epoch then k.told_to else greatest(r.told_position, k.told_to) end,
      told_at = now(),
      wanted_position = case when ${isRead} then null else r.wanted_position end,
      push_id = case when ${isRead} then null else r.push_id end,
      pushed_at = case when ${isRead} then null else r.pushed_at end,
      pushes = case when ${isRead} then 0 else r.pushes end,
      failures = case when ${isRead} then 0 else r.failures end,
      claim_id = case when ${isRead} then null else r.claim_id end,
      due_at = case when ${isRead} then now() + ${delayMs} * interval '1 ms' else r.due_at end
    from known k
    where r.tenant_id = ${tenantId} and r.client_id = k.client_id
    returning r.client_id, k.scopes_before, k.scopes`.execute(trx);
  const changes = rows.map(({ client_id: clientId, scopes_before: before, scopes }) => ({
    clientId,
    before,
    scopes,
  }));
  const moved = changes.filter(({ before, scopes }) => before.join("\n") !== scopes.join("\n"));
  await replaceAudiences(trx, tenantId, moved);
}

/** Told what it was wanted for, or in other circumstances: what it is wanted for is found out anew. */
const isRead = sql`(k.is_new_epoch or r.wanted_position is null or k.told_to >= r.wanted_position
  or k.scopes <> k.scopes_before)`;

/** A Postgres array as text: arrays of arrays of different lengths can't be unnested. */
function arrayLiteral(values: readonly string[]): string {
  return `{${values.map((value) => `"${value.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`).join(",")}}`;
}
