import { createHmac, randomBytes, randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { crm } from "../fixtures/crm.ts";
import { startGateway, type TestGateway } from "../fixtures/gateway.ts";
import { faults } from "../fixtures/scripted-faults.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { rowsOf } from "../replay/rows.ts";
import { newReader, type Reader } from "./reader.ts";

const [secret, older] = ["whsec_c2VjcmV0IG9mIHRoZSBjcm0gc3lzdGVt", "an older secret, as it is"];
const named = {
  entity: "/type",
  entities: { "activity.changed": "activity", "mentor.changed": "mentor" },
  id: "/data/id",
};
const quiet = { circuit: { failures: 10_000, cooldownMs: 20 } };

let upstream: ScriptedUpstream;
let gateway: TestGateway;
let reader: Reader;
beforeAll(async () => {
  upstream = await startScriptedUpstream();
  gateway = await startGateway({
    upstreams: crm(upstream.url, { upstream: { ...quiet, events: { secrets: [secret, older], ...named } } }),
    otherUpstreams: crm(upstream.url, {
      upstream: {
        events: {
          secrets: [older],
          signature: { header: "X-Signature", prefix: "sha256=", timestampHeader: "X-Time" },
          items: "/events",
          entity: "/about",
          id: "/key",
        },
      },
    }),
  });
  reader = newReader(gateway.as());
});
afterAll(async () => {
  await gateway?.close();
  await upstream?.stop();
});

const seconds = (): string => String(Math.floor(Date.now() / 1_000));

async function post(path: string, body: string, headers: Record<string, string>) {
  const answer = await fetch(`${gateway.url}/v1/tenants/${path}/events`, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body,
  });
  return { status: answer.status, body: (await answer.json()) as Record<string, unknown> };
}

/** Signed as Standard Webhooks has it. */
function signed(body: string, { key = secret, time = seconds() } = {}): Record<string, string> {
  const id = randomUUID();
  const bytes = key.startsWith("whsec_") ? Buffer.from(key.slice(6), "base64") : Buffer.from(key);
  const signature = createHmac("sha256", bytes).update(`${id}.${time}.${body}`).digest("base64");
  return {
    "webhook-id": id,
    "webhook-timestamp": time,
    "webhook-signature": `v1,AAAA v1a,BBBB v1,${signature}`,
  };
}

const about = (id: string | number, type = "activity.changed"): string =>
  JSON.stringify({ type, data: { id, n: "what an event says does not count" } });

const tell = async (body: string) => await post("ours/upstreams/crm", body, signed(body));

describe("an event", { timeout: 30_000 }, () => {
  test("has its record read, as the upstream has it by then", async () => {
    upstream.seed("activities", ['{"id":11,"n":1}']);
    expect(await tell(about(11))).toEqual({ status: 202, body: { accepted: 1, ignored: 0 } });
    await reader.until(() => reader.held.get("activity/11")?.data?.["n"] === 1);
    upstream.change("activities", "11", null);
    await tell(about("11"));
    await reader.until(() => !reader.held.has("activity/11"));
  });

  test("that comes a hundred times at once tells its change once", async () => {
    upstream.seed("activities", ['{"id":12,"n":1}']);
    await Promise.all(Array.from({ length: 100 }, async () => await tell(about(12))));
    await reader.until(() => reader.held.has("activity/12"));
    await expect.poll(async () => await rowsOf(gateway.database, "select 1 from inbound_look")).toEqual([]);
    await reader.until(() => true);
    expect(reader.told.filter(({ id }) => id === "12")).toHaveLength(1);
  });

  test("that comes while its record is being read has it read once more", async () => {
    upstream.seed("activities", ['{"id":13,"n":1}']);
    const gate = Promise.withResolvers<void>();
    upstream.script({ method: "GET", path: "/activities/13" }, async ({ apply, send }) => {
      const answer = apply();
      await gate.promise;
      send(answer);
    });
    await tell(about(13));
    await upstream.received({ path: "/activities/13" });
    upstream.change("activities", "13", '{"n":2}');
    await tell(about(13));
    gate.resolve();
    await reader.until(() => reader.held.get("activity/13")?.data?.["n"] === 2);
  });

  test("whose record can't be read is not forgotten", async () => {
    upstream.seed("mentors", ['{"id":14,"n":1}']);
    upstream.script({ path: "/mentors/14" }, faults.status(500), faults.loseReply(), faults.garbage());
    await tell(about(14, "mentor.changed"));
    await reader.until(() => reader.held.has("mentor/14"));
  });

  test("outlives the process that took it", async () => {
    upstream.seed("activities", ['{"id":15,"n":1}']);
    const gate = Promise.withResolvers<void>();
    upstream.script({ path: "/activities/15" }, faults.hold(gate.promise));
    await using another = await gateway.another();
    await tell(about(15));
    await upstream.received({ path: "/activities/15" });
    await rowsOf(gateway.database, "update inbound set lease_until = now() - interval '1 second'");
    const elsewhere = newReader(another.as());
    await elsewhere.until(() => elsewhere.held.has("activity/15"));
    gate.resolve();
  });

  test("about nothing of ours is ignored, and one without an ID that could be kept is refused", async () => {
    expect(await tell(about(16, "invoice.changed"))).toMatchObject({ status: 202, body: { ignored: 1 } });
    expect(await tell('{"type":"activity.changed","data":{}}')).toMatchObject({
      status: 400,
      body: { type: "urn:tidegate:problem:invalid-request" },
    });
    for (const id of ["a\u0000b", "", randomBytes(6_000).toString("base64")])
      expect(await tell(about(id))).toMatchObject({ status: 400 });
  });
});

describe("a signature", () => {
  const refused = { status: 401, body: { type: "urn:tidegate:problem:signature-invalid" } };
  const body = about(20);

  test("by an older secret is taken, too", async () => {
    expect(await post("ours/upstreams/crm", body, signed(body, { key: older }))).toMatchObject({
      status: 202,
    });
  });

  test.each([
    ["none", {}],
    ["by another secret", signed(body, { key: "somebody else's" })],
    ["of another body", signed(about(21))],
    ["from long ago", signed(body, { time: String(Number(seconds()) - 301) })],
    ["from the future", signed(body, { time: String(Number(seconds()) + 320) })],
    ["without a time", { ...signed(body, { time: "" }) }],
    ["with another time", { ...signed(body), "webhook-timestamp": String(Number(seconds()) - 1) }],
  ])("%s is refused", async (_name, headers) => {
    expect(await post("ours/upstreams/crm", body, headers)).toMatchObject(refused);
  });

  test("of one tenant's upstream is none for another's", async () => {
    expect(await post("other/upstreams/crm", body, signed(body, { key: older }))).toMatchObject(refused);
  });

  test("of a form of its own covers the time, and several events come together", async () => {
    upstream.seed("activities", ['{"id":30}', '{"id":"1234567890123456789"}']);
    const events =
      '{"events":[{"about":"activity","key":30},{"about":"activity","key":1234567890123456789}]}';
    const time = new Date().toISOString();
    const hex = createHmac("sha256", older).update(`${time}.${events}`).digest("hex");
    const headers = { "x-signature": `sha256=${hex}`, "x-time": time };
    expect(await post("other/upstreams/crm", events, headers)).toEqual({
      status: 202,
      body: { accepted: 2, ignored: 0 },
    });
    const theirs = newReader(gateway.as({ iss: "other" }));
    await theirs.until(() => theirs.held.size === 2);
    expect(await post("other/upstreams/crm", events, { ...headers, "x-time": seconds() })).toMatchObject(
      refused,
    );
  });
});

test.each([
  "nobody/upstreams/crm",
  "ours/upstreams/next",
  "__proto__/upstreams/crm",
  "ours/upstreams/constructor",
])("%s tells nothing", async (path) => {
  const body = about(1);
  expect(await post(path, body, signed(body))).toMatchObject({ status: 404 });
});
