import { sql, type Transaction } from "kysely";

import type { Database, PushServiceName } from "../platform/schema.ts";
import type { ClaimedPush } from "./claim.ts";
import { removeAudiences } from "./registration.ts";
import type { Verdict } from "./service.ts";

export interface Answered {
  push: ClaimedPush;
  verdict: Verdict;
}

export interface SettleOptions {
  service: PushServiceName;
  reminderMs: number;
  /** It was to find out whether the service is back. */
  isProbe: boolean;
}

/** The pause after a failure: of one registration, and of a service by which nothing came through. */
const registrationBackoff = { baseMs: 10_000, capMs: 900_000 };
const serviceBackoff = { baseMs: 2_000, capMs: 300_000 };

/**
 * Writes down what became of pushes that were claimed together. Whatever was done to a registration since its claim stands:
 * it was read, registered anew, or claimed by another.
 *
 * @returns the registrations that were removed, as dead.
 */
export async function settlePushes(
  trx: Transaction<Database>,
  tenantId: string,
  answers: readonly Answered[],
  options: SettleOptions,
): Promise<Answered[]> {
  await settleAlive(trx, tenantId, answers, options);
  const removed = await removeDead(trx, tenantId, answers);
  await settleService(trx, tenantId, answers, options);
  return removed;
}

/** One that may have been delivered counts in the budget, one that was not does not. */
async function settleAlive(
  trx: Transaction<Database>,
  tenantId: string,
  answers: readonly Answered[],
  { reminderMs }: SettleOptions,
): Promise<void> {
  const alive = answers.filter(({ verdict }) => verdict.kind !== "dead");
  if (alive.length === 0) return;
  const isSent = alive.map(({ verdict }) => verdict.kind === "sent");
  const counts = alive.map(
    ({ verdict }) => verdict.kind === "sent" || (verdict.kind === "failed" && verdict.isUnclear),
  );
  await sql`
    with done as materialized (
      select r.client_id, d.claim_id, d.is_sent, d.counts
      from unnest(
        ${alive.map(({ push }) => push.clientId)}::uuid[], ${alive.map(({ push }) => push.claimId)}::uuid[],
        ${isSent}::boolean[], ${counts}::boolean[]
      ) as d (client_id, claim_id, is_sent, counts)
      join push_registration r on r.tenant_id = ${tenantId} and r.client_id = d.client_id and r.claim_id = d.claim_id
      order by r.client_id for update of r
    )
    update push_registration r set
      claim_id = null,
      pushed_at = case when d.is_sent then now() else r.pushed_at end,
      push_id = case when d.is_sent then null else r.push_id end,
      pushes = case when d.is_sent then least(r.pushes + 1, 100) else r.pushes end,
      failures = case when d.is_sent then 0 else r.failures + 1 end,
      sent_at = case when d.counts then r.sent_at else trim_array(r.sent_at, 1) end,
      due_at = now() + case when d.is_sent then ${reminderMs} * interval '1 ms' * (2 ^ least(r.pushes, 5::smallint))
        else least(${registrationBackoff.capMs}, ${registrationBackoff.baseMs} * 2 ^ least(r.failures, 20))
          * (0.5 + random() / 2) * interval '1 ms' end
    from done d
    where r.tenant_id = ${tenantId} and r.client_id = d.client_id and r.claim_id = d.claim_id`.execute(trx);
}

/** Removes the registrations whose addresses are dead, unless they were registered anew since. */
async function removeDead(
  trx: Transaction<Database>,
  tenantId: string,
  answers: readonly Answered[],
): Promise<Answered[]> {
  const dead = answers.filter(({ verdict }) => verdict.kind === "dead");
  if (dead.length === 0) return [];
  const { rows } = await sql<{ client_id: string; scopes: string[] }>`
    with gone as materialized (
      select r.client_id, d.revision
      from unnest(${dead.map(({ push }) => push.clientId)}::uuid[], ${dead.map(({ push }) => push.revision)}::uuid[])
        as d (client_id, revision)
      join push_registration r on r.tenant_id = ${tenantId} and r.client_id = d.client_id and r.revision = d.revision
      order by r.client_id for update of r
    )
    delete from push_registration r using gone
    where r.tenant_id = ${tenantId} and r.client_id = gone.client_id and r.revision = gone.revision
    returning r.client_id, r.scopes`.execute(trx);
  await removeAudiences(trx, tenantId, rows);
  const removed = new Set(rows.map(({ client_id }) => client_id));
  return dead.filter(({ push }) => removed.has(push.clientId));
}

/**
 * A service that answers for one client works, whatever it says of others. One by which nothing came through is paused, and
 * then asked by one push at a time until that comes through. What it asks for itself (`Retry-After`) counts in any case.
 */
async function settleService(
  trx: Transaction<Database>,
  tenantId: string,
  answers: readonly Answered[],
  { service, isProbe }: SettleOptions,
): Promise<void> {
  const failures = answers.flatMap(({ verdict }) =>
    verdict.kind === "failed" && verdict.reason !== "too-late" ? [verdict] : [],
  );
  const works = answers.some(({ verdict }) => verdict.kind !== "failed");
  const [failure] = failures;
  if (!failure) {
    if (works && isProbe) await isBack(trx, tenantId, service);
    return;
  }
  const askedForMs = Math.max(0, ...failures.map(({ retryAfterMs = 0 }) => retryAfterMs));
  const problem = `${failure.reason}: ${failure.detail}`;
  const { baseMs, capMs } = serviceBackoff;
  const firstMs = works ? askedForMs : Math.max(askedForMs, baseMs);
  await sql`
    insert into push_service as s (tenant_id, service, failures, paused_until, problem, problem_at)
    values (${tenantId}, ${service}, ${works ? 0 : 1}, now() + ${firstMs} * interval '1 ms', ${problem}, now())
    on conflict (tenant_id, service) do update set
      failures = case when not ${works}::boolean then s.failures + 1 when ${isProbe}::boolean then 0 else s.failures end,
      paused_until = greatest(
        case when not ${isProbe}::boolean then s.paused_until end,
        now() + greatest(${askedForMs}, case when ${works}::boolean then 0
          else least(${capMs}, ${baseMs} * 2 ^ least(s.failures, 20)) * (0.5 + random() / 2) end) * interval '1 ms'
      ),
      problem = excluded.problem, problem_at = excluded.problem_at`.execute(trx);
}

async function isBack(trx: Transaction<Database>, tenantId: string, service: PushServiceName): Promise<void> {
  await sql`
    update push_service set failures = 0, paused_until = null
    where tenant_id = ${tenantId} and service = ${service}`.execute(trx);
}
