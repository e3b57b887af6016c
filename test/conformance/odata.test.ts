import { expect, onTestFinished, test } from "vitest";

import type { OperationClass } from "../../src/platform/config/operation-schema.ts";
import type { Connector } from "../../src/upstream/connector.ts";
import { openODataConnector } from "../../src/upstream/odata/odata-connector.ts";
import { createODataService, failure, type ODataServiceOptions } from "../fixtures/odata-service.ts";
import { faults, hanging, type Fault as ScriptedFault } from "../fixtures/scripted-faults.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { aRestUpstream } from "../fixtures/upstream-config.ts";
import { aRecord, creation, failureOf } from "./calls.ts";
import { describeConnector } from "./connector.ts";
import type { Fault, Kind, StartOptions, Subject } from "./kind.ts";

const statusOf = { retry: 429, conflict: 409, reject: 422, park: 428, systemic: 401 } as const;

type Service = ReturnType<typeof createODataService>;

/** The faults of a real socket, around what the service would answer. */
function scripted(fault: Fault, service: Service, held: Set<unknown>): ScriptedFault {
  if (typeof fault === "object") {
    const said = failure(statusOf[fault.answer], "no: kari@example.org, 90 12 34 56");
    return ({ send }) => send(said);
  }
  const meant = {
    "lose-request": faults.loseRequest,
    "lose-reply": faults.loseReply,
    hang: () => hanging(held),
    garbage: faults.garbage,
  }[fault]();
  return (exchange) => meant({ ...exchange, apply: () => service.answer(exchange.request) });
}

interface Started extends Subject {
  upstream: ScriptedUpstream;
  service: Service;
  connector: Connector;
}

async function start(options: StartOptions, more: Partial<ODataServiceOptions> = {}): Promise<Started> {
  const { create = "opaque", update = "opaque", delete: remove = "opaque", timeoutMs = 10_000 } = options;
  const chooses = create !== "opaque" && create !== "lookup";
  const keyType = more.keyType ?? (chooses ? "string" : "number");
  const service = createODataService({ keyType, tracks: "4.0", ...options, ...more });
  const upstream = await startScriptedUpstream();
  const held = new Set<unknown>();
  upstream.always({}, ({ request, send }) => send(service.answer(request)));
  const entity = {
    path: "/Activities",
    id: "/Id",
    keyType,
    create: { method: chooses ? "PUT" : "POST", class: create, enabled: true },
    update: { method: "PATCH", class: update, enabled: true },
    delete: { method: "DELETE", class: remove, enabled: true },
    version: { pointer: "/@odata.etag" },
    reference: "/externalRef",
    list: { since: "ModifiedAt", changes: true, pageSize: 50 },
  } as const;
  const config = aRestUpstream(`${upstream.url}/odata`, { entity, timeoutMs, actorHeader: "X-Acting-User" });
  const connector = openODataConnector({ ...config, kind: "odata" });
  return {
    connector,
    upstream,
    service,
    server: {
      records: service.texts,
      seed: service.seed,
      change: service.change,
      next: (fault) => upstream.script({}, scripted(fault, service, held)),
      hanging: () => held.size,
      requests: () =>
        upstream.requests.map(({ headers }) => ({
          actor: headers["x-acting-user"],
          requestId: headers["x-request-id"],
        })),
      stop: upstream.stop,
    },
    async [Symbol.asyncDispose]() {
      await connector.close();
      await upstream.stop();
    },
  };
}

const choosing: OperationClass[] = ["upsert", "client-id", "conditional"];

const odata: Kind = {
  entity: "activity",
  can: {
    create: ["opaque", "lookup", ...choosing],
    update: ["opaque", "client-id", "conditional"],
    delete: ["opaque", "client-id", "conditional"],
    ids: ["O'Neil", "a/b", "x?y#z", "100%", "æ ø", "a+b&c", "')or('1", ".."],
    reference: "/externalRef",
    pages: true,
    since: true,
    changes: true,
    failures: ["retry", "conflict", "reject", "park", "systemic"],
    exact: {
      minutes: ["9007199254740993", "0.10", "1e3"],
      note: [String.raw`"\u0000"`, String.raw`"\ud800"`, '"æ 𝄞 \\" \\\\ @odata.etag"', '""'],
    },
    keyOrder: true,
    actor: true,
    requestId: true,
  },
  start,
};

describeConnector("OData, against a small service", odata);

async function aService(
  options: StartOptions = {},
  more: Partial<ODataServiceOptions> = {},
): Promise<Started> {
  const subject = await start(options, more);
  onTestFinished(() => subject[Symbol.asyncDispose]());
  return subject;
}

test.for([
  ["number", "1"],
  ["string", "1"],
] as const)(
  "a create answered with 204 names its record by OData-EntityId, keys being a %s",
  async ([keyType, id]) => {
    const { connector } = await aService({}, { keyType, minimal: true });
    expect(await connector.create(creation(odata))).toEqual({ id, version: 'W/"1"', body: undefined });
  },
);

test("what the protocol says about a record is not the record's", async () => {
  const { connector, server } = await aService();
  const [id] = server.seed(['{"minutes":1,"visit":{"at@odata.type":"#Edm.Date","at":"2026-01-01"}}']) as [
    string,
  ];
  const { body } = (await connector.read({ entity: "activity", id }))!;
  expect(body).not.toContain("@");
  expect(JSON.parse(body!)).toMatchObject({ Id: 1, minutes: 1, visit: { at: "2026-01-01" } });
});

test("an ID that is no key of the configured type is not sent", async () => {
  const { connector, upstream } = await aService();
  for (const id of ["1)/Boss(1", "abc", "", "1 or 1"])
    expect(await failureOf(connector.read({ entity: "activity", id }))).toMatchObject({
      certainty: "not-sent",
      disposition: "park",
    });
  expect(upstream.requests).toEqual([]);
});

test("a list that goes on at another origin is not followed", async () => {
  const { connector, upstream } = await aService();
  const body =
    '{"value":[{"Id":1}],"@odata.nextLink":"http://elsewhere.example/odata/Activities?$skiptoken=1"}';
  upstream.script({}, faults.status(200, { body }));
  expect(await failureOf(connector.list({ entity: "activity" }))).toMatchObject({ disposition: "park" });
});

test("the service's error is told by code, message, fields and details, without its stack", async () => {
  const { connector, upstream } = await aService();
  const error = {
    code: "X1",
    message: "no",
    innererror: { stacktrace: "at Db" },
    details: [{ code: "D", target: "minutes" }],
  };
  upstream.script({}, faults.status(400, { body: JSON.stringify({ error }) }));
  const { excerpt } = await failureOf(connector.create(creation(odata, "opaque", aRecord())));
  expect(JSON.parse(excerpt!)).toEqual({
    code: "X1",
    message: "no",
    details: [{ code: "D", field: "minutes" }],
  });
});

test("what the service does not implement is parked, and was not done", async () => {
  const { connector, upstream } = await aService();
  upstream.script({}, faults.status(501));
  const refused = { certainty: "refused", disposition: "park" };
  expect(await failureOf(connector.create(creation(odata)))).toMatchObject(refused);
});

/** The next answer is this, with status 200. */
const told = ({ upstream }: Started, body: object): void =>
  upstream.script({}, faults.status(200, { body: JSON.stringify(body) }));

test.for(["4.0", "4.01"] as const)("deleted records are named as OData %s tells of them", async (tracks) => {
  for (const keyType of ["number", "string"] as const) {
    const { connector, server } = await aService({}, { tracks, keyType });
    const [id] = server.seed(["{}", "{}"]) as [string];
    const { changes } = await connector.list({ entity: "activity" });
    server.change(id, null);
    expect(await connector.list({ entity: "activity", after: changes })).toMatchObject({ changed: [id] });
  }
});

test("changes are named by URL, by key or by a marked record; links between records name none", async () => {
  const subject = await aService();
  const { changes } = await subject.connector.list({ entity: "activity" });
  const context = "http://x/$metadata#Activities";
  told(subject, {
    "@odata.context": `${context}/$delta`,
    value: [
      { Id: 1, "@odata.etag": "W/1" },
      { "@odata.context": `${context}/$deletedEntity`, id: "http://x/v4/Activities(2)", reason: "deleted" },
      { "@odata.context": `${context}/$deletedEntity`, id: "3", reason: "deleted" },
      { "@removed": { reason: "changed" }, Id: 4 },
      { "@odata.id": "Activities/5", "@odata.removed": {} },
      { "@odata.context": `${context}/$link`, source: "Activities(6)", target: "Mentors(1)" },
      { "@odata.context": `${context}/$deletedLink`, source: "Activities(7)", target: "Mentors(1)" },
    ],
  });
  const page = await subject.connector.list({ entity: "activity", after: changes });
  expect(page).toEqual({ records: [], changed: ["1", "2", "3", "4", "5"], next: undefined });
  told(subject, {
    value: [{ "@odata.context": `${context}/$deletedEntity`, id: "Mentors(1)", reason: "deleted" }],
  });
  expect(await failureOf(subject.connector.list({ entity: "activity", after: changes }))).toMatchObject({
    disposition: "park",
  });
});

test("a delta link that has expired is told by its status, and one to another origin is not followed", async () => {
  const subject = await aService();
  const { changes } = await subject.connector.list({ entity: "activity" });
  subject.service.forget();
  expect(await failureOf(subject.connector.list({ entity: "activity", after: changes }))).toMatchObject({
    status: 410,
  });
  told(subject, { value: [], "@odata.deltaLink": "https://elsewhere.example/Activities?$deltatoken=1" });
  expect(await failureOf(subject.connector.list({ entity: "activity" }))).toMatchObject({
    disposition: "park",
  });
});

test("empty pages are no end of a list, unless there is no end of them", async () => {
  const subject = await aService();
  const link = { "@odata.nextLink": "Activities?$skiptoken=1" };
  for (let n = 0; n < 3; n++) told(subject, { value: [], ...link });
  told(subject, { value: [{ Id: 7 }] });
  expect((await subject.connector.list({ entity: "activity" })).records).toMatchObject([{ id: "7" }]);
  for (let n = 0; n < 30; n++) told(subject, { value: [], ...link });
  expect(await failureOf(subject.connector.list({ entity: "activity" }))).toMatchObject({
    disposition: "park",
  });
});

test("a record that is answered instead of the one that was asked for is not taken for it", async () => {
  const subject = await aService({}, { keyType: "string" });
  const read = async (): Promise<unknown> => await subject.connector.read({ entity: "activity", id: "kari" });
  told(subject, { Id: "KARI", minutes: 1 });
  expect(await failureOf(read())).toMatchObject({ certainty: "ambiguous", disposition: "park" });
  told(subject, { Id: "kari", minutes: 1 });
  expect(await read()).toMatchObject({ id: "kari", body: '{"Id":"kari","minutes":1}' });
  // As some services say that there is none.
  told(subject, { "@odata.context": "$metadata#Activities/$entity", value: [] });
  expect(await read()).toBeUndefined();
});

test("an update that is answered with another record says nothing of this one", async () => {
  const subject = await aService();
  told(subject, { Id: 2, minutes: 1, "@odata.etag": "W/2" });
  const call = { entity: "activity", id: "1", patch: "{}", body: "{}", idempotencyKey: "k" };
  expect(await subject.connector.update(call)).toBeUndefined();
});

test("pages of the configured size are preferred, and changes to be kept track of with the first of a whole list", async () => {
  const { connector, server, upstream } = await aService({ pageSize: 1 });
  server.seed(["{}", "{}"]);
  const { next } = await connector.list({ entity: "activity" });
  await connector.list({ entity: "activity", after: next });
  await connector.list({ entity: "activity", since: new Date(0) });
  const [whole, size] = ["odata.maxpagesize=50,odata.track-changes", "odata.maxpagesize=50"];
  expect(upstream.requests.map(({ headers }) => headers["prefer"])).toEqual([whole, size, size]);
});
