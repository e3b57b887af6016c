import { copyFile, mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { afterEach, beforeEach, expect, test } from "vitest";

import { prune } from "../examples/demo/outbox.ts";
import { openPhoneDb } from "../examples/demo/phone-db.ts";
import { openPhone, TryLater, type Phone } from "../examples/demo/phone.ts";
import { crm } from "./fixtures/crm.ts";
import { startGateway, tokenFor } from "./fixtures/gateway.ts";
import { startScriptedUpstream } from "./fixtures/scripted-upstream.ts";

let dir: string;
let phones: Phone[];

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "tidegate-test-"));
  phones = [];
});

afterEach(async () => {
  for (const phone of phones) phone.close();
  await rm(dir, { recursive: true, force: true });
});

const phoneAt = ({ url }: { url: string }, name = "phone"): Phone => {
  const phone = openPhone({ url, token: () => tokenFor({}), path: join(dir, `${name}.sqlite`) });
  phones.push(phone);
  return phone;
};

const names = (records: string[]): unknown[] =>
  records.map((text) => (JSON.parse(text) as { name: string }).name);
const namesSeen = (phone: Phone): unknown[] => phone.view("mentor").map(({ data }) => data["name"]);

test("a phone sees its own changes before they are sent, and the same after their outcomes", async () => {
  await using upstream = await startScriptedUpstream();
  await using gateway = await startGateway({ upstreams: crm(upstream.url) });
  const phone = phoneAt(gateway);
  const mentor = phone.create("mentor", { name: "Aud", city: "Oslo", note: "new" });
  phone.update("mentor", mentor, { city: "Bergen", note: null });
  const before = phone.view("mentor");
  expect(before).toMatchObject([{ id: mentor, isPending: true, data: { name: "Aud", city: "Bergen" } }]);
  expect(before[0]?.data).not.toHaveProperty("note");
  await phone.upload();
  await phone.pull();
  expect(phone.view("mentor")).toEqual([
    {
      id: phone.serverId(mentor),
      version: "2",
      isPending: false,
      data: { id: 1, name: "Aud", city: "Bergen" },
    },
  ]);
  phone.remove("mentor", mentor);
  expect(phone.view("mentor")).toEqual([]);
  await phone.upload();
  await phone.pull();
  expect(phone.view("mentor")).toEqual([]);
  expect(upstream.records("mentors")).toEqual([]);
});

test("a phone whose outbox is over the limit hands it over in smaller batches, in order", async () => {
  await using upstream = await startScriptedUpstream();
  await using gateway = await startGateway({ upstreams: crm(upstream.url), limits: { mutations: 2 } });
  const phone = phoneAt(gateway);
  const expected = Array.from({ length: 7 }, (_, index) => `mentor ${index}`);
  for (const name of expected) phone.create("mentor", { name });
  await phone.upload();
  expect(names(upstream.records("mentors"))).toEqual(expected);
});

test("a phone gives a restored gateway again what an earlier one acknowledged", async () => {
  await using upstream = await startScriptedUpstream();
  await using lost = await startGateway({ upstreams: crm(upstream.url) });
  const phone = phoneAt(lost);
  phone.create("mentor", { name: "Aud" });
  await phone.upload();
  await phone.pull();

  await using emptyUpstream = await startScriptedUpstream();
  await using restored = await startGateway({ upstreams: crm(emptyUpstream.url) });
  const again = phoneAt(restored);
  again.create("mentor", { name: "Bodil" });
  const { status, receipt } = await again.upload();
  expect({ status, acked: receipt.ackedSeq }).toEqual({ status: 200, acked: 2 });
  await again.pull();
  expect(names(emptyUpstream.records("mentors"))).toEqual(["Aud", "Bodil"]);
  expect(namesSeen(again)).toEqual(["Aud", "Bodil"]);
});

test("a phone tells a restored gateway what nobody has any more, and goes on", async () => {
  await using upstream = await startScriptedUpstream();
  await using lost = await startGateway({ upstreams: crm(upstream.url) });
  const phone = phoneAt(lost);
  phone.create("mentor", { name: "Aud" });
  await phone.upload();
  const db = openPhoneDb(join(dir, "phone.sqlite"));
  prune(db, 0);
  db.close();

  await using emptyUpstream = await startScriptedUpstream();
  await using restored = await startGateway({ upstreams: crm(emptyUpstream.url) });
  const again = phoneAt(restored);
  again.create("mentor", { name: "Bodil" });
  expect((await again.upload()).receipt.ackedSeq).toBe(2);
  expect(names(emptyUpstream.records("mentors"))).toEqual(["Bodil"]);
});

test("a phone restored from a backup becomes a new client and doubles nothing", async () => {
  await using upstream = await startScriptedUpstream();
  await using gateway = await startGateway({ upstreams: crm(upstream.url) });
  const phone = phoneAt(gateway);
  phone.create("mentor", { name: "Aud" });
  await copyFile(join(dir, "phone.sqlite"), join(dir, "backup.sqlite"));
  phone.create("mentor", { name: "Bodil" });
  await phone.upload();

  const backup = phoneAt(gateway, "backup");
  backup.create("mentor", { name: "Cecilie" });
  const { receipt } = await backup.upload();
  expect(receipt.results.map(({ seq, status }) => [seq, status])).toEqual([
    [1, "applied"],
    [2, "applied"],
  ]);
  expect(backup.unsettled()).toEqual([]);
  await backup.pull();
  expect(names(upstream.records("mentors"))).toEqual(["Aud", "Bodil", "Cecilie"]);
  expect(namesSeen(backup)).toEqual(["Aud", "Bodil", "Cecilie"]);
});

test("a phone asks no earlier again than the gateway wants", async () => {
  let asked = 0;
  await using gateway = createServer((_request, response) => {
    asked++;
    response.writeHead(503, { "retry-after": "60" }).end();
  });
  await new Promise<void>((resolve) => void gateway.listen(0, "127.0.0.1", resolve));
  const phone = phoneAt({ url: `http://127.0.0.1:${(gateway.address() as AddressInfo).port}` });
  phone.create("mentor", { name: "Aud" });
  await expect(phone.upload()).rejects.toThrow(TryLater);
  await expect(phone.upload()).rejects.toThrow(TryLater);
  expect(asked).toBe(1);
  expect(phone.unsettled()).toHaveLength(1);
});
