import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { startGateway, type TestGateway, type TestUser } from "../fixtures/gateway.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { storeOptions } from "./capabilities.ts";
import { entityName, policyEntities } from "./policies.ts";
import { linesOf, newPhone } from "./phone.ts";

describe.each(["upsert", "conditional"] as const)("%s: a merge is judged like any other change", (name) => {
  const entity = entityName("merge", name);
  let upstream: ScriptedUpstream;
  let gateway: TestGateway;
  beforeAll(async () => {
    upstream = await startScriptedUpstream(storeOptions);
    const { crm } = policyEntities(upstream.url) as { crm: { entities: Record<string, object> } };
    const write = {
      update: ["user:{/mentor}", "role:coordinator"],
      fields: { "/approved": ["role:coordinator"] },
    };
    const ruled = { ...crm.entities[entity], scopes: ["user:{/mentor}"], write };
    gateway = await startGateway({ upstreams: { crm: { ...crm, entities: { [entity]: ruled } } } });
  });
  afterAll(async () => {
    await gateway?.close();
    await upstream?.stop();
  });

  test("it sets no field that needs a role, and what is not touched is not set", async () => {
    const { phone, recordId, held } = await seen({ sub: "kari" });
    phone.add(edit(recordId, { approved: true, minutes: 50 }, { approved: false, minutes: 45 }));
    phone.add(edit(recordId, { approved: false, minutes: 50 }, { approved: false, minutes: 45 }));
    expect(linesOf(await phone.replay())).toEqual(["rejected not-allowed", "applied"]);
    expect(held()).toMatchObject({ approved: false, minutes: 50 });
  });

  test("a record that others have moved out of its author's view since is not there for it", async () => {
    const { phone, recordId, held, version } = await seen({ sub: "kari" });
    upstream.change(entity, recordId, '{"mentor":"ola"}');
    phone.add({ ...edit(recordId, { minutes: 50 }, { minutes: 45 }), baseVersion: version });
    const [result] = await phone.replay();
    expect(result).toMatchObject({ status: "rejected", problem: { type: "urn:tidegate:problem:not-found" } });
    expect(JSON.stringify(result)).not.toContain("ola");
    expect(held()).toMatchObject({ mentor: "ola", minutes: 45 });
  });

  const edit = (recordId: string, data: object, base: object) =>
    ({ op: "update", entity, recordId, data, base, baseVersion: null }) as const;

  async function seen(user: TestUser) {
    const recordId = randomUUID();
    const record = { id: recordId, mentor: "kari", approved: false, minutes: 45 };
    upstream.seed(entity, [JSON.stringify(record)]);
    const phone = newPhone(gateway, user);
    phone.add({ op: "update", entity, recordId, data: { seen: true } });
    const [result] = await phone.replay();
    expect(result?.status).toBe("applied");
    return {
      phone,
      recordId,
      version: result?.version,
      held: (): unknown => {
        const path = `/${entity}/${recordId}`;
        const answer = upstream.apply({ method: "GET", path, headers: {}, body: Buffer.alloc(0) });
        return JSON.parse(answer.body ?? "null");
      },
    };
  }
});
