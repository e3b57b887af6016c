import { expect, onTestFinished, test } from "vitest";

import { faults } from "../../../test/fixtures/scripted-faults.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../../../test/fixtures/scripted-upstream.ts";
import { aRestUpstream } from "../../../test/fixtures/upstream-config.ts";
import type { UpstreamConfig } from "../../platform/config/upstream-schema.ts";
import type { Connector } from "../connector.ts";
import { openRestConnector } from "./rest-connector.ts";

const key = { entity: "activity", idempotencyKey: "k" };
const create = { ...key, body: '{"minutes":45}' };
const change = { ...key, id: "7", patch: '{"minutes":50}', body: '{"minutes":50}' };
const gone = { ...key, id: "7" };

async function setup(
  config: Parameters<typeof aRestUpstream>[1] = {},
): Promise<{ upstream: ScriptedUpstream; connector: Connector }> {
  const upstream = await startScriptedUpstream();
  const connector = openRestConnector(aRestUpstream(upstream.url, config));
  onTestFinished(async () => {
    await connector.close();
    await upstream.stop();
  });
  return { upstream, connector };
}

const errors: UpstreamConfig["errors"] = [
  { at: "/error/code", is: [101, "gone"], status: 404 },
  { at: "/error/code", is: [137], status: 409 },
  { at: "/ok", is: [false], status: 422 },
  { at: "/errors", status: 422 },
];

test.each([
  ['{"ok":false,"why":"no"}', 200, "reject", "refused"],
  ['{"error":{"code":137}}', 400, "conflict", "refused"],
  ['{"error":{"code":"137"}}', 400, "conflict", "refused"],
  ['{"errors":["minutes"]}', 201, "reject", "refused"],
  ['{"error":{"code":1}}', 500, "retry", "ambiguous"],
])(
  "a failure told in the body, %s under %i, is a failure: %s",
  async (body, status, disposition, certainty) => {
    const { upstream, connector } = await setup({ errors });
    upstream.always({}, faults.status(status, { body }));
    for (const call of [connector.create(create), connector.update(change), connector.delete(gone)])
      await expect(call).rejects.toMatchObject({ disposition, certainty });
  },
);

test("a record that the body says is not there is none, and one that tells of no failure is one", async () => {
  const { upstream, connector } = await setup({ errors });
  upstream.script({}, faults.status(200, { body: '{"error":{"code":101}}' }));
  expect(await connector.read(gone)).toBeUndefined();
  const sound = '{"id":7,"ok":true,"errors":[],"error":null}';
  upstream.script({}, faults.status(200, { body: sound }));
  expect((await connector.read(gone))!.body).toBe(sound);
});

test("a web page in the place of an answer is no success, whatever the operation", async () => {
  const { upstream, connector } = await setup({ entity: { update: { ...opaquePatch, answer: {} } } });
  const page = "\n<!DOCTYPE html><html><body>Please log in</body></html>";
  upstream.always({}, faults.status(200, { body: page, headers: { "content-type": "text/html" } }));
  for (const call of [
    connector.create(create),
    connector.update(change),
    connector.delete(gone),
    connector.read(gone),
  ])
    await expect(call).rejects.toMatchObject({ certainty: "ambiguous", disposition: "retry" });
});

const opaquePatch = { method: "PATCH", class: "opaque", enabled: true } as const;

test("an answer of which nothing counts need not be JSON", async () => {
  const { upstream, connector } = await setup({ entity: { update: { ...opaquePatch, answer: {} } } });
  upstream.always({}, faults.status(200, { body: "OK", headers: { "content-type": "text/plain" } }));
  expect(await connector.update(change)).toBeUndefined();
  await connector.delete(gone);
});

test("a record in another charset than UTF-8 is read by the one that the answer names", async () => {
  const { upstream, connector } = await setup();
  const body = '{"id":7,"note":"blåbær"}';
  const latin1 = { "content-type": "application/json; charset=ISO-8859-1" };
  upstream.script(
    {},
    ({ response }) => void response.writeHead(200, latin1).end(Buffer.from(body, "latin1")),
  );
  expect((await connector.read(gone))!.body).toBe(body);
  // One that only says so is UTF-8 all the same.
  upstream.script({}, ({ response }) => void response.writeHead(200, latin1).end(Buffer.from(body)));
  expect((await connector.read(gone))!.body).toBe(body);
});
