import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";

/** A process of the gateway, as `npm start` starts it. */
export interface GatewayProcess {
  name: string;
  pid: number;
  /** Also on a stopped process. */
  signal: (signal: NodeJS.Signals) => void;
  /** Kills it and waits for the end. */
  kill: () => Promise<void>;
  /** Asks it to end, and waits until it has: what it has in hand is written by then. */
  stop: () => Promise<void>;
  hasEnded: () => boolean;
}

export interface GatewaySettings {
  name: string;
  role: "api" | "worker";
  port: number;
  databaseUrl: string;
  redisUrl: string | undefined;
  configPath: string;
  /** How far the wall clock of this one process is off. */
  clockShiftMs?: number;
  /** Gets every line of its log. */
  onLine: (line: string) => void;
  /** Told when it ends without having been killed by us. */
  onCrash: (name: string, how: string) => void;
}

const main = fileURLToPath(new URL("../../../src/main.ts", import.meta.url));
const clock = new URL("../clock.ts", import.meta.url).href;
const startTimeoutMs = 120_000;

/** Starts a process and waits until it is ready. Rejects when it ends, or takes too long. */
export async function startGatewayProcess(settings: GatewaySettings): Promise<GatewayProcess> {
  const child = spawn(process.execPath, ["--import", clock, main], {
    stdio: ["ignore", "pipe", "pipe"],
    env: environmentOf(settings),
  });
  const killNow = (): void => void child.kill("SIGKILL");
  process.once("exit", killNow);
  const exited = once(child, "exit");
  const ready = Promise.withResolvers<void>();
  // A start that fails is the caller's to repeat.
  let expected = true;
  const take = lineReader((line) => {
    settings.onLine(line);
    if (!line.includes("Tidegate is ready")) return;
    expected = false;
    ready.resolve();
  });
  child.stdout.setEncoding("utf8").on("data", take);
  child.stderr.setEncoding("utf8").on("data", take);
  child.once("exit", (code, signal) => {
    process.off("exit", killNow);
    const how = `ended by itself: ${String(signal ?? code)}`;
    ready.reject(new Error(`${settings.name} ${how}`));
    if (!expected) settings.onCrash(settings.name, how);
  });
  const late = setTimeout(() => ready.reject(new Error(`${settings.name} does not start`)), startTimeoutMs);
  const kill = async (): Promise<void> => {
    expected = true;
    killNow();
    await exited;
  };
  try {
    await ready.promise;
  } catch (error) {
    await kill();
    throw error;
  } finally {
    clearTimeout(late);
  }
  return {
    name: settings.name,
    pid: child.pid ?? 0,
    signal(name) {
      expected ||= name === "SIGKILL";
      child.kill(name);
    },
    kill,
    async stop() {
      expected = true;
      child.kill("SIGTERM");
      await exited;
    },
    hasEnded: () => child.exitCode !== null || child.signalCode !== null,
  };
}

const unusedSecret = "of the fault suite and of nothing else";

function environmentOf(settings: GatewaySettings): NodeJS.ProcessEnv {
  return {
    PATH: process.env["PATH"],
    PORT: String(settings.port),
    DATABASE_URL: settings.databaseUrl,
    ...(settings.redisUrl !== undefined && { REDIS_URL: settings.redisUrl }),
    TIDEGATE_CONFIG: settings.configPath,
    TIDEGATE_ROLE: settings.role,
    TIDEGATE_CURSOR_SECRET: unusedSecret,
    TIDEGATE_FINGERPRINT_SECRET: unusedSecret,
    FAULTS_CLOCK_SHIFT_MS: String(settings.clockShiftMs ?? 0),
  };
}

function lineReader(take: (line: string) => void): (chunk: string) => void {
  let rest = "";
  return (chunk) => {
    const parts = (rest + chunk).split("\n");
    rest = parts.pop() ?? "";
    for (const line of parts) take(line);
  };
}
