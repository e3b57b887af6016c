import { sql, type Kysely } from "kysely";

/**
 * Gives the service's role what it needs and nothing else: rows, not tables. Run by the owner after each migration,
 * so that what a migration creates is covered, and what another tool created by the owner's hand as well.
 *
 * BullMQ's Postgres backend creates sequences while it runs, hence its CREATE.
 */
export async function grantService<DB>(ownerDb: Kysely<DB>, serviceRole: string): Promise<void> {
  const service = sql.id(serviceRole);
  const statements = [
    ...rowsOf("tidegate", serviceRole),
    sql`revoke insert, update, delete on tidegate.migration, tidegate.migration_lock from ${service}`,
    ...rowsOf("bullmq", serviceRole),
    sql`grant create on schema bullmq to ${service}`,
    sql`grant execute on all functions in schema bullmq to ${service}`,
    sql`alter default privileges in schema bullmq grant execute on functions to ${service}`,
  ];
  await ownerDb.transaction().execute(async (trx) => {
    // Two who grant at once fail over each other ("tuple concurrently updated").
    await sql`select pg_advisory_xact_lock(hashtext('tidegate.grants'))`.execute(trx);
    for (const statement of statements) await statement.execute(trx);
  });
}

function rowsOf(schemaName: string, serviceRole: string) {
  const [schema, service] = [sql.id(schemaName), sql.id(serviceRole)];
  const rows = sql`select, insert, update, delete`;
  const numbers = sql`usage, select, update`;
  return [
    sql`grant usage on schema ${schema} to ${service}`,
    sql`grant ${rows} on all tables in schema ${schema} to ${service}`,
    sql`do $$
      declare sequence_name regclass;
      begin
        -- Those that the service has created are its own.
        for sequence_name in select oid from pg_class
          where relnamespace = ${sql.lit(schemaName)}::regnamespace and relkind = 'S' and pg_get_userbyid(relowner) = current_user
        loop
          execute format('grant usage, select, update on sequence %s to %I', sequence_name, ${sql.lit(serviceRole)});
        end loop;
      end $$`,
    sql`alter default privileges in schema ${schema} grant ${rows} on tables to ${service}`,
    sql`alter default privileges in schema ${schema} grant ${numbers} on sequences to ${service}`,
  ];
}
