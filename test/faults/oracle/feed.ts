import { isDeepStrictEqual } from "node:util";

import type { Follower } from "../follower.ts";
import type { Phone } from "../phone.ts";
import type { World } from "../world/world.ts";
import type { Evidence } from "./evidence.ts";
import type { Violation } from "./violation.ts";

/** The feed in the database: positions without a gap, and each outcome and each record's last change in it once. */
export async function judgeFeed({ postgres }: World): Promise<Violation[]> {
  const [head] = await postgres.rows<{ head: string; highest: string; positions: string }>(
    `select coalesce((select position from feed_head), 0) as head, coalesce(max(position), 0) as highest,
       count(distinct position) as positions from feed`,
  );
  const gaps = head && (head.head !== head.highest || head.head !== head.positions) ? [head] : [];
  const untold = await postgres.rows<{ mutation_id: string; times: string }>(
    `select k.mutation_id, count(f.mutation_id) as times from mutation_key k
     left join feed f on f.mutation_id = k.mutation_id and f.kind = 'outcome'
     where k.status is not null group by 1 having count(f.mutation_id) <> 1`,
  );
  const unfed = await postgres.rows<{ entity: string; server_id: string }>(
    `select r.entity, r.server_id from record r
     join (select entity, record_id, max(position) as position from feed group by 1, 2) f
       on f.entity = r.entity and f.record_id = r.server_id
     where r.feed_position <> f.position`,
  );
  return [
    ...gaps.map((row) => broken(`the feed has gaps: ${JSON.stringify(row)}`)),
    ...untold.map(({ mutation_id: id, times }) => broken(`the outcome of ${id} is told ${times} times`)),
    ...unfed.map((row) => broken(`the last change of ${row.entity}/${row.server_id} is not the feed's`)),
  ];
}

/** Whoever followed holds in the end what the database holds, and was told every outcome that is its. */
export function judgeFollower(
  { held, outcomes }: Follower,
  client: Phone | undefined,
  { records, mutations, keys }: Evidence,
): Violation[] {
  const violations: Violation[] = [];
  for (const row of records) {
    const name = `${row.entity}/${row.server_id}`;
    const data: unknown = row.deleted || row.data === null ? undefined : JSON.parse(row.data);
    if (isDeepStrictEqual(held.get(name)?.data, data)) continue;
    const what = `a follower holds ${name} as ${JSON.stringify(held.get(name))}, and it is ${JSON.stringify(data)}`;
    violations.push({ kind: "feed", what, about: [] });
  }
  if (!client) return violations;
  const told = new Set(outcomes.map(({ id, status }) => `${id} ${status}`));
  for (const queued of mutations) {
    const status = keys.get(queued.body.id)?.status ?? null;
    if (queued.phone !== client || status === null || told.has(`${queued.body.id} ${status}`)) continue;
    violations.push({ kind: "feed", what: `a follower was not told of ${status}`, about: [queued] });
  }
  return violations;
}

function broken(what: string): Violation {
  return { kind: "feed", what, about: [] };
}
