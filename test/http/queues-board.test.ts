import { describe, expect, onTestFinished, test } from "vitest";

import { registerOpsAuth } from "../../src/http/ops-auth.ts";
import { registerQueuesBoard } from "../../src/ops/queues-board.ts";
import { openQueueBackend } from "../../src/platform/queues.ts";
import { createTestDatabase } from "../fixtures/postgres.ts";
import { createTestRedis, queueBackends, type QueueBackendKind } from "../fixtures/redis.ts";
import { inSeconds, testServer, token } from "./gateway.ts";

const secret = "the secret of the operators, long enough";
const auth = { issuer: "ops", audience: "tidegate-ops", algorithm: "HS256", secret } as const;

async function boardOver(kind: QueueBackendKind) {
  const database = await createTestDatabase();
  const redis = kind === "redis" ? await createTestRedis() : undefined;
  const options = { redisUrl: redis?.url, databaseUrl: database.serviceUrl, onError: () => undefined };
  const backend = await openQueueBackend(options);
  onTestFinished(async () => {
    await backend.close();
    await redis?.drop();
    await database.drop();
  });
  const queue = backend.queue("replay");
  const { app, listen } = await testServer();
  const requireOps = await registerOpsAuth(app, { auth });
  await registerQueuesBoard(app, { queues: [queue], requireOps });
  const url = await listen();
  const as = async (role: string, path: string, method = "GET") => {
    const claims = { iss: "ops", aud: "tidegate-ops", sub: "siri", role, exp: inSeconds(600) };
    const authorization = `Bearer ${token(claims, { secret })}`;
    return await fetch(`${url}/ops/queues/api/queues${path}`, { method, headers: { authorization } });
  };
  return { queue, as };
}

describe.each(queueBackends())("over queues on %s", (kind) => {
  test("a viewer gets the queues as read-only, an operator as they are", async () => {
    const { queue, as } = await boardOver(kind);
    await queue.add("drain", { laneId: "1" }, { delay: 60_000 });
    const seenBy = async (role: string) =>
      (await (await as(role, "?activeQueue=replay&page=1")).json()) as object;
    const counts = { delayed: 1 };
    const asViewer = { name: "replay", readOnlyMode: true, allowRetries: false, counts };
    expect(await seenBy("viewer")).toMatchObject({ queues: [asViewer] });
    expect(await seenBy("operator")).toMatchObject({
      queues: [{ ...asViewer, readOnlyMode: false, allowRetries: true }],
    });
  });

  test("an operator's promotion reaches the job, a viewer's does not", async () => {
    const { queue, as } = await boardOver(kind);
    const job = await queue.add("drain", { laneId: "1" }, { delay: 60_000 });
    expect((await as("viewer", `/replay/${job.id}/promote`, "PUT")).status).toBe(403);
    expect(await job.getState()).toBe("delayed");
    expect((await as("operator", `/replay/${job.id}/promote`, "PUT")).status).toBe(204);
    expect(await job.getState()).toBe("waiting");
  });
});
