import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { promisify } from "node:util";

const run = promisify(execFile);

/** Whether a process has this PID now. It may be another one than when the PID was noted: compare `startOf`. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

/**
 * When the process started, in the system's own notation: with the PID it names one process for good.
 * Undefined when it has ended, even if nobody has collected its exit status yet.
 */
export async function startOf(pid: number): Promise<string | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => undefined);
  if (stat === undefined) return await ps(pid, "lstart=");
  // The command in parentheses may hold spaces and parentheses; the fields are counted from behind it.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return fields[0] === "Z" ? undefined : fields[19];
}

/** The command line that started the process, arguments joined by spaces. */
export async function commandOf(pid: number): Promise<string | undefined> {
  const cmdline = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => undefined);
  return cmdline?.replaceAll("\0", " ") ?? (await ps(pid, "command="));
}

async function ps(pid: number, column: string): Promise<string | undefined> {
  return await run("ps", ["-o", column, "-p", String(pid)]).then(
    ({ stdout }) => stdout.trim(),
    () => undefined,
  );
}
