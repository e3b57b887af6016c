import { Client } from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";

import { crm } from "../fixtures/crm.ts";
import { startGateway, tempId, type TestGateway } from "../fixtures/gateway.ts";
import { newOutbox } from "../fixtures/outbox.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";

let upstream: ScriptedUpstream;
let gateway: TestGateway;

beforeAll(async () => {
  upstream = await startScriptedUpstream();
  gateway = await startGateway({ upstreams: crm(upstream.url) });
});
afterAll(async () => {
  await gateway.close();
  await upstream.stop();
});

interface Change {
  type: string;
  id?: string;
  result?: { id: string; status: string };
}

/** What the client is told, page by page: `outcome:<status>` or the type of a record change. */
async function told(clientId: string, limit: number): Promise<string[]> {
  const seen: string[] = [];
  for (let cursor = ""; ;) {
    const { body } = await gateway.as().get(`/v1/changes?clientId=${clientId}&limit=${limit}${cursor}`);
    for (const { type, result } of body.changes as Change[]) {
      seen.push(result ? `${type}:${result.status}` : type);
    }
    if (!body.more) return seen;
    cursor = `&cursor=${body.cursor}`;
  }
}

test("a parked mutation ends the wait, is told as such, and its outcome later stands behind its record change", async () => {
  const outbox = newOutbox();
  const [parked, other] = [tempId(), tempId()];
  upstream.script({ method: "POST" }, ({ send }) => send({ status: 418 }));
  const { id } = outbox.add({ op: "create", recordId: parked, data: { n: 1 } });
  outbox.add({ op: "update", recordId: parked, data: { n: 2 } });
  outbox.add({ op: "create", recordId: other, data: { n: 3 } });
  const batch = outbox.batch();
  const { status, body } = await gateway.as().upload(batch, { wait: 25 });
  expect(status).toBe(202);
  expect(body.results).toMatchObject([
    { status: "parked", problem: { type: "urn:tidegate:problem:upstream-unexpected" } },
    { status: "pending", blockedBy: id },
    { status: "applied" },
  ]);
  const { body: listed } = await gateway.as().get(`/v1/mutations?clientId=${batch.clientId}`);
  expect(listed.results).toEqual(body.results);
  for (const limit of [1, 2, 10]) {
    expect(await told(batch.clientId, limit)).toEqual(["outcome:parked", "upsert", "outcome:applied"]);
  }
  await finish(id);
  for (const limit of [1, 2, 10]) {
    const seen = await told(batch.clientId, limit);
    expect(seen).toEqual(["upsert", "outcome:applied", "upsert", "outcome:applied"]);
  }
});

/** Settles a parked mutation as the lane would once a person has decided. */
async function finish(mutationId: string): Promise<void> {
  const client = new Client({ connectionString: gateway.database.superuserUrl });
  await client.connect();
  await client.query("set search_path = tidegate");
  await client.query("begin");
  await client.query(
    "update mutation_key set status = 'applied', record_id = '4711', version = 1 where mutation_id = $1",
    [mutationId],
  );
  await client.query("delete from delivery where mutation_id = $1", [mutationId]);
  const { rows } = await client.query<{ position: string }>(
    "update feed_head set position = position + 2 returning position - 1 as position",
  );
  const record = Number(rows[0]?.position);
  await client.query(
    `insert into record (tenant_id, entity, server_id, version, feed_position, scopes, key_id, data)
    values ('ours', 'activity', '4711', 1, $1, '{org}', 'plain', '{}')`,
    [record],
  );
  await client.query(
    `insert into feed (tenant_id, audience, position, kind, entity, record_id, mutation_id)
    select 'ours', 's:org', $1, 'record', 'activity', '4711', null
    union all select 'ours', 'c:' || client_id, $1 + 1, 'outcome', null, null, mutation_id
    from mutation_key where mutation_id = $2`,
    [record, mutationId],
  );
  await client.query("commit");
  await client.end();
}
