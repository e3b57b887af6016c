import { copyFile, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { afterEach, beforeEach, expect, test } from "vitest";

import { openPhone, type Phone } from "../examples/demo/phone.ts";
import { recoverDatabase } from "../src/platform/recovery.ts";
import { crm } from "./fixtures/crm.ts";
import { startGateway, tokenFor, type GatewayOptions, type TestUser } from "./fixtures/gateway.ts";
import { createTestDatabase, type TestDatabase } from "./fixtures/postgres.ts";
import { faults } from "./fixtures/scripted-faults.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "./fixtures/scripted-upstream.ts";

let dir: string;
let phones: Phone[];
let upstream: ScriptedUpstream;
let database: TestDatabase;

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "tidegate-test-"));
  phones = [];
  upstream = await startScriptedUpstream();
  database = await createTestDatabase();
});

afterEach(async () => {
  for (const phone of phones) phone.close();
  await upstream.stop();
  await database.drop();
  await rm(dir, { recursive: true, force: true });
});

const start = async (rest: Partial<GatewayOptions> = {}) =>
  await startGateway({
    upstreams: crm(upstream.url, { upstream: { circuit: { failures: 1_000, cooldownMs: 100 } } }),
    database,
    ...rest,
  });

/** The phone of a name, with what its file holds. */
function phoneAt({ url }: { url: string }, name: string, user: TestUser = {}): Phone {
  const path = join(dir, `${name}.sqlite`);
  const phone = openPhone({ url, token: () => tokenFor({ sub: name, ...user }), path });
  phones.push(phone);
  return phone;
}

const bodyHas = (text: string) => (request: { method: string; body: Buffer }) =>
  request.method === "POST" && request.body.includes(text);

/** What the user sees, by name. */
const seen = (phone: Phone) =>
  Object.fromEntries(
    phone.view("mentor").map(({ id, isPending, data }) => [data["name"], [id, data["city"], isPending]]),
  );

const causes: [string, () => Promise<void>, Partial<GatewayOptions>, TestUser][] = [
  [
    "is of another epoch",
    async () => void (await recoverDatabase(database.ownerUrl, { isMeant: true, isSnapshot: true })),
    {},
    {},
  ],
  [
    "was signed with a secret of the past",
    async () => await Promise.resolve(),
    { cursorSecrets: ["another cursor secret, long enough for it"] },
    {},
  ],
  ["was given out for other scopes", async () => await Promise.resolve(), {}, { groups: ["new"] }],
];

test.each(causes)(
  "a phone whose cursor %s learns every outcome, shows each record once, and follows on",
  { timeout: 60_000 },
  async (_, meanwhile, options, claims) => {
    const before = await start();
    const kari = phoneAt(before, "kari");
    const [changed, removed] = ["Aud", "Bodil"].map((name) => kari.create("mentor", { name })) as [
      string,
      string,
    ];
    await kari.upload();
    await kari.pull();

    // All of this has its outcome before the snapshot begins, and the phone has heard of none; but the last is on its way.
    const stopFailing = upstream.always(bodyHas("Late"), faults.status(503));
    upstream.script(bodyHas("Refused"), faults.status(422));
    kari.update("mentor", changed, { city: "Bergen" });
    kari.remove("mentor", removed);
    const made = kari.create("mentor", { name: "Cecilie" });
    const refused = kari.create("mentor", { name: "Refused" });
    const late = kari.create("mentor", { name: "Late" });
    await kari.upload({ waitSeconds: 0 });
    await upstream.received(bodyHas("Late"), 2);
    const ola = phoneAt(before, "ola");
    ola.create("mentor", { name: "Ola's" });
    await ola.upload();
    expect(kari.unsettled()).toHaveLength(5);
    expect(kari.view("mentor").map(({ id }) => id)).toEqual(["1", made, refused, late]);
    await before.close();

    await meanwhile();
    await using after = await start(options);
    const again = phoneAt(after, "kari", claims);
    await again.pull();
    expect(again.unsettled().map(({ recordId }) => recordId)).toEqual([late]);
    expect(again.outbox().map(({ result }) => result?.status)).toEqual([
      "applied",
      "applied",
      "applied",
      "applied",
      "applied",
      "rejected",
      "pending",
    ]);
    const records = {
      Aud: ["1", "Bergen", false],
      Cecilie: [again.serverId(made), undefined, false],
      "Ola's": ["4", undefined, false],
    };
    expect(again.view("mentor")).toHaveLength(4);
    expect(seen(again)).toEqual({ ...records, Late: [late, undefined, true] });
    expect(again.serverId(made)).toBe("3");

    stopFailing();
    while (again.unsettled().length > 0) await again.pull({ waitSeconds: 5 });
    expect(seen(again)).toEqual({ ...records, Late: [again.serverId(late), undefined, false] });
    expect(again.view("mentor")).toHaveLength(upstream.records("mentors").length);
  },
);

test("a phone that is new reads what there is, and makes nothing of what others wait for", async () => {
  await using gateway = await start();
  const kari = phoneAt(gateway, "kari");
  const id = kari.create("mentor", { name: "Aud" });
  await kari.upload();
  const ola = phoneAt(gateway, "ola");
  const changes = await ola.pull();
  expect(changes.map(({ type }) => type)).toEqual(["upsert"]);
  expect(seen(ola)).toEqual({ Aud: ["1", undefined, false] });
  expect(ola.serverId(id)).toBe(id);
});

test("a phone restored from a backup learns what became of what its old client had under way", async () => {
  await using gateway = await start();
  const kari = phoneAt(gateway, "kari");
  const stopFailing = upstream.always(bodyHas("Late"), faults.status(503));
  upstream.script(bodyHas("Refused"), faults.status(422));
  const late = kari.create("mentor", { name: "Late" });
  kari.create("mentor", { name: "Refused" });
  await copyFile(join(dir, "kari.sqlite"), join(dir, "backup.sqlite"));
  kari.create("mentor", { name: "Bodil" });
  await kari.upload({ waitSeconds: 0 });

  const backup = phoneAt(gateway, "backup", { sub: "kari" });
  backup.create("mentor", { name: "Cecilie" });
  await backup.upload({ waitSeconds: 0 });
  await backup.pull();
  expect(backup.unsettled().map(({ recordId }) => recordId)).toContain(late);

  stopFailing();
  await expect.poll(async () => (await backup.pull(), backup.unsettled()), { timeout: 20_000 }).toEqual([]);
  expect(backup.outbox().map(({ result }) => result?.status)).toEqual(["applied", "rejected", "applied"]);
  expect(backup.serverId(late)).not.toBe(late);
  expect(Object.keys(seen(backup)).toSorted()).toEqual(["Bodil", "Cecilie", "Late"]);
  expect(backup.view("mentor")).toHaveLength(3);
});
