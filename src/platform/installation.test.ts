import { expect, test } from "vitest";

import { createInstallationWatch, type Ask } from "./installation.ts";
import { createLogger } from "./logger.ts";

/** A database that says of itself what it is told to. */
function aDatabase() {
  const row = {
    identity: "timeline 1" as string | null,
    served_as: "timeline 1" as string | null,
    epoch: "first",
    recovered_at: null as Date | null,
    log_bytes: "100",
  };
  const ask: Ask = async (text, values) => {
    if (text.startsWith("update") && values) [row.served_as] = values as [string];
    if (text.startsWith("update") && !values) row.served_as ??= row.identity;
    return await Promise.resolve({ rows: [{ ...row }] });
  };
  return { row, ask };
}

async function opened() {
  const log: string[] = [];
  const database = aDatabase();
  const watch = createInstallationWatch({
    log: createLogger("info", { write: (line: string) => void log.push(line) }),
  });
  await watch.open(database.ask);
  const isServed = (): boolean => {
    try {
      watch.assertServed();
      return true;
    } catch {
      return false;
    }
  };
  const look = async (what: Partial<typeof database.row>): Promise<boolean> => {
    Object.assign(database.row, what);
    await watch.look(database.ask);
    return isServed();
  };
  return { ...database, watch, log, look, isServed };
}

const recoveredAt = new Date("2026-03-10T12:00:00Z");

test("a database that grows, and one that was never served, is served", async () => {
  const { look, row, ask } = await opened();
  expect(await look({ log_bytes: "200" })).toBe(true);
  const fresh = createInstallationWatch({ log: createLogger("silent") });
  Object.assign(row, { served_as: null, identity: "timeline 9" });
  await fresh.open(ask);
  expect(() => fresh.assertServed()).not.toThrow();
  fresh.close();
});

test("another timeline is not served until it was recovered, and the log says so once", async () => {
  const { look, log, watch } = await opened();
  expect(await look({ identity: "timeline 2", log_bytes: "50" })).toBe(false);
  expect(await look({})).toBe(false);
  expect(log.filter((line) => line.includes("recovery-needed"))).toHaveLength(1);
  expect(await look({ served_as: "timeline 2", recovered_at: recoveredAt, epoch: "second" })).toBe(true);
  expect(watch.epoch()).toBe("second");
});

test("a log that ends before what was seen of it is refused for all, until a recovery", async () => {
  const { look, row } = await opened();
  expect(await look({ log_bytes: "99" })).toBe(false);
  expect(row.served_as).toContain("another");
  expect(await look({ served_as: "timeline 1", recovered_at: recoveredAt })).toBe(true);
  expect(row.served_as).toBe("timeline 1");
});

test("the old primary, back under the address of the one that was recovered, is refused for all", async () => {
  const { look, row } = await opened();
  const other = { identity: "timeline 2", served_as: "timeline 2", recovered_at: recoveredAt };
  expect(await look(other)).toBe(true);
  const old = { identity: "timeline 1", served_as: "timeline 1", recovered_at: null, log_bytes: "300" };
  expect(await look(old)).toBe(false);
  expect(row.served_as).toContain("another");
});

test("a standby is not served, and is not told to be another database", async () => {
  const { look, row } = await opened();
  expect(await look({ identity: null, log_bytes: "0" })).toBe(false);
  expect(row.served_as).toBe("timeline 1");
  expect(await look({ identity: "timeline 1", log_bytes: "100" })).toBe(true);
});

test("an answer that comes after a later one changes nothing", async () => {
  const { row, watch, isServed } = await opened();
  const gate = Promise.withResolvers<void>();
  const late: Ask = async () => {
    const rows = [{ ...row }];
    await gate.promise;
    return { rows };
  };
  const slow = watch.look(late);
  row.log_bytes = "200";
  await watch.look(async () => await Promise.resolve({ rows: [{ ...row }] }));
  gate.resolve();
  await slow;
  expect(isServed()).toBe(true);
  row.log_bytes = "150";
  await watch.look(async () => await Promise.resolve({ rows: [{ ...row }] }));
  expect(isServed()).toBe(false);
});
