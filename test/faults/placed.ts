import { setTimeout as delay } from "node:timers/promises";
import type { Client } from "pg";

import type { World } from "./world/world.ts";

/**
 * Brings the gateway to a named point of a mutation's way, and resolves with the PID of a worker that stands there and
 * with what lets it go on. Undefined when nobody came by. Nothing of the gateway knows of it: the points are made by
 * holding a lock that the next step needs, or the upstream's answer.
 */
export type Point = (world: World) => Promise<{ pid: number; goOn: () => Promise<void> } | undefined>;

const patienceMs = 1_500;

/** The lane is claimed; what the mutation names is asked for behind a lock on the id map. */
export const betweenClaimAndSend: Point = async (world) =>
  await behindLock(world, "lock table tidegate.id_map in access exclusive mode", "id_map");

/** The upstream has answered; the commit waits at its last statement, for the feed's counter. */
export const betweenAnswerAndCommit: Point = async (world) =>
  await behindLock(world, "select from tidegate.feed_head for update", "feed_head");

/** The change has taken place, and the upstream has not answered yet. */
export function betweenSendAndAnswer(clientIdOf: (phone: number) => string): Point {
  return async (world) => {
    const goOn = async (): Promise<void> => await Promise.resolve(world.upstream.ask({ ask: "release" }));
    const marker = await world.upstream.held(patienceMs);
    const phone = Number(marker?.split(":")[0]);
    const pid =
      marker === undefined || marker.startsWith("-") ? undefined : await ownerOf(world, clientIdOf(phone));
    if (pid !== undefined) return { pid, goOn };
    await goOn();
    return undefined;
  };
}

async function behindLock(world: World, lock: string, table: string): ReturnType<Point> {
  const holder = await world.postgres.connect().catch(() => undefined);
  // The server is away: nobody goes anywhere.
  if (!holder) return undefined;
  try {
    await holder.query("begin");
    await holder.query("set local lock_timeout = '2s'");
    await holder.query(lock);
    const pid = await whoWaits(world, holder, table);
    if (pid !== undefined) return { pid, goOn: async () => await release(holder) };
  } catch {
    // The server was restarted meanwhile, or somebody else holds on: nobody stands here.
  }
  await release(holder);
  return undefined;
}

async function release(holder: Client): Promise<void> {
  await holder.query("commit").catch(() => undefined);
  await holder.end().catch(() => undefined);
}

/** One of the workers that hold lanes, once a statement waits for our lock. */
async function whoWaits(world: World, holder: Client, table: string): Promise<number | undefined> {
  for (let waitedMs = 0; waitedMs < patienceMs; waitedMs += 25) {
    const { rows } = await holder.query<{ owner: string }>(
      `select owner from lane where lease_until > clock_timestamp() and exists (
         select from pg_stat_activity a join pg_locks l on l.pid = a.pid
         where a.wait_event_type = 'Lock' and l.relation = $1::regclass
       ) order by md5(lane_id) limit 1`,
      [`tidegate.${table}`],
    );
    const pid = rows[0] && pidIn(rows[0].owner);
    if (pid !== undefined && isOurs(world, pid)) return pid;
    await delay(25);
  }
  return undefined;
}

async function ownerOf(world: World, clientId: string): Promise<number | undefined> {
  const [lane] = await world.postgres.rows<{ owner: string | null }>(
    "select owner from lane where client_id = $1 and lease_until > clock_timestamp()",
    [clientId],
  );
  const pid = lane?.owner === undefined || lane.owner === null ? undefined : pidIn(lane.owner);
  return pid !== undefined && isOurs(world, pid) ? pid : undefined;
}

/** An owner's name is host, PID, and chance. */
function pidIn(owner: string): number {
  return Number(owner.split("/").at(-2));
}

function isOurs(world: World, pid: number): boolean {
  return [...world.workers.values()].some((worker) => worker.pid === pid && !worker.hasEnded());
}
