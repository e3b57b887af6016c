import { spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { onTestFinished } from "vitest";

export interface Ran {
  code: number | null;
  out: string;
  err: string;
}

/** Runs `tidegate` as a process of its own. */
export async function runCli(args: string[], { input = "", env = {} } = {}): Promise<Ran> {
  const child = spawn(process.execPath, ["src/cli.ts", ...args], { env: { ...process.env, ...env } });
  let [out, err] = ["", ""];
  child.stdout.on("data", (chunk: Buffer) => void (out += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => void (err += chunk.toString()));
  child.stdin.end(input);
  const { promise, resolve } = Promise.withResolvers<number | null>();
  child.once("close", resolve);
  return { code: await promise, out, err };
}

/** A file that is gone with the test. */
export async function aFile(text: string): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), "tidegate-cli-"));
  onTestFinished(async () => await rm(dir, { recursive: true, force: true }));
  const path = join(dir, "tidegate.yaml");
  await writeFile(path, text);
  return path;
}

export const cliEnv = {
  CLI_JWT_SECRET: "the tests' secret, long enough for HS256",
  CLI_TOKEN: "a-token-that-nobody-may-see",
};

/** A configuration of one upstream at `baseUrl` with one entity, `activity`. */
export async function configOf(baseUrl: string, entity: object = {}, upstream: object = {}): Promise<string> {
  const config = {
    tenants: {
      ours: {
        auth: { issuer: "test", audience: "tidegate", algorithm: "HS256", secret: "${CLI_JWT_SECRET}" },
        upstreams: {
          crm: {
            role: "primary",
            kind: "rest",
            baseUrl,
            timeoutMs: 5_000,
            auth: { type: "bearer", token: "${CLI_TOKEN}" },
            ...upstream,
            entities: { activity: { path: "/activities", id: "/id", ...entity } },
          },
        },
      },
    },
  };
  return await aFile(JSON.stringify(config));
}
