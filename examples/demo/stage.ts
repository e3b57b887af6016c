import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync } from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { setTimeout as delay } from "node:timers/promises";

/** What was started, to be stopped in reverse order whatever happens. */
export interface Stage {
  /** @throws once the stage is closing: nothing may be started any more. */
  onClose: (closer: () => unknown) => void;
  close: () => Promise<void>;
}

export function createStage(): Stage {
  const closers: (() => unknown)[] = [];
  let closing: Promise<void> | undefined;
  const closeAll = async (): Promise<void> => {
    for (const closer of closers.toReversed()) await closer();
  };
  return {
    onClose(closer) {
      if (closing) throw new Error("stopping");
      closers.push(closer);
    },
    close: () => (closing ??= closeAll()),
  };
}

const stopMs = 30_000;

/**
 * Runs a program with this Node, its output in a file. It is in a process group of its own, so that Ctrl-C reaches only
 * this process, which then stops the others in order.
 */
export function startNode(
  args: string[],
  { logPath, env, cwd }: { logPath: string; env: NodeJS.ProcessEnv; cwd: string },
): ChildProcess {
  const log = openSync(logPath, "a");
  try {
    return spawn(process.execPath, args, { cwd, env, detached: true, stdio: ["ignore", log, log] });
  } finally {
    closeSync(log);
  }
}

export function hasEnded({ exitCode, signalCode }: ChildProcess): boolean {
  return exitCode !== null || signalCode !== null;
}

export async function stopNode(child: ChildProcess): Promise<void> {
  if (hasEnded(child)) return;
  const ended = once(child, "exit");
  child.kill("SIGTERM");
  const impatience = setTimeout(() => child.kill("SIGKILL"), stopMs);
  await ended;
  clearTimeout(impatience);
}

/** Resolves once `url` answers with 200. @throws when the process has ended before, or after a minute and a half. */
export async function untilAnswering(child: ChildProcess, url: string): Promise<void> {
  const deadline = Date.now() + 90_000;
  while (!hasEnded(child) && Date.now() < deadline) {
    const answer = await fetch(url).catch(() => undefined);
    if (answer?.ok) return;
    await delay(50);
  }
  throw new Error(hasEnded(child) ? "the process has ended" : `${url} does not answer`);
}

/** A port of 127.0.0.1 that is free at this moment. @param wanted 0 for any. @throws when it is taken. */
export async function freePort(wanted = 0): Promise<number> {
  const probe = createServer().listen(wanted, "127.0.0.1");
  await once(probe, "listening");
  const { port } = probe.address() as AddressInfo;
  await new Promise((resolve) => void probe.close(resolve));
  return port;
}
