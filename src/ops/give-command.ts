import { sql, type Kysely, type Transaction } from "kysely";

import { inTenant } from "../platform/db.ts";
import { TidegateError } from "../platform/errors.ts";
import type { CommandName, Database, DeliveryState, FinalStatus } from "../platform/schema.ts";

/** Who wants what done, and why. */
export interface Order {
  command: CommandName;
  recordId?: string | undefined;
  reason?: string | undefined;
  givenBy: string;
}

export interface Given {
  commandId: string;
  laneId: string;
  /** Whether the lane is a shadow's. */
  isShadows: boolean;
}

/**
 * Writes down what is to be done about a mutation, and makes its lane due. The lane's owner does it: under the lane's lock,
 * so that an owner that is just about to give the lane back sees that somebody wants it looked at again.
 *
 * @throws {TidegateError} `not-found`; `invalid-request` when a record ID is missing or makes no sense;
 * `command-refused` when there is nothing to decide about the mutation.
 */
export async function commandMutation(
  db: Kysely<Database>,
  tenantId: string,
  mutationId: string,
  order: Order,
): Promise<Given> {
  return await inTenant(db, tenantId, async (trx) => {
    const laneId = await lockLaneOf(trx, tenantId, mutationId);
    const { upstreamId, ...standing } = await readStanding(trx, tenantId, { laneId, mutationId });
    assertCommandable(standing, order);
    return await giveOnce(trx, tenantId, { laneId, upstreamId, mutationId }, order);
  });
}

/**
 * The same about a change in a shadow.
 *
 * @throws {TidegateError} `not-found` when nothing of the change is open there; `invalid-request`; `command-refused`.
 */
export async function commandChange(
  db: Kysely<Database>,
  tenantId: string,
  { upstreamId, changeId }: { upstreamId: string; changeId: string },
  order: Order,
): Promise<Given> {
  return await inTenant(db, tenantId, async (trx) => {
    const read = async (): Promise<OpenChange> =>
      await readOpenChange(trx, tenantId, { upstreamId, changeId });
    const { laneId } = await read();
    await sql`select 1 from lane where tenant_id = ${tenantId} and lane_id = ${laneId} for update`.execute(
      trx,
    );
    assertChangeCommandable(await read(), order);
    return await giveOnce(trx, tenantId, { laneId, upstreamId, mutationId: changeId }, order);
  });
}

/** Makes a lane due at once, whatever it waits for. @throws {TidegateError} `not-found`. */
export async function lookAtLane(
  db: Kysely<Database>,
  tenantId: string,
  laneId: string,
  order: Pick<Order, "givenBy" | "reason">,
): Promise<Given> {
  return await inTenant(db, tenantId, async (trx) => {
    const { rows } = await sql<{ upstream_id: string }>`
      select upstream_id from lane where tenant_id = ${tenantId} and lane_id = ${laneId} for update`.execute(
      trx,
    );
    const [lane] = rows;
    if (!lane) throw new TidegateError("not-found", "There is no such lane.");
    const target = { laneId, upstreamId: lane.upstream_id, mutationId: null };
    return await giveCommand(trx, tenantId, target, { ...order, command: "now" });
  });
}

/** A primary's lanes are named after their clients. */
async function lockLaneOf(trx: Transaction<Database>, tenantId: string, mutationId: string): Promise<string> {
  const { rows } = await sql<{ client_id: string }>`
    select client_id from mutation_key where tenant_id = ${tenantId} and mutation_id = ${mutationId}`.execute(
    trx,
  );
  const [key] = rows;
  if (!key) throw new TidegateError("not-found", "There is no such mutation.");
  await sql`
    select 1 from lane where tenant_id = ${tenantId} and lane_id = ${key.client_id}::text for update`.execute(
    trx,
  );
  return key.client_id;
}

interface Standing {
  status: FinalStatus | null;
  state: DeliveryState | null;
  isNewRecord: boolean;
}

async function readStanding(
  trx: Transaction<Database>,
  tenantId: string,
  { laneId, mutationId }: { laneId: string; mutationId: string },
): Promise<Standing & { upstreamId: string }> {
  const { rows } = await sql<{
    upstream_id: string;
    status: FinalStatus | null;
    state: DeliveryState | null;
    is_new_record: boolean;
  }>`
    select l.upstream_id, k.status, k.temp_id is not null as is_new_record,
      (select state from delivery d
        where d.tenant_id = ${tenantId} and d.upstream_id = l.upstream_id and d.mutation_id = k.mutation_id) as state
    from mutation_key k join lane l on l.tenant_id = ${tenantId} and l.lane_id = ${laneId}::text
    where k.tenant_id = ${tenantId} and k.mutation_id = ${mutationId}`.execute(trx);
  const [row] = rows;
  if (!row) throw new TidegateError("command-refused", "The mutation was rejected when it was uploaded.");
  return {
    upstreamId: row.upstream_id,
    status: row.status,
    state: row.state,
    isNewRecord: row.is_new_record,
  };
}

function assertCommandable({ status, state, isNewRecord }: Standing, { command, recordId }: Order): void {
  if (status !== null) throw new TidegateError("command-refused", `The mutation has ended: ${status}.`);
  if (state === null) throw new TidegateError("command-refused", "The mutation is on its way.");
  if (state === "sending") throw new TidegateError("command-refused", "The mutation is being sent.");
  assertNamesRecord(command === "applied" && isNewRecord, recordId);
}

function assertNamesRecord(needsId: boolean, recordId: string | undefined): void {
  if (needsId && recordId === undefined) {
    throw new TidegateError(
      "invalid-request",
      "The upstream's ID of the created record is needed: recordId.",
    );
  }
  if (!needsId && recordId !== undefined) {
    throw new TidegateError("invalid-request", "recordId is only for a create that is applied.");
  }
}

interface OpenChange {
  laneId: string;
  state: DeliveryState;
  op: string | null;
}

async function readOpenChange(
  trx: Transaction<Database>,
  tenantId: string,
  { upstreamId, changeId }: { upstreamId: string; changeId: string },
): Promise<OpenChange> {
  const { rows } = await sql<OpenChange>`
    select client_id::text as "laneId", state, op from delivery
    where tenant_id = ${tenantId} and upstream_id = ${upstreamId} and mutation_id = ${changeId}`.execute(trx);
  const [row] = rows;
  if (!row) throw new TidegateError("not-found", "Nothing of such a change is open in the shadow.");
  return row;
}

function assertChangeCommandable({ state, op }: OpenChange, { command, recordId }: Order): void {
  if (state === "sending") throw new TidegateError("command-refused", "The change is being sent.");
  if (command === "applied" && state === "held") {
    throw new TidegateError("command-refused", "What the change is held behind has to be decided first.");
  }
  assertNamesRecord(command === "applied" && op === "create", recordId);
}

interface Target {
  laneId: string;
  upstreamId: string;
  mutationId: string | null;
}

/** A request that is repeated because its answer was lost must not have a change sent twice. */
async function giveOnce(
  trx: Transaction<Database>,
  tenantId: string,
  target: Target,
  order: Order,
): Promise<Given> {
  return (
    (await findRepeated(trx, tenantId, target, order)) ?? (await giveCommand(trx, tenantId, target, order))
  );
}

/** The last command about a mutation, if it is the same one and was not carried out yet. */
async function findRepeated(
  trx: Transaction<Database>,
  tenantId: string,
  { laneId, upstreamId, mutationId }: Target,
  { command, recordId }: Order,
): Promise<Given | undefined> {
  const { rows } = await sql<{
    command_id: string;
    command: CommandName;
    record_id: string | null;
    is_shadows: boolean;
  }>`
    select c.command_id, c.command, c.record_id, l.partition is not null as is_shadows
    from command c join lane l on l.tenant_id = ${tenantId} and l.lane_id = c.lane_id
    where c.tenant_id = ${tenantId} and c.lane_id = ${laneId} and c.upstream_id = ${upstreamId}
      and c.mutation_id = ${mutationId} and c.done_at is null
    order by c.given_at desc limit 1`.execute(trx);
  const [last] = rows;
  if (last?.command !== command || last.record_id !== (recordId ?? null)) return undefined;
  return { commandId: last.command_id, laneId, isShadows: last.is_shadows };
}

/** What is done by being said is done at once. */
async function giveCommand(
  trx: Transaction<Database>,
  tenantId: string,
  { laneId, upstreamId, mutationId }: Target,
  { command, recordId, reason, givenBy }: Order,
): Promise<Given> {
  const { rows } = await sql<{ command_id: string }>`
    insert into command (tenant_id, upstream_id, lane_id, mutation_id, command, record_id, reason, given_by, done_at,
      result)
    values (${tenantId}, ${upstreamId}, ${laneId}, ${mutationId}, ${command}, ${recordId ?? null}, ${reason ?? null},
      ${givenBy}, case when ${mutationId}::uuid is null then clock_timestamp() end,
      case when ${mutationId}::uuid is null then 'due' end)
    returning command_id`.execute(trx);
  const lanes = await sql<{ is_shadows: boolean }>`
    update lane set due_at = least(due_at, clock_timestamp()), look_again = true, aside = false
    where tenant_id = ${tenantId} and lane_id = ${laneId}
    returning partition is not null as is_shadows`.execute(trx);
  const commandId = rows[0]?.command_id;
  if (commandId === undefined) throw new Error("a command was written without an ID");
  return { commandId, laneId, isShadows: lanes.rows[0]?.is_shadows ?? false };
}
