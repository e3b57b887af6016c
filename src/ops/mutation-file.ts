import { sql, type Transaction } from "kysely";

import type { PayloadCodec } from "../platform/payload-codec.ts";
import type {
  AttemptDisposition,
  CommandName,
  Database,
  DeliveryState,
  FinalStatus,
  StoredProblem,
} from "../platform/schema.ts";

/** All that is known of one mutation, but for its payload. */
export interface MutationFile {
  key: MutationFacts;
  /** Undefined when it went straight through, has ended, or has not had its turn. */
  delivery: DeliveryFacts | undefined;
  /** The latest ones, newest first. */
  attempts: AttemptFacts[];
  /** In the order in which they were given. */
  commands: CommandFacts[];
  /** Attempts from before this moment may be gone; null while none are. */
  attemptsGoneUntil: Date | null;
}

export interface MutationFacts {
  client_id: string;
  seq: string;
  entity: string;
  status: FinalStatus | null;
  record_id: string | null;
  version: string | null;
  problem: StoredProblem | null;
  accepted_at: Date;
  settled_at: Date | null;
  /** Of the upload; the upstream was given it too. */
  request_id: string | null;
  /** Whether what the client sent is gone, as its time was over. */
  is_pruned: boolean;
}

export interface DeliveryFacts {
  upstream_id: string;
  op: string | null;
  state: DeliveryState;
  blocked_by: string | null;
  possibly_sent: boolean;
  first_sent_at: Date | null;
  last_sent_at: Date | null;
  problem: StoredProblem | null;
  updated_at: Date;
}

export interface AttemptFacts {
  upstream_id: string;
  begun_at: Date;
  duration_ms: number;
  disposition: AttemptDisposition;
  sent: boolean;
  http_status: number | null;
  record_id: string | null;
  epoch: string;
  worker: string;
  request_id: string;
  answer: string | null;
}

export interface CommandFacts {
  command_id: string;
  command: CommandName;
  record_id: string | null;
  reason: string | null;
  given_by: string;
  given_at: Date;
  done_at: Date | null;
  result: string | null;
}

const attemptsMax = 100;

/** A mutation, or a change in a shadow that has its ID, at one upstream. */
export interface AtUpstream {
  mutationId: string;
  upstreamId: string;
}

/** Undefined when the tenant has no such mutation. @param at its attempts are those at all upstreams. */
export async function readMutationFile(
  trx: Transaction<Database>,
  tenantId: string,
  at: AtUpstream,
  codec: PayloadCodec,
): Promise<MutationFile | undefined> {
  const { mutationId, upstreamId } = at;
  const [keys, deliveries, attempts, commands, attemptsGoneUntil] = await Promise.all([
    sql<MutationFacts>`
      select k.client_id, seq, entity, status, record_id, version, problem, accepted_at, settled_at,
        block.request_id, coalesce(block.is_pruned, false) as is_pruned
      from mutation_key k left join lateral (
        select request_id, payload is null as is_pruned from inbox_block b
        where b.tenant_id = ${tenantId} and b.client_id = k.client_id and b.last_seq >= k.seq
        order by b.last_seq limit 1
      ) block on true
      where k.tenant_id = ${tenantId} and mutation_id = ${mutationId}`.execute(trx),
    sql<DeliveryFacts>`
      select upstream_id, op, state, blocked_by, possibly_sent, first_sent_at, last_sent_at, problem, updated_at
      from delivery
      where tenant_id = ${tenantId} and upstream_id = ${upstreamId} and mutation_id = ${mutationId}`.execute(
      trx,
    ),
    readAttempts(trx, tenantId, { mutationId }, codec),
    readCommands(trx, tenantId, at),
    readAttemptsGoneUntil(trx, tenantId),
  ]);
  const [key] = keys.rows;
  return key && { key, delivery: deliveries.rows[0], attempts, commands, attemptsGoneUntil };
}

/** The latest attempts, newest first; those at one upstream, or at all. */
export async function readAttempts(
  trx: Transaction<Database>,
  tenantId: string,
  { mutationId, upstreamId }: { mutationId: string; upstreamId?: string },
  codec: PayloadCodec,
): Promise<AttemptFacts[]> {
  const { rows } = await sql<
    Omit<AttemptFacts, "answer"> & { key_id: string | null; excerpt: Buffer | null }
  >`
    select upstream_id, begun_at, duration_ms, disposition, sent, http_status, record_id, epoch, worker, request_id,
      key_id, excerpt
    from attempt where tenant_id = ${tenantId} and mutation_id = ${mutationId}
      ${upstreamId === undefined ? sql`` : sql`and upstream_id = ${upstreamId}`}
    order by begun_at desc, epoch desc limit ${attemptsMax}`.execute(trx);
  return rows.map(({ key_id: keyId, excerpt, ...facts }) => ({
    ...facts,
    answer: keyId === null || excerpt === null ? null : codec.decode(keyId, excerpt),
  }));
}

/** Attempts from before this moment may be gone, as their time was over; null while none are. */
export async function readAttemptsGoneUntil(
  trx: Transaction<Database>,
  tenantId: string,
): Promise<Date | null> {
  const { rows } = await sql<{ gone_until: Date | null }>`
    select gone_until from pruning where tenant_id = ${tenantId} and kind = 'attempts'`.execute(trx);
  return rows[0]?.gone_until ?? null;
}

/** In the order in which they were given. */
export async function readCommands(
  trx: Transaction<Database>,
  tenantId: string,
  { mutationId, upstreamId }: AtUpstream,
): Promise<CommandFacts[]> {
  const { rows } = await sql<CommandFacts>`
    select command_id, command, record_id, reason, given_by, given_at, done_at, result
    from command
    where tenant_id = ${tenantId} and mutation_id = ${mutationId} and upstream_id = ${upstreamId}
    order by given_at`.execute(trx);
  return rows;
}
