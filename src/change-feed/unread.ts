import { sql, type Kysely, type RawBuilder, type Transaction } from "kysely";
import type { Logger } from "pino";

import { inTenant } from "../platform/db.ts";
import { bigintArray, uuidArray } from "../platform/pg-arrays.ts";
import type { Database } from "../platform/schema.ts";
import type { ClientRead } from "./pull.ts";
import type { OutcomeEntry } from "./write.ts";

/** Keeps outcomes that have to be read, under the positions that `head` has taken. */
export function keptUnread(
  tenantId: string,
  outcomes: readonly (OutcomeEntry & { ordinal: number })[],
): RawBuilder<unknown> {
  return sql`, unread as (
    insert into unread_outcome (tenant_id, client_id, mutation_id, position)
    select ${tenantId}, o.client_id, o.mutation_id, head.base + o.ordinal
    from head cross join unnest(
      ${uuidArray(outcomes.map(({ clientId }) => clientId))}::uuid[],
      ${uuidArray(outcomes.map(({ mutationId }) => mutationId))}::uuid[],
      ${bigintArray(outcomes.map(({ ordinal }) => ordinal))}::bigint[]
    ) as o (client_id, mutation_id, ordinal)
    on conflict do nothing
  )`;
}

/** What a client was told by name, in an answer. */
export interface ToldOutcome {
  clientId: string;
  mutationId: string;
}

/** Forgets which outcomes are unread, as clients read them. */
export interface ReadOutcomes {
  /** The client was told all up to the cursor that it came with, but for what that says. */
  noteRead: (read: Pick<ClientRead, "tenantId" | "clientId" | "from" | "untoldTo">) => void;
  noteTold: (tenantId: string, told: readonly ToldOutcome[]) => void;
  /** Writes down what has been noted, and notes nothing more. */
  close: () => Promise<void>;
}

/** Outcomes after one position, up to another. */
interface Range {
  after: number;
  upTo: number;
}

interface Gathered {
  read: Map<string, Range>;
  told: Map<string, ToldOutcome>;
}

/**
 * Gathers what clients read, and writes it down every `everyMs`, one statement for each tenant. What a process had
 * gathered when it died stays unread until the client comes again: a needless alarm, and never one too few.
 */
export function createReadOutcomes({
  db,
  log,
  everyMs,
}: {
  db: Kysely<Database>;
  log: Logger;
  everyMs: number;
}): ReadOutcomes {
  let gathered = new Map<string, Gathered>();
  let timer: NodeJS.Timeout | undefined;
  let underWay = Promise.resolve();
  let isClosed = false;

  async function writeAll(tenants: ReadonlyMap<string, Gathered>): Promise<void> {
    for (const [tenantId, reads] of tenants) {
      try {
        await inTenant(db, tenantId, (trx) => forgetRead(trx, tenantId, reads));
      } catch (error) {
        log.warn(
          { tenantId, err: error },
          "what clients have read was not written down; some outcomes count as unread",
        );
      }
    }
  }

  function writeNow(): void {
    const tenants = gathered;
    gathered = new Map();
    timer = undefined;
    underWay = underWay.then(() => writeAll(tenants));
  }

  function of(tenantId: string): Gathered {
    const known = gathered.get(tenantId) ?? { read: new Map(), told: new Map() };
    gathered.set(tenantId, known);
    if (!isClosed) timer ??= setTimeout(writeNow, everyMs);
    return known;
  }

  return {
    noteRead({ tenantId, clientId, from, untoldTo }) {
      if (from <= untoldTo) return;
      const { read } = of(tenantId);
      read.set(clientId, joined(read.get(clientId), { after: untoldTo, upTo: from }));
    },
    noteTold(tenantId, outcomes) {
      for (const outcome of outcomes) of(tenantId).told.set(outcome.mutationId, outcome);
    },
    async close() {
      isClosed = true;
      clearTimeout(timer);
      writeNow();
      await underWay;
    },
  };
}

/** Of two that have a gap between them the later one: what lies in the other counts as unread until the client comes again. */
function joined(before: Range | undefined, range: Range): Range {
  if (!before) return range;
  const [first, second] = before.upTo < range.upTo ? [before, range] : [range, before];
  return first.upTo < second.after
    ? second
    : { after: Math.min(first.after, second.after), upTo: second.upTo };
}

async function forgetRead(
  trx: Transaction<Database>,
  tenantId: string,
  { read, told }: Gathered,
): Promise<void> {
  const ranges = [...read.values()];
  const named = [...told.values()];
  // Each row by its key, in one order, whatever is believed of the table.
  await sql`
    with read as materialized (
      select u.client_id, u.mutation_id from unnest(
        ${uuidArray([...read.keys()])}::uuid[], ${bigintArray(ranges.map(({ after }) => after))}::bigint[],
        ${bigintArray(ranges.map(({ upTo }) => upTo))}::bigint[]
      ) as r (client_id, read_after, read_to)
      join unread_outcome u on u.tenant_id = ${tenantId} and u.client_id = r.client_id
        and u.position > r.read_after and u.position <= r.read_to
      union
      select client_id, mutation_id from unnest(
        ${uuidArray(named.map(({ clientId }) => clientId))}::uuid[],
        ${uuidArray(named.map(({ mutationId }) => mutationId))}::uuid[]
      ) as t (client_id, mutation_id)
    ), gone as materialized (
      select u.client_id, u.mutation_id from read r
      join unread_outcome u on u.tenant_id = ${tenantId} and u.client_id = r.client_id
        and u.mutation_id = r.mutation_id
      order by u.client_id, u.mutation_id for update of u
    )
    delete from unread_outcome u using gone g
    where u.tenant_id = ${tenantId} and u.client_id = g.client_id and u.mutation_id = g.mutation_id`.execute(
    trx,
  );
}
