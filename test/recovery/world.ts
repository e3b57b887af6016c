import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, expect, vi } from "vitest";

import type { TestGateway } from "../fixtures/gateway.ts";
import { rowsOf } from "../replay/rows.ts";
import { copy, newDataDir, removeAll, startDatabase, type Server } from "./servers.ts";

/** Servers for the tests of a file, which end with the test that started them. */
export function useServers(): {
  newServer: () => Promise<Server>;
  track: <S extends Server>(server: S) => S;
} {
  const servers: Server[] = [];
  let template: Server;
  // Creating one takes longer than copying it.
  beforeAll(async () => {
    template = await startDatabase(await newDataDir());
    await template.stop();
  });
  afterEach(async () => await removeAll(servers.splice(0)));
  afterAll(async () => await removeAll([template]));
  const track = <S extends Server>(server: S): S => {
    servers.push(server);
    return server;
  };
  return {
    track,
    async newServer() {
      const dataDir = await newDataDir();
      await copy(template, dataDir);
      return track(await startDatabase(dataDir));
    },
  };
}

const run = promisify(execFile);

/** `npm run recover`, as an operator calls it. */
export async function recover({ ownerUrl }: Server, ...args: string[]): Promise<string> {
  const script = fileURLToPath(new URL("../../src/recover.ts", import.meta.url));
  const env = { PATH: process.env["PATH"], MIGRATION_DATABASE_URL: ownerUrl };
  return (await run(process.execPath, [script, ...args], { env })).stdout;
}

export async function expectRefusal(gateway: TestGateway): Promise<void> {
  const { status, body } = await gateway.as().get("/health/ready");
  expect([status, body.status, body.checks.recovery]).toEqual([200, "degraded", "failed"]);
  expect((await gateway.as().get("/metrics")).text).toContain("tidegate_recovery_needed 1");
  expect(gateway.log.filter((line) => line.includes('"recovery-needed"'))[0]).toContain("npm run recover");
}

export async function expectServing(gateway: TestGateway): Promise<void> {
  const isServing = async (): Promise<void> => {
    const { body } = await gateway.as().get("/health/ready");
    expect(body).toEqual({ status: "ready", checks: { database: "ok", queues: "ok", recovery: "ok" } });
    expect((await gateway.as().get("/metrics")).text).toContain("tidegate_recovery_needed 0");
  };
  await vi.waitFor(isServing, { timeout: 20_000, interval: 100 });
}

/** The phones' lanes were looked at in vain: no job waits any more, and nobody has claimed them. */
export async function expectNothingDrained({ database }: TestGateway, lanes: number): Promise<void> {
  const waiting = "select 1 from lane where due_at <= now() and lease_until is null and position < tail";
  const jobs = "select count(*)::integer as open from bullmq.job where state = 'waiting'";
  await vi.waitFor(async () => expect(await rowsOf(database, jobs)).toEqual([{ open: 0 }]), {
    timeout: 10_000,
    interval: 50,
  });
  expect(await rowsOf(database, waiting)).toHaveLength(lanes);
}
