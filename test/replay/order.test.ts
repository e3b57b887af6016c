import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { createRequire } from "node:module";
import type { AddressInfo } from "node:net";
import { describe, expect, onTestFinished, test } from "vitest";

import { crm } from "../fixtures/crm.ts";
import { startGateway, tempId } from "../fixtures/gateway.ts";
import { queueBackends } from "../fixtures/redis.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { linesOf, newPhone, type Phone } from "./phone.ts";

describe.each(queueBackends())("on %s", { timeout: 60_000 }, (queues) => {
  test("phones are replayed beside each other, each in its own order, over many batches", async () => {
    await using upstream = await startScriptedUpstream({ latencyMs: 2 });
    await using gateway = await startGateway({ queues, upstreams: crm(upstream.url) });
    const phones = Array.from({ length: 8 }, () => newPhone(gateway));
    await Promise.all(phones.map(uploadInBatches));
    for (const phone of phones) {
      const results = await phone.settled(40_000);
      expect(linesOf(results)).toEqual(
        Array.from({ length: count }, (_, n) => (n % 10 === 9 ? "rejected unknown-entity" : "applied")),
      );
      expect(sentBy(upstream, phone)).toEqual(
        Array.from({ length: count }, (_, n) => n).filter((n) => n % 10 !== 9),
      );
    }
    // Their outcomes reach each of them in order too.
    const seqs = Array.from({ length: count }, (_, n) => n + 1);
    for (const phone of phones) expect(await toldTo(phone)).toEqual(seqs);
  });

  test("phones with more than a slice queued don't keep another's single mutation waiting", async () => {
    await using upstream = await startScriptedUpstream({ latencyMs: 2 });
    await using gateway = await startGateway({
      queues,
      // Fewer lanes in hand than phones: the last ones have to wait for a slice to end.
      upstreams: crm(upstream.url, { upstream: { concurrency: 8 } }),
    });
    const heavy = Array.from({ length: 36 }, () => newPhone(gateway));
    for (const phone of heavy) {
      for (let n = 0; n < 120; n++)
        phone.add({ op: "create", recordId: tempId(), data: { by: phone.clientId, n } });
      await phone.send({ wait: 0 });
    }
    const single = newPhone(gateway);
    single.add({ op: "create", recordId: tempId(), data: { by: single.clientId, n: 0 } });
    expect(linesOf(await single.replay())).toEqual(["applied"]);
    const done = heavy.map((phone) => sentBy(upstream, phone).length);
    expect(Math.max(...done)).toBeLessThan(120);
  });
});

test(
  "a year's outbox, with references through all of it, is replayed in order to a system that nobody here wrote",
  { timeout: 60_000 },
  async () => {
    const { url, journal } = await startJsonServer({ mentors: [], activities: [] });
    const entity = {
      id: "/id",
      create: { class: "lookup" },
      update: { class: "lookup" },
      reference: "/externalRef",
      lookup: "{path}?externalRef={tempId}",
    };
    await using gateway = await startGateway({ queues: "postgres", upstreams: crm(url, { entity }) });
    const phone = newPhone(gateway);
    const mentors = Array.from({ length: 20 }, () => tempId());
    const activities: string[] = [];
    for (let n = 0; n < 380; n++) {
      const mentor = mentors[n % 20] ?? "";
      if (n < 20) phone.add({ op: "create", entity: "mentor", recordId: mentor, data: { n } });
      else if (n % 4 === 3) {
        phone.add({ op: "update", recordId: activities.at(-1) ?? "", data: { n, mentor } });
      } else {
        activities.push(tempId());
        phone.add({ op: "create", recordId: activities.at(-1) ?? "", data: { n, mentor } });
      }
    }
    const { status } = await phone.send({ wait: 25 });
    expect([200, 202]).toContain(status);
    const results = await phone.settled(40_000);
    expect(linesOf(results)).toEqual(Array.from({ length: 380 }, () => "applied"));
    const { body } = await phone.api.get(`/v1/id-mappings?clientId=${phone.clientId}`);
    const serverIds = new Map<string, string>(
      body.idMappings.map((m: { tempId: string; serverId: string }) => [m.tempId, m.serverId]),
    );
    expect(serverIds.size).toBe(20 + activities.length);
    expect(journal.map(({ n }) => n)).toEqual(Array.from({ length: 380 }, (_, n) => n));
    const referring = journal.filter(({ mentor }) => mentor !== undefined);
    expect(referring.map(({ mentor }) => mentor)).toEqual(
      referring.map(({ n }) => serverIds.get(mentors[n % 20] ?? "")),
    );
  },
);

const count = 80;

/** In batches of 1 to 25 mutations, among them some that are rejected before the log. */
async function uploadInBatches(phone: Phone): Promise<void> {
  for (let n = 0, size = 1; n < count; size = (size * 7) % 26 || 1) {
    for (const end = Math.min(count, n + size); n < end; n++) addNth(phone, n);
    await phone.send({ wait: 0 });
  }
}

/** The seqs of the outcomes that the feed tells the phone, in the feed's order. */
async function toldTo({ api, clientId }: Phone): Promise<number[]> {
  const seqs: number[] = [];
  for (let page = `/v1/changes?clientId=${clientId}`, more = true; more;) {
    const { body } = await api.get(page);
    for (const { type, result } of body.changes) if (type === "outcome") seqs.push(result.seq);
    page = `/v1/changes?clientId=${clientId}&cursor=${encodeURIComponent(body.cursor)}`;
    ({ more } = body);
  }
  return seqs;
}

/** The n-th of a phone's mutations; every tenth is rejected at once. */
function addNth(phone: Phone, n: number): void {
  const entity = n % 10 === 9 ? "nothing" : "activity";
  phone.add({ op: "create", entity, recordId: tempId(), data: { by: phone.clientId, n } });
}

function sentBy(upstream: ScriptedUpstream, { clientId }: Phone): number[] {
  return upstream.effects
    .filter(({ request }) => request.body.includes(clientId))
    .map(({ record = "" }) => (JSON.parse(record) as { n: number }).n);
}

interface JsonServer {
  create(): { use(handler: unknown): void; listen(port: number, host: string, ready: () => void): Server };
  bodyParser: unknown;
  router(data: object): { render?: (request: IncomingMessage, response: ServerResponse) => void };
}

const jsonServer = createRequire(import.meta.url)("json-server") as JsonServer;

/** json-server on a port, with a journal of the bodies of the changes that reached it. */
async function startJsonServer(data: object) {
  const journal: { n: number; mentor?: string }[] = [];
  const app = jsonServer.create();
  app.use(jsonServer.bodyParser);
  app.use((request: IncomingMessage & { body: { n: number } }, _response: unknown, next: () => void) => {
    if (request.method !== "GET") journal.push({ ...request.body });
    next();
  });
  app.use(jsonServer.router(data));
  const { promise, resolve } = Promise.withResolvers<void>();
  const server = app.listen(0, "127.0.0.1", resolve);
  await promise;
  onTestFinished(async () => await new Promise((done) => void server.close(() => done())));
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, journal };
}
