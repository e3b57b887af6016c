import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdtemp, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";

import { startEmbeddedPostgres } from "../../src/platform/embedded-postgres.ts";
import { asSuperuser, removeDataDir } from "../fixtures/postgres-server.ts";

let dataDir: string;
const children: ChildProcess[] = [];

// One folder for all: creating one takes most of a start's time, and each test leaves it stopped.
beforeAll(async () => {
  // A space, because people have them in their folders' names.
  dataDir = await mkdtemp(join(tmpdir(), "tidegate embedded-"));
  await chmod(dataDir, 0o755);
});

afterEach(async () => {
  for (const child of children.splice(0)) await end(child, "SIGTERM");
});

afterAll(() => removeDataDir(dataDir));

test("a second start finds the data of the first, at the same address", async () => {
  const first = await start();
  await asSuperuser(first.superuserUrl, async (client) => {
    await client.query("create table kept_by_stop as select 1 as one");
  });
  await first.stop();
  const second = await start();
  expect(second.superuserUrl).toBe(first.superuserUrl);
  expect(await countRows(second.superuserUrl, "kept_by_stop")).toBe(1);
  await second.stop();
});

test("what was committed is there after the gateway and the server were killed", async () => {
  const gateway = await startGateway();
  await asSuperuser(gateway.superuserUrl, async (client) => {
    await client.query("create table kept_by_wal as select 1 as one");
  });
  process.kill(await serverPid(), "SIGKILL");
  await end(gateway.child, "SIGKILL");
  const next = await start();
  expect(await countRows(next.superuserUrl, "kept_by_wal")).toBe(1);
  await next.stop();
});

test("a server whose gateway was killed stops by itself", async () => {
  const gateway = await startGateway();
  const pid = await serverPid();
  await end(gateway.child, "SIGKILL");
  await vi.waitFor(() => expect(() => process.kill(pid, 0)).toThrow("ESRCH"), { timeout: 10_000 });
});

test("a start takes over from a server that is still stopping, or was left behind", async () => {
  const gateway = await startGateway();
  const pid = await serverPid();
  // Stopped, so that it can't obey its watchdog before the next start finds it.
  process.kill(pid, "SIGSTOP");
  await end(gateway.child, "SIGKILL");
  const next = start();
  process.kill(pid, "SIGCONT");
  const { superuserUrl, stop } = await next;
  expect(await serverPid()).not.toBe(pid);
  await asSuperuser(superuserUrl, async (client) => await client.query("select 1"));
  await stop();
});

test("a second gateway on the same data folder is told which process has it", async () => {
  const gateway = await startGateway();
  await expect(start()).rejects.toMatchObject({
    code: "data-dir-in-use",
    message: expect.stringContaining(`PID ${gateway.child.pid}`),
  });
  await asSuperuser(gateway.superuserUrl, async (client) => await client.query("select 1"));
});

test("a lock and a PID file whose PIDs now belong to other processes do not stop a start", async () => {
  const first = await start();
  await first.stop();
  await writeFile(
    join(dataDir, "gateway.lock"),
    JSON.stringify({ pid: process.pid, startedAt: "another time" }),
  );
  const home = join(dataDir, "postgres", "data");
  await writeFile(join(home, "postmaster.pid"), `${process.pid}\n${home}\n0\n0\n\n127.0.0.1\n\nready\n`);
  const second = await start();
  await second.stop();
});

test("the service's role owns nothing and bypasses nothing, and the owner is no superuser", async () => {
  const { superuserUrl, stop } = await start();
  const roles = await asSuperuser(superuserUrl, async (client) => {
    const { rows } = await client.query(
      `select rolname, rolsuper, rolbypassrls, rolcreatedb, rolcreaterole,
              (select count(*)::int from pg_database where datdba = r.oid) as databases
       from pg_roles r where rolname like 'tidegate%' order by rolname`,
    );
    return rows;
  });
  const none = { rolsuper: false, rolbypassrls: false, rolcreatedb: false, rolcreaterole: false };
  expect(roles).toEqual([
    { rolname: "tidegate", ...none, databases: 0 },
    { rolname: "tidegate_owner", ...none, databases: 1 },
  ]);
  await stop();
});

test("commits are durable and pages are checked", async () => {
  const { superuserUrl, stop } = await start();
  const settings = await asSuperuser(superuserUrl, async (client) => {
    const { rows } = await client.query(
      "select current_setting('fsync') as fsync, current_setting('synchronous_commit') as commit, current_setting('data_checksums') as checksums, current_setting('listen_addresses') as listen",
    );
    return rows[0];
  });
  expect(settings).toEqual({ fsync: "on", commit: "on", checksums: "on", listen: "127.0.0.1" });
  await stop();
});

async function start() {
  return await startEmbeddedPostgres({ dataDir, log: () => undefined });
}

async function startGateway(): Promise<{ child: ChildProcess; superuserUrl: string }> {
  const script = fileURLToPath(new URL("gateway-on-embedded-postgres.ts", import.meta.url));
  const child = spawn(process.execPath, [script, dataDir], { stdio: ["ignore", "pipe", "inherit"] });
  children.push(child);
  const [line] = (await once(child.stdout, "data")) as [Buffer];
  return { child, superuserUrl: line.toString().trim() };
}

async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, "exit");
  child.kill(signal);
  await ended;
}

async function serverPid(): Promise<number> {
  const file = await readFile(join(dataDir, "postgres", "data", "postmaster.pid"), "utf8");
  return Number.parseInt(file, 10);
}

async function countRows(superuserUrl: string, table: string): Promise<number | null> {
  return await asSuperuser(
    superuserUrl,
    async (client) => (await client.query(`select from ${table}`)).rowCount,
  );
}
