import type { TestDatabase } from "../fixtures/postgres.ts";
import { asSuperuser } from "../fixtures/postgres-server.ts";

/** Rows of every tenant, past the row-level security: what really stands in the database. */
export async function rowsOf<Row>(
  { superuserUrl }: Pick<TestDatabase, "superuserUrl">,
  query: string,
  values: unknown[] = [],
): Promise<Row[]> {
  return await asSuperuser(superuserUrl, async (client) => {
    await client.query("set search_path to tidegate");
    return (await client.query(query, values)).rows as Row[];
  });
}

export interface DeliveryRow {
  mutation_id: string;
  state: string;
  refers_to: string[];
  blocked_by: string | null;
  possibly_sent: boolean;
  attempts: number;
  evidence_status: number | null;
}

export async function deliveriesOf(database: TestDatabase, clientId: string): Promise<DeliveryRow[]> {
  return await rowsOf(database, "select * from delivery where client_id = $1 order by seq", [clientId]);
}

export interface LaneRow {
  position: string;
  tail: string;
  failures: number;
  epoch: string;
  owner: string | null;
  due_in_ms: number | null;
  is_leased: boolean;
}

export async function laneOf(database: TestDatabase, clientId: string): Promise<LaneRow> {
  const [row] = await rowsOf<LaneRow>(
    database,
    `select *, (extract(epoch from due_at - clock_timestamp()) * 1000)::float8 as due_in_ms,
       lease_until is not null as is_leased from lane where client_id = $1`,
    [clientId],
  );
  if (!row) throw new Error("no such lane");
  return row;
}

export interface AttemptRow {
  disposition: string;
  sent: boolean;
  http_status: number | null;
  record_id: string | null;
  duration_ms: number;
  epoch: string;
  worker: string;
  request_id: string;
  excerpt: string | null;
}

/** The attempts at a mutation, oldest first. */
export async function attemptsOf(
  database: Pick<TestDatabase, "superuserUrl">,
  mutationId: string,
): Promise<AttemptRow[]> {
  return await rowsOf(
    database,
    `select *, convert_from(excerpt, 'UTF8') as excerpt from attempt where mutation_id = $1 order by begun_at, epoch`,
    [mutationId],
  );
}
