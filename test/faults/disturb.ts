import { setTimeout as delay } from "node:timers/promises";

import { betweenAnswerAndCommit, betweenClaimAndSend, betweenSendAndAnswer, type Point } from "./placed.ts";
import type { Blow, Disturbance, Scheduled } from "./schedule.ts";
import type { World } from "./world/world.ts";

/** Disturbs a world as scheduled. */
/** A job of the queue in Postgres. */
interface JobKey {
  queue: string;
  id: string;
}

export interface Disturber {
  /** Resolves when the last disturbance has begun. */
  run: (schedule: Scheduled[], startedAt: number, signal: AbortSignal) => Promise<void>;
  /** Ends every disturbance: afterwards all processes run, and nothing is held. */
  heal: () => Promise<void>;
  counts: Record<string, number>;
  timeline: { at: number; what: string }[];
  /** Disturbances that could not be made, or not be ended: the run says nothing then. */
  failures: string[];
}

export function newDisturber(world: World, clientIdOf: (phone: number) => string): Disturber {
  const counts: Record<string, number> = {};
  const timeline: Disturber["timeline"] = [];
  const failures: string[] = [];
  const going = new Set<Promise<void>>();
  /** One at a time of those that take a worker, or Postgres, away. */
  const busy = new Set<number | string>();
  const healing = new AbortController();

  const pause = async (ms: number): Promise<void> =>
    await delay(ms, undefined, { signal: healing.signal }).catch(() => undefined);

  async function respawn(place: number, clockShiftMs: number): Promise<void> {
    for (let tries = 1; ; tries++) {
      try {
        return await world.startWorker(place, clockShiftMs);
      } catch (error) {
        // Postgres or Redis is away; whoever looks after processes would start it again as well.
        if (tries === 50) throw error;
        await delay(200);
      }
    }
  }

  async function kill(place: number, backAfterMs: number, clockShiftMs: number): Promise<void> {
    await world.workers.get(place)?.kill();
    await pause(backAfterMs);
    await respawn(place, clockShiftMs);
  }

  async function stop(place: number, forMs: number): Promise<void> {
    const worker = world.workers.get(place);
    worker?.signal("SIGSTOP");
    await pause(forMs);
    worker?.signal("SIGCONT");
  }

  async function placed(point: Point, how: Blow, note: (what: string) => void): Promise<void> {
    const found = await point(world);
    const place = [...world.workers].find(([, { pid }]) => pid === found?.pid)?.[0];
    if (!found || place === undefined || busy.has(place)) {
      await found?.goOn();
      return note("nobody came by");
    }
    note(`${how.signal} ${world.workers.get(place)?.name}`);
    await alone(place, async () => {
      world.workers.get(place)?.signal(how.signal);
      // Whatever waits for us goes on only when the blow has been felt.
      await delay(20);
      await found.goOn();
      if (how.signal === "SIGSTOP") await stop(place, how.forMs);
      else await kill(place, 0, 0);
    });
  }

  async function alone(what: number | string, work: () => Promise<void>): Promise<boolean> {
    if (busy.has(what)) return false;
    busy.add(what);
    try {
      await work();
      return true;
    } finally {
      busy.delete(what);
    }
  }

  async function loseJobs(): Promise<void> {
    if (world.redis) return await world.redis.flush();
    const { rows } = world.postgres;
    for (let jobs = await rows<JobKey>("select queue, id from bullmq.job"); jobs.length > 0;) {
      // The queue locks its rows in an order of its own: whoever waits for one while holding others may wait for ever.
      jobs = await rows<JobKey>(
        `with known as (select * from jsonb_to_recordset($1::jsonb) as k (queue text, id text)),
        free as (select queue, id from bullmq.job join known using (queue, id) for update of job skip locked),
        gone as (delete from bullmq.job using free where job.queue = free.queue and job.id = free.id)
        select queue, id from known join bullmq.job using (queue, id)
        where (queue, id) not in (select queue, id from free)`,
        [JSON.stringify(jobs)],
      );
    }
  }

  async function disturb(disturbance: Disturbance, note: (what: string) => void): Promise<boolean | void> {
    const { postgres, redis, upstream } = world;
    switch (disturbance.kind) {
      case "kill worker": {
        const { place, backAfterMs, clockShiftMs } = disturbance;
        return await alone(place, async () => await kill(place, backAfterMs, clockShiftMs));
      }
      case "stop worker":
        return await alone(disturbance.place, async () => await stop(disturbance.place, disturbance.forMs));
      case "turn worker's clock":
        return world.workers.get(disturbance.place)?.signal("SIGUSR2");
      case "between claim and send":
        return void (await alone(
          "point",
          async () => await placed(betweenClaimAndSend, disturbance.how, note),
        ));
      case "between send and answer": {
        const point = betweenSendAndAnswer(clientIdOf);
        return void (await alone("point", async () => await placed(point, disturbance.how, note)));
      }
      case "between answer and commit":
        return void (await alone(
          "point",
          async () => await placed(betweenAnswerAndCommit, disturbance.how, note),
        ));
      case "kill api":
        return await alone("api", async () => await restartApi());
      case "lose all jobs":
        return await loseJobs();
      case "restart redis":
        return await alone("redis", async () => await redis?.restart());
      case "freeze redis":
        return await alone("redis", async () => await redis?.freeze(disturbance.forMs));
      case "terminate backends":
        await postgres.rows(
          "select pg_terminate_backend(pid) from pg_stat_activity where application_name <> '' and usename = 'tidegate' and random() < $1",
          [disturbance.share],
        );
        return undefined;
      case "restart postgres, fast":
        return await alone("postgres", async () => await postgres.restart("fast"));
      case "restart postgres, immediate":
        return await alone("postgres", async () => await postgres.restart("immediate"));
      case "upstream refuses":
        upstream.ask({ ask: "outage", ms: disturbance.forMs });
        return undefined;
      case "upstream half-open":
        upstream.ask({ ask: "blackhole", ms: disturbance.forMs });
    }
  }

  async function restartApi(): Promise<void> {
    for (let tries = 1; ; tries++) {
      try {
        return await world.restartApi();
      } catch (error) {
        if (tries === 50) throw error;
        await delay(200);
      }
    }
  }

  async function begin({ disturbance }: Scheduled): Promise<void> {
    const entry = { at: Date.now(), what: JSON.stringify(disturbance) };
    timeline.push(entry);
    const note = (what: string): void => void (entry.what += `: ${what}`);
    const isPlaced = "how" in disturbance;
    const took = await disturb(disturbance, note);
    const happened = took !== false && !entry.what.endsWith("nobody came by");
    const name = isPlaced ? `${disturbance.kind}, ${disturbance.how.signal}` : disturbance.kind;
    if (happened) counts[name] = (counts[name] ?? 0) + 1;
    else if (took === false) note("left out, another is at it");
  }

  return {
    counts,
    timeline,
    failures,
    async run(schedule, startedAt, signal) {
      for (const scheduled of schedule) {
        await delay(Math.max(0, startedAt + scheduled.atMs - performance.now()), undefined, { signal });
        const work = begin(scheduled)
          .catch((error: unknown) => void failures.push(`${scheduled.disturbance.kind}: ${String(error)}`))
          .finally(() => going.delete(work));
        going.add(work);
      }
    },
    async heal() {
      healing.abort();
      world.upstream.ask({ ask: "release" });
      await Promise.all(going);
    },
  };
}
