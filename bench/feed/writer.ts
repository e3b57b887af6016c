import { randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";

import { Client } from "pg";

import { createAnnounce } from "../../src/change-feed/announce.ts";
import { takePositions } from "../../src/change-feed/write.ts";
import { inTenant, openDatabase } from "../../src/platform/db.ts";
import { createHintSender } from "../../src/platform/hint-sender.ts";
import { createHints } from "../../src/platform/hints.ts";
import { createLogger } from "../../src/platform/logger.ts";
import { plainCodec } from "../../src/platform/payload-codec.ts";
import { answerParent } from "../child.ts";

export interface WriterRequest {
  contender: "floor" | "tidegate";
  databaseUrl: string;
  writes: number;
  everyMs: number;
}

/** Writes one change at a time, as a worker's commit does or as the floor needs it; resolves with when each was committed. */
answerParent(async ({ contender, databaseUrl, writes, everyMs }: WriterRequest): Promise<number[]> => {
  const { write, close } = contender === "floor" ? await forFloor(databaseUrl) : forGateway(databaseUrl);
  const committedAt: number[] = [];
  const startedAt = performance.now();
  for (let n = 0; n < writes; n++) {
    await delay(Math.max(0, startedAt + n * everyMs - performance.now()));
    await write(n, () => void (committedAt[n] = performance.timeOrigin + performance.now()));
  }
  await delay(2_000);
  await close();
  return committedAt;
});

interface Writer {
  write: (n: number, committed: () => void) => Promise<void>;
  close: () => Promise<void>;
}

const dataOf = (n: number): string =>
  JSON.stringify({ n, mentor: "1000", note: "Walked along the river.".repeat(5) });

async function forFloor(databaseUrl: string): Promise<Writer> {
  const client = new Client({ connectionString: databaseUrl });
  await client.connect();
  await client.query(
    "create table if not exists floor_change (position bigserial primary key, data text not null)",
  );
  return {
    async write(n, committed) {
      await client.query("insert into floor_change (data) values ($1)", [dataOf(n)]);
      committed();
      await client.query("select pg_notify('floor', $1)", [dataOf(n)]);
    },
    close: async () => await client.end(),
  };
}

function forGateway(databaseUrl: string): Writer {
  const db = openDatabase(databaseUrl, { poolMax: 2, onError: () => undefined });
  const sender = createHintSender(db, { from: randomUUID(), log: createLogger("silent") });
  const announce = createAnnounce(createHints(), sender);
  const record = {
    entity: "activity",
    begunAt: 0,
    scopes: ["org"],
    upstreamVersion: null,
    tempId: null,
    createdBy: null,
    changedBy: null,
    changedBase: null,
  };
  return {
    async write(n, committed) {
      const entry = { record: { ...record, serverId: randomUUID(), data: dataOf(n) } };
      const audiences = await inTenant(
        db,
        "bench",
        async (trx) =>
          await takePositions(trx, "bench", [entry], new Map(), { codec: plainCodec, isFollowed: false }),
      );
      committed();
      announce("bench", audiences);
    },
    async close() {
      await sender.close();
      await db.destroy();
    },
  };
}
