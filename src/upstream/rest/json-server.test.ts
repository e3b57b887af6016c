import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { createRequire } from "node:module";
import type { AddressInfo } from "node:net";

import { expect, onTestFinished, test } from "vitest";

import { aRestUpstream } from "../../../test/fixtures/upstream-config.ts";
import type { ListConfig } from "../../platform/config/entity-schema.ts";
import type { Connector } from "../connector.ts";
import { openRestConnector } from "./rest-connector.ts";

interface JsonServer {
  create(): { use(handler: unknown): void; listen(port: number, host: string, ready: () => void): Server };
  bodyParser: unknown;
  router(data: object): { render?: (request: IncomingMessage, response: ServerResponse) => void };
}

const jsonServer = createRequire(import.meta.url)("json-server") as JsonServer;

const tempId = "urn:uuid:6f1e2d3c-0000-4000-8000-00000000abcd";
const key = { entity: "activity", idempotencyKey: "k" };

async function connectorTo(data: object, list?: ListConfig): Promise<Connector> {
  const app = jsonServer.create();
  app.use(jsonServer.bodyParser);
  app.use(jsonServer.router(data));
  const { promise, resolve } = Promise.withResolvers<void>();
  const server = app.listen(0, "127.0.0.1", resolve);
  await promise;
  const connector = openRestConnector(
    aRestUpstream(`http://127.0.0.1:${(server.address() as AddressInfo).port}`, {
      entity: { reference: "/externalRef", lookup: "{path}?externalRef={tempId}", ...(list && { list }) },
    }),
  );
  onTestFinished(async () => {
    await connector.close();
    await new Promise((done) => void server.close(done));
  });
  return connector;
}

test("json-server: create, read, change, delete by configuration alone", async () => {
  const connector = await connectorTo({ activities: [{ id: 1, minutes: 10 }] });
  const created = await connector.create({ ...key, body: '{"minutes":45}' });
  expect(created!.id).toBe("2");
  await connector.update({ ...key, id: "2", patch: '{"minutes":50}', body: "{}" });
  expect(JSON.parse((await connector.read({ ...key, id: "2" }))!.body!)).toEqual({ id: 2, minutes: 50 });
  await connector.delete({ ...key, id: "2" });
  expect(await connector.read({ ...key, id: "2" })).toBeUndefined();
  await expect(connector.delete({ ...key, id: "2" })).rejects.toMatchObject({ status: 404 });
});

test("json-server answers an unknown filter with everything, and no stranger's record is taken for ours", async () => {
  const connector = await connectorTo({ activities: [{ id: 1, minutes: 10 }] });
  expect(await connector.lookup({ ...key, tempId })).toEqual([]);
  await connector.create({ ...key, body: `{"minutes":45,"externalRef":"${tempId}"}` });
  expect((await connector.lookup({ ...key, tempId })).map(({ id }) => id)).toEqual(["2"]);
});

test.each<[string, ListConfig | undefined]>([
  ["its own pages and links", { page: "_page", size: "_limit" }],
  ["its own pages of 10", { page: "_page" }],
  ["one page", undefined],
  ["one page of 100, with a total", { size: "_limit" }],
])("json-server's records are listed by %s", async (_, list) => {
  const connector = await connectorTo(
    { activities: Array.from({ length: 23 }, (__, n) => ({ id: n + 1, minutes: n })) },
    list,
  );
  const ids: string[] = [];
  let after: string | undefined;
  do {
    const page = await connector.list({ entity: "activity", after });
    ids.push(...page.records.map(({ id }) => id));
    after = page.next;
  } while (after !== undefined);
  expect(ids).toEqual(Array.from({ length: 23 }, (__, n) => String(n + 1)));
});
