import { sql, type RawBuilder, type Transaction } from "kysely";

import type { PayloadCodec } from "../platform/payload-codec.ts";
import { bigintArray, byteaArray, hexArray, textArray, uuidArray } from "../platform/pg-arrays.ts";
import type { Database, StoredProblem } from "../platform/schema.ts";
import { encodeBlock } from "./block.ts";
import type { RejectedMutation } from "./mutation.ts";

/** A mutation as it was judged by itself: fit for the log, or rejected. */
export interface JudgedMutation {
  seq: number;
  id: string;
  entity: string;
  /** Newest secret first; a repeat may have been written under an older one. */
  fingerprints: string[];
  verdict: { text: string; tempId: string | undefined } | { rejected: StoredProblem };
}

/** What one client's log takes in one piece. */
export interface LogAppend {
  clientId: string;
  userId: string;
  scopes: string[];
  roles: string[];
  requestId: string;
  upstreamId: string;
  /** The log has to reach so far already. */
  previousSeq: number;
  /** Where the client's log ends afterwards: the seq of the last mutation, or a later one. */
  ackedSeq: number;
  /** At least one, in ascending seq, none of them known. */
  mutations: JudgedMutation[];
}

export interface TakenAppend {
  /** The lane had nothing to do, so nobody looks at it unless woken. */
  laneWasIdle: boolean;
}

/**
 * Appends to the logs of clients that differ from each other, in one statement under their locks, and resolves with
 * those of them, by index, that were taken: whose client is the user's own, and whose log ends between `previousSeq` and
 * the first new seq. A client that is not known has a log that ends at 0, and is made.
 *
 * A mutation's id that is known already fails the statement (`unique_violation`), and so does a client that somebody else
 * makes at the same moment: nothing of any of them is taken then.
 */
export async function appendToLogs(
  trx: Transaction<Database>,
  tenantId: string,
  appends: readonly LogAppend[],
  codec: PayloadCodec,
): Promise<Map<number, TakenAppend>> {
  const clientIds = uuidArray(appends.map(({ clientId }) => clientId));
  const ids = uuidArray(appends.flatMap(({ mutations }) => mutations.map(({ id }) => id)));
  const { rows } = await sql<{ place: number; was_idle: boolean }>`
    with upload as (${uploads(appends, clientIds)}),
    held as materialized (
      select u.place, c.user_id, c.last_seq
      from upload u join client c on c.tenant_id = ${tenantId} and c.client_id = u.client_id
      order by c.client_id for update of c
    ), taken as materialized (
      select u.*, h.place is not null as is_known from upload u left join held h on h.place = u.place
      where coalesce(h.user_id, u.user_id) = u.user_id
        and coalesce(h.last_seq, 0) >= u.previous_seq and coalesce(h.last_seq, 0) < u.first_seq
    ), made as (
      insert into client (tenant_id, client_id, user_id, last_seq)
      select ${tenantId}, client_id, user_id, acked_seq from taken where not is_known order by client_id
      returning client_id
    ), moved as (
      update client c set last_seq = t.acked_seq, seen_at = now()
      from taken t where t.is_known and c.tenant_id = ${tenantId} and c.client_id = t.client_id
    ), keys as (${insertKeys(tenantId, appends, { clientIds, ids })}),
    blocks as (${insertBlocks(tenantId, appends, ids, codec)}),
    lanes as (
      insert into lane (tenant_id, lane_id, upstream_id, client_id, tail, due_at)
      select ${tenantId}, client_id, upstream_id, client_id, last_seq, now() from taken
      -- Every client before any lane, as whoever looks at one alone has them.
      where (select count(*) from made) >= 0 order by client_id
      on conflict (tenant_id, lane_id) do update
        set tail = excluded.tail, due_at = coalesce(lane.due_at, excluded.due_at)
      returning client_id, due_at = now() as was_idle
    )
    select t.place::integer, l.was_idle from taken t join lanes l on l.client_id = t.client_id`.execute(trx);
  return new Map(rows.map((row) => [row.place - 1, { laneWasIdle: row.was_idle }]));
}

/** A row for each upload; the first has place 1. */
function uploads(appends: readonly LogAppend[], clientIds: Buffer): RawBuilder<unknown> {
  const idsTo = runningSums(appends.map(({ mutations }) => mutations.length));
  return sql`select * from unnest(
    ${clientIds}::uuid[],
    ${textArray(appends.map(({ userId }) => userId))}::text[],
    ${textArray(appends.map(({ scopes }) => JSON.stringify(scopes)))}::text[],
    ${textArray(appends.map(({ roles }) => JSON.stringify(roles)))}::text[],
    ${textArray(appends.map(({ requestId }) => requestId))}::text[],
    ${textArray(appends.map(({ upstreamId }) => upstreamId))}::text[],
    ${bigintArray(appends.map(({ previousSeq }) => previousSeq))}::bigint[],
    ${bigintArray(appends.map(({ mutations }) => mutations[0]?.seq ?? 0))}::bigint[],
    ${bigintArray(appends.map(({ mutations }) => mutations.at(-1)?.seq ?? 0))}::bigint[],
    ${bigintArray(appends.map(({ ackedSeq }) => ackedSeq))}::bigint[],
    ${bigintArray([0, ...idsTo].slice(0, -1).map((to) => to + 1))}::bigint[], ${bigintArray(idsTo)}::bigint[]
  ) with ordinality as u (client_id, user_id, scopes, roles, request_id, upstream_id, previous_seq, first_seq,
    last_seq, acked_seq, ids_from, ids_to, place)`;
}

function insertKeys(
  tenantId: string,
  appends: readonly LogAppend[],
  { clientIds, ids }: Record<"clientIds" | "ids", Buffer>,
): RawBuilder<unknown> {
  const mutations = appends.flatMap((append) => append.mutations);
  const places = appends.flatMap((append, index) => append.mutations.map(() => index + 1));
  return sql`
    insert into mutation_key
      (tenant_id, mutation_id, client_id, seq, entity, fingerprint, temp_id, status, problem, settled_at)
    select ${tenantId}, m.id, (${clientIds}::uuid[])[m.place], m.seq, m.entity, m.fingerprint, m.temp_id,
      case when m.problem is not null then 'rejected' end, m.problem::jsonb,
      case when m.problem is not null then now() end
    from unnest(
      ${bigintArray(places)}::bigint[], ${ids}::uuid[], ${bigintArray(mutations.map(({ seq }) => seq))}::bigint[],
      ${textArray(mutations.map(({ entity }) => entity))}::text[],
      ${hexArray(mutations.map(({ fingerprints: [newest = ""] }) => newest))}::bytea[],
      ${uuidArray(mutations.map(tempIdOf))}::uuid[], ${textArray(mutations.map(problemOf))}::text[]
    ) as m (place, id, seq, entity, fingerprint, temp_id, problem)
    where (select count(*) from taken) = ${appends.length}::integer or m.place in (select place from taken)`;
}

/** The payloads are taken out of their array one by one, so that none is copied on the way. */
function insertBlocks(
  tenantId: string,
  appends: readonly LogAppend[],
  ids: Buffer,
  codec: PayloadCodec,
): RawBuilder<unknown> {
  const payloads = appends.map(({ mutations }) => codec.encode(encodeBlock(mutations.map(toBlockEntry))));
  return sql`
    insert into inbox_block
      (tenant_id, client_id, last_seq, user_id, scopes, roles, request_id, ids, key_id, payload)
    select ${tenantId}, client_id, last_seq, user_id, array(select jsonb_array_elements_text(scopes::jsonb)),
      array(select jsonb_array_elements_text(roles::jsonb)), request_id,
      (${ids}::uuid[])[ids_from : ids_to], ${codec.keyId}, (${byteaArray(payloads)}::bytea[])[place]
    from taken`;
}

function runningSums(numbers: number[]): number[] {
  let sum = 0;
  return numbers.map((number) => (sum += number));
}

function tempIdOf({ verdict }: JudgedMutation): string | null {
  return "text" in verdict ? (verdict.tempId ?? null) : null;
}

function problemOf({ verdict }: JudgedMutation): string | null {
  return "rejected" in verdict ? JSON.stringify(verdict.rejected) : null;
}

function toBlockEntry({
  seq,
  id,
  verdict,
}: JudgedMutation): { text: string } | { rejected: RejectedMutation } {
  return "text" in verdict ? { text: verdict.text } : { rejected: { seq, id, problem: verdict.rejected } };
}
