import { randomUUID } from "node:crypto";
import { Client } from "pg";
import { expect, test } from "vitest";

import { createInbox, type Upload } from "../../src/inbox/append.ts";
import { openDatabase } from "../../src/platform/db.ts";
import { plainCodec } from "../../src/platform/payload-codec.ts";
import { createTestDatabase } from "../fixtures/postgres.ts";
import { rowsOf } from "../replay/rows.ts";

const tenantId = "ours";

function firstUpload(): Upload {
  const [id, recordId] = [randomUUID(), randomUUID()];
  return {
    tenantId,
    clientId: randomUUID(),
    userId: "kari",
    scopes: ["org"],
    roles: [],
    requestId: "",
    upstreamId: "crm",
    previousSeq: 0,
    lostThrough: undefined,
    mutations: [
      { seq: 1, id, entity: "activity", fingerprints: ["00"], verdict: { text: "{}", tempId: recordId } },
    ],
  };
}

test("whoever makes a client has it before its lane, so two first uploads of it never wait for each other", async () => {
  const database = await createTestDatabase();
  const db = openDatabase(database.serviceUrl, { poolMax: 4, onError: () => undefined });
  const other = new Client({ connectionString: database.superuserUrl });
  await other.connect();
  try {
    const upload = firstUpload();
    const { clientId } = upload;
    await other.query("set search_path to tidegate");
    // Shorter than what Postgres needs to find a deadlock.
    await other.query("set lock_timeout = '500ms'");
    await other.query("begin");
    await other.query("insert into client (tenant_id, client_id, user_id) values ($1, $2, 'kari')", [
      tenantId,
      clientId,
    ]);
    const appended = createInbox(db, plainCodec).append(upload);
    const blocked =
      "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    await expect.poll(async () => await rowsOf(database, blocked)).toHaveLength(1);
    await other.query(
      "insert into lane (tenant_id, lane_id, upstream_id, client_id) values ($1, $2::text, 'crm', $2::uuid)",
      [tenantId, clientId],
    );
    await other.query("commit");
    expect((await appended).ackedSeq).toBe(1);
    expect(await rowsOf(database, "select last_seq from client")).toEqual([{ last_seq: "1" }]);
  } finally {
    await other.end();
    await db.destroy();
    await database.drop();
  }
});
