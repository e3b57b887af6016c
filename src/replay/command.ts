import { sql, type Transaction } from "kysely";

import type { CommandName, Database } from "../platform/schema.ts";

/** What an operator wants done about a mutation of a lane, and its owner has not done yet. */
export interface OpenCommand {
  commandId: string;
  laneId: string;
  mutationId: string;
  command: Exclude<CommandName, "now">;
  /** The upstream's name of the record that a create made. */
  recordId: string | null;
  reason: string | null;
}

/** What a mutation came to by a command, or why the command was not carried out. */
export interface CommandResult {
  commandId: string;
  result: string;
}

/** The commands of lanes that were just claimed, in the order in which they were given. */
export async function readOpenCommands(
  trx: Transaction<Database>,
  tenantId: string,
  laneIds: string[],
): Promise<OpenCommand[]> {
  if (laneIds.length === 0) return [];
  const { rows } = await sql<{
    command_id: string;
    lane_id: string;
    mutation_id: string;
    command: OpenCommand["command"];
    record_id: string | null;
    reason: string | null;
  }>`
    select command_id, lane_id, mutation_id, command, record_id, reason from command
    where tenant_id = ${tenantId} and lane_id = any(${laneIds}::text[]) and done_at is null
    order by given_at`.execute(trx);
  return rows.map((row) => ({
    commandId: row.command_id,
    laneId: row.lane_id,
    mutationId: row.mutation_id,
    command: row.command,
    recordId: row.record_id,
    reason: row.reason,
  }));
}

/** Writes down that commands were carried out, in one statement. */
export async function finishCommands(
  trx: Transaction<Database>,
  tenantId: string,
  results: CommandResult[],
): Promise<void> {
  if (results.length === 0) return;
  const ids = results.map(({ commandId }) => commandId);
  await sql`
    update command set done_at = coalesce(command.done_at, clock_timestamp()), result = finished.result
    from unnest(${ids}::uuid[], ${results.map(({ result }) => result)}::text[]) as finished (command_id, result)
    where command.tenant_id = ${tenantId} and command.command_id = any(${ids}::uuid[])
      and command.command_id = finished.command_id`.execute(trx);
}
