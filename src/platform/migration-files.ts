import { sql } from "kysely";
import type { Migration } from "kysely/migration";
import { readdir, readFile } from "node:fs/promises";

const folder = new URL("../../migrations/", import.meta.url);
const fileName = /^(\d{4}_[a-z0-9_]+)\.sql$/;

/** The names of this version's migrations, in the order in which they are applied. */
export async function listMigrations(): Promise<string[]> {
  const names = (await readdir(folder)).toSorted().map(toName);
  const twice = names.find((name, i) => name.slice(0, 4) === names[i - 1]?.slice(0, 4));
  if (twice !== undefined) throw new Error(`migrations: two have the number of ${twice}`);
  return names;
}

/** A file that is misnamed would never be applied, and nobody would know. */
function toName(file: string): string {
  const name = fileName.exec(file)?.[1];
  if (name === undefined) throw new Error(`migrations/${file} is not named like 0001_name.sql`);
  return name;
}

/** The migrations by name. The files' names mean tables of the schema `tidegate`. */
export async function readMigrations(): Promise<Record<string, Migration>> {
  const names = await listMigrations();
  const entries = names.map(async (name) => [name, await readMigration(name)] as const);
  return Object.fromEntries(await Promise.all(entries));
}

async function readMigration(name: string): Promise<Migration> {
  const text = await readFile(new URL(`${name}.sql`, folder), "utf8");
  return {
    async up(db) {
      await sql`set local search_path to tidegate`.execute(db);
      await sql.raw(text).execute(db);
    },
  };
}
