import { sql } from "kysely";
import { expect, test } from "vitest";

import { isTransient } from "../../src/http/transient-failures.ts";
import { inTenant, openDatabase } from "../../src/platform/db.ts";
import { createTestDatabase } from "../fixtures/postgres.ts";

test("a transaction whose process stands still gives its locks back, and the process may try again", async () => {
  const database = await createTestDatabase();
  const [still, other] = [1, 2].map(() =>
    openDatabase(database.serviceUrl, { poolMax: 1, onError: () => undefined }),
  );
  try {
    const locked = Promise.withResolvers<void>();
    const wakes = Promise.withResolvers<void>();
    const stoodStill = inTenant(still!, "ours", async (trx) => {
      await sql`insert into feed_head (tenant_id) values ('ours')`.execute(trx);
      locked.resolve();
      await wakes.promise;
      await sql`select 1`.execute(trx);
    }).catch((error: unknown) => error);
    await locked.promise;
    // It waits for the row of the one that stands still.
    await inTenant(other!, "ours", (trx) =>
      sql`insert into feed_head (tenant_id) values ('ours')`.execute(trx),
    );
    wakes.resolve();
    expect(isTransient(await stoodStill)).toBe(true);
  } finally {
    await Promise.all([still, other].map(async (db) => await db?.destroy()));
    await database.drop();
  }
});
