import { expect, test } from "vitest";

import { anEntity } from "../fixtures/upstream-config.ts";
import { startGateway, tempId } from "../fixtures/gateway.ts";
import { startScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { newPhone } from "./phone.ts";

test.for([
  ["by PUT", { method: "PUT", class: "upsert" }],
  ["by another method", { method: "PATCH", sends: "record", class: "upsert" }],
] as const)("what is sent whole (%s) is made of the record as it is", async ([, update]) => {
  await using upstream = await startScriptedUpstream();
  const { scopes: _scopes, ...entity } = anEntity({
    update: { ...update, enabled: true },
    conflict: "client-wins",
  });
  const crm = { role: "primary", kind: "rest", baseUrl: upstream.url, entities: { activity: entity } };
  await using gateway = await startGateway({ upstreams: { crm } });
  const phone = newPhone(gateway);
  const recordId = tempId();
  phone.add({ op: "create", recordId, data: { minutes: 45, note: "lunch" } });
  const [made] = await phone.replay();
  upstream.change("activities", made!.recordId!, '{"note":"theirs"}');
  phone.add({ op: "update", recordId, data: { minutes: 50 } });
  expect((await phone.replay()).map(({ status }) => status)).toEqual(["applied"]);
  expect(upstream.records("activities").map((text) => JSON.parse(text) as unknown)).toMatchObject([
    { minutes: 50, note: "theirs" },
  ]);
});
