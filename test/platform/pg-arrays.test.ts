import { randomBytes, randomUUID } from "node:crypto";

import fc from "fast-check";
import { sql } from "kysely";
import { afterAll, beforeAll, expect, test } from "vitest";

import { openDatabase } from "../../src/platform/db.ts";
import { bigintArray, byteaArray, hexArray, textArray, uuidArray } from "../../src/platform/pg-arrays.ts";
import { createTestDatabase, type TestDatabase } from "../fixtures/postgres.ts";

let database: TestDatabase;
let db: ReturnType<typeof openDatabase>;
beforeAll(async () => {
  database = await createTestDatabase();
  db = openDatabase(database.serviceUrl, { poolMax: 1, onError: () => undefined });
});
afterAll(async () => {
  await db.destroy();
  await database.drop();
});

async function asPostgresSees(array: Buffer, type: string): Promise<unknown> {
  const { rows } = await sql<{ seen: unknown }>`select ${array}::${sql.raw(type)} as seen`.execute(db);
  return rows[0]?.seen;
}

test("Postgres sees the elements that were meant: UUIDs in both cases, and nulls", async () => {
  const [a, b] = [randomUUID(), randomUUID()];
  expect(await asPostgresSees(uuidArray([a, null, b.toUpperCase()]), "uuid[]")).toEqual([a, null, b]);
  expect(await asPostgresSees(uuidArray([]), "uuid[]")).toEqual([]);
});

test("Postgres sees the bytes that were meant", async () => {
  const values = [randomBytes(16), randomBytes(16), Buffer.alloc(16, 0xfa)];
  expect(await asPostgresSees(hexArray(values.map((value) => value.toString("hex"))), "bytea[]")).toEqual(
    values,
  );
  const several = [randomBytes(3_000), Buffer.alloc(0), randomBytes(1)];
  expect(await asPostgresSees(byteaArray(several), "bytea[]")).toEqual(several);
});

test("Postgres sees the numbers and texts that were meant, whatever they are", async () => {
  const integer = fc.integer({ min: Number.MIN_SAFE_INTEGER, max: Number.MAX_SAFE_INTEGER });
  const text = fc.string({ unit: "binary" }).filter((value) => value.isWellFormed() && !value.includes("\0"));
  await fc.assert(
    fc.asyncProperty(fc.array(fc.option(integer)), fc.array(fc.option(text)), async (numbers, texts) => {
      expect(await asPostgresSees(bigintArray(numbers), "bigint[]")).toEqual(
        numbers.map((value) => value?.toString() ?? null),
      );
      expect(await asPostgresSees(textArray(texts), "text[]")).toEqual(texts);
    }),
    { numRuns: 200 },
  );
});
