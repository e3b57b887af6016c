import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { expect, vi } from "vitest";

import type { TestGateway } from "../fixtures/gateway.ts";

/** A worker as a process of its own, to be stopped in every way. */
export interface WorkerProcess extends AsyncDisposable {
  /** What it has logged so far. */
  log: string[];
  signal: (signal: NodeJS.Signals) => void;
  /** Its exit code; null when a signal ended it. */
  exited: Promise<number | null>;
  /** Waits until it has logged this. */
  logged: (text: string) => Promise<void>;
}

const main = fileURLToPath(new URL("../../src/main.ts", import.meta.url));

/** A worker serves nobody; it has to be there all the same. */
const unusedSecret = "x".repeat(32);

/** Starts a worker on the database and the queues of a gateway, and waits until it is ready. */
export async function startWorkerProcess({ environment }: TestGateway): Promise<WorkerProcess> {
  const child = spawn(process.execPath, [main], {
    stdio: ["ignore", "pipe", "inherit"],
    env: {
      PATH: process.env["PATH"],
      PORT: "0",
      DATABASE_URL: environment.databaseUrl,
      ...(environment.redisUrl !== undefined && { REDIS_URL: environment.redisUrl }),
      TIDEGATE_CONFIG: environment.configPath,
      TIDEGATE_ROLE: "worker",
      TIDEGATE_CURSOR_SECRET: unusedSecret,
      TIDEGATE_FINGERPRINT_SECRET: environment.fingerprintSecrets.join(","),
    },
  });
  // For a run that is interrupted: nobody waits for promises then.
  const kill = (): void => void child.kill("SIGKILL");
  process.once("exit", kill);
  const log = linesOf(child);
  const exited = once(child, "exit").then(([code]) => code as number | null);
  const signal = (name: NodeJS.Signals): void => void child.kill(name);
  // Less than a test may take: what it logged instead is then told.
  const logged = async (text: string, timeout = 50_000): Promise<void> =>
    await vi.waitFor(() => expect(log.join("\n")).toContain(text), { timeout, interval: 50 });
  const end = async (): Promise<void> => {
    kill();
    await exited;
    process.off("exit", kill);
  };
  try {
    await logged("Tidegate is ready", 100_000);
  } catch (error) {
    await end();
    throw error;
  }
  return {
    log,
    signal,
    exited,
    logged,
    [Symbol.asyncDispose]: end,
  };
}

function linesOf(child: ChildProcess): string[] {
  const lines: string[] = [];
  let rest = "";
  child.stdout?.setEncoding("utf8").on("data", (chunk: string) => {
    const parts = (rest + chunk).split("\n");
    rest = parts.pop() ?? "";
    lines.push(...parts);
  });
  return lines;
}
