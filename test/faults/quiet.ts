import { setTimeout as delay } from "node:timers/promises";

import type { World } from "./world/world.ts";

/** About how many mutations wait to be replayed. The database may be down at this moment. */
export async function backlogOf({ postgres }: World): Promise<number> {
  const [row] = await postgres
    .rows("select coalesce(sum(tail - position), 0)::integer as backlog from lane")
    .catch(() => []);
  return (row as { backlog: number } | undefined)?.backlog ?? 0;
}

/**
 * Waits until no lane has anything to do. False when some still have, and none has moved for so long; or when they have
 * moved on and on.
 */
export async function untilQuiet({ postgres }: World, forMs: number, signal: AbortSignal): Promise<boolean> {
  const giveUpAt = performance.now() + 5 * forMs;
  let movedAt = performance.now();
  let last = "";
  while (performance.now() < Math.min(giveUpAt, movedAt + forMs)) {
    const [now] = (await postgres.rows(`
      select count(*) filter (where due_at is not null or lease_until is not null or position < tail)::integer as busy,
        sum(position) as position, (select count(*) from delivery) as open
      from lane`)) as { busy: number; position: string; open: string }[];
    if (now?.busy === 0) return true;
    if (JSON.stringify(now) !== last) movedAt = performance.now();
    last = JSON.stringify(now);
    await delay(100, undefined, { signal });
  }
  return false;
}

/** Waits until everything that the upstream holds at this moment was read. Resolves with what is not, after too long. */
export async function untilSwept({ postgres }: World, forMs: number, signal: AbortSignal): Promise<string[]> {
  const [start] = await postgres.rows<{ began: string }>("select now()::text as began");
  const giveUpAt = performance.now() + forMs;
  for (;;) {
    const left = await postgres.rows<{ what: string }>(
      `select to_jsonb(e)::text as what from inbound_entity e where swept_at is null or swept_at < $1::timestamptz
      union all select to_jsonb(l)::text from inbound_look l`,
      [start?.began],
    );
    if (left.length === 0 || performance.now() > giveUpAt) return left.map(({ what }) => what);
    await delay(100, undefined, { signal });
  }
}
