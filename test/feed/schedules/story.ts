import type { Reader, Told } from "./reader.ts";
import type { Tenant } from "./writers.ts";

interface FeedRow {
  position: number;
  kind: string;
  audience: string;
  subject: string;
  mutation_id: string | null;
}

interface RecordState {
  server_id: string;
  version: number;
  position: number;
  deleted: boolean;
  scopes: string[];
}

/** What was written, pruned by now or not. */
interface Story {
  rows: FeedRow[];
  /** By record and version. */
  states: Map<string, RecordState>;
  current: RecordState[];
}

/** @throws {Error} when a reader was not told what it should have been, or positions are not one after the other. */
export async function assertWholeStory(tenant: Tenant, readers: Reader[]): Promise<void> {
  const story = await readStory(tenant);
  assertPositions(story.rows);
  for (const reader of readers) {
    assertHeld(reader, story);
    assertOutcomes(reader, story);
  }
  await assertStanding(tenant, story);
}

async function readStory({ world, tenantId }: Tenant): Promise<Story> {
  const rows = await world.query<FeedRow>(
    `select position::integer, kind, audience, mutation_id, coalesce(mutation_id::text, record_id) as subject
     from journal.feed where tenant_id = $1 order by position`,
    [tenantId],
  );
  const states = await world.query<RecordState>(
    `select server_id, version::integer, feed_position::integer as position, deleted, scopes
     from journal.record where tenant_id = $1 order by version`,
    [tenantId],
  );
  const current = new Map(states.map((state) => [state.server_id, state]));
  return {
    rows,
    states: new Map(states.map((state) => [`${state.server_id}/${state.version}`, state])),
    current: [...current.values()],
  };
}

function assertPositions(rows: FeedRow[]): void {
  const subjects = new Map<number, string>();
  for (const { position, subject } of rows) {
    const other = subjects.get(position);
    if (other !== undefined && other !== subject) throw new Error(`position ${position} was given out twice`);
    subjects.set(position, subject);
  }
  const last = rows.at(-1)?.position ?? 0;
  if (subjects.size !== last)
    throw new Error(`the feed has ${subjects.size} positions, and ends with ${last}`);
}

const sees = ({ scopes }: Reader, state: RecordState): boolean =>
  !state.deleted && state.scopes.some((scope) => scopes.includes(scope));

function assertHeld(reader: Reader, { current }: Story): void {
  const expected = current
    .filter((state) => sees(reader, state))
    .map(({ server_id: id, version }) => `${id} in version ${version}`);
  const held = [...reader.held].map(([id, version]) => `${id} in version ${version}`);
  const [must, does] = [expected, held].map((list) => list.toSorted().join(", "));
  if (must !== does) throw new Error(`${reader.name} holds ${does}, where there is ${must}`);
}

function assertOutcomes(reader: Reader, { rows, states }: Story): void {
  const positions = new Map(
    rows.filter(({ kind }) => kind === "outcome").map((row) => [row.mutation_id, row]),
  );
  const final = reader.told.outcomes.filter(({ status }) => status !== "parked");
  const told = final.map(({ mutationId }) => positions.get(mutationId)?.position ?? -1);
  if (told.some((position, n) => n > 0 && position <= told[n - 1]!))
    throw new Error(`${reader.name} was told outcomes out of order, or twice: ${told.join(", ")}`);
  const audience = positions.get(final[0]?.mutationId ?? "")?.audience;
  const due = [...positions.values()].filter(
    (row) => row.audience === audience && row.position > reader.told.from,
  );
  const missing = due.filter(({ position }) => !told.includes(position));
  if (missing.length > 0)
    throw new Error(
      `${reader.name} was not told the outcomes at ${missing.map((row) => row.position).join(", ")}`,
    );
  for (const outcome of final) assertAfterChange(reader, outcome, states);
}

/** The outcome of a change is told only to who knows the record as it was then, or as it was later. */
function assertAfterChange(
  reader: Reader,
  { status, recordId, version, held, toldAt }: Told["outcomes"][number],
  states: Map<string, RecordState>,
): void {
  const state = states.get(`${recordId}/${version}`);
  if (!state || status === "rejected") return;
  if (held > 0 && held < version)
    throw new Error(`${reader.name} was told of version ${version} of ${recordId} and holds ${held}`);
  if (sees(reader, state) && toldAt < state.position)
    throw new Error(`${reader.name} was told an outcome before version ${version} of ${recordId}`);
}

/** A live record has its row in each of its scopes, or it would be in no snapshot. */
async function assertStanding({ world, tenantId }: Tenant, { current }: Story): Promise<void> {
  const rows = await world.query<{ audience: string; position: number; record_id: string }>(
    "select audience, position::integer, record_id from tidegate.feed where tenant_id = $1 and kind = 'record'",
    [tenantId],
  );
  const standing = new Set(rows.map((row) => `${row.audience} ${row.record_id} ${row.position}`));
  for (const { server_id: id, position, scopes, deleted } of current) {
    const missing = scopes.filter((scope) => !standing.has(`s:${scope} ${id} ${position}`));
    if (!deleted && missing.length > 0) throw new Error(`record ${id} is gone from ${missing.join(", ")}`);
  }
}
