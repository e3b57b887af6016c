import { fileURLToPath } from "node:url";

import { describe, expect, onTestFinished, test } from "vitest";

import { toJsonNumber } from "../../examples/soap/connectors/json.ts";
import { escapeXml, parseXml, UnspeakableText, XmlError } from "../../examples/soap/connectors/xml.ts";
import { UpstreamError, type Connector } from "../../src/upstream/connector.ts";
import { openModule } from "../conformance/open-module.ts";
import { faults } from "../fixtures/scripted-faults.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";

const entity = "activity";
const create = { entity, body: '{"minutes":45}', idempotencyKey: "k-1" };
const soapNamespace = "http://schemas.xmlsoap.org/soap/envelope/";
const own = "urn:legacy:activities:v1";

const envelope = (body: string): string =>
  `<?xml version="1.0"?><S:Envelope xmlns:S="${soapNamespace}"><S:Header/><S:Body>${body}</S:Body></S:Envelope>`;

const made = (activity: string): string =>
  envelope(
    `<CreateActivityResponse xmlns="${own}"><activity>${activity}</activity></CreateActivityResponse>`,
  );

const faultOf = (code: string, detail = ""): string =>
  envelope(`<S:Fault><faultcode>${code}</faultcode><faultstring>No.</faultstring>${detail}</S:Fault>`);

async function setup(): Promise<{ upstream: ScriptedUpstream; connector: Connector }> {
  const upstream = await startScriptedUpstream();
  const module = fileURLToPath(new URL("../../examples/soap/connectors/activities.ts", import.meta.url));
  const settings = { user: "u", password: "p" };
  const connector = openModule({ module, entities: [entity], settings, baseUrl: upstream.url });
  onTestFinished(async () => {
    await connector.close();
    await upstream.stop();
  });
  return { upstream, connector };
}

/** What comes of a create that is answered so. */
async function answered(body: string, status = 200): Promise<unknown> {
  const { upstream, connector } = await setup();
  upstream.script({}, faults.status(status, { body }));
  return await connector.create(create).catch((error: unknown) => error);
}

const unclear = { certainty: "ambiguous", disposition: "retry" };

test("an answer is read by its namespaces, whatever its prefixes, and to the letter", async () => {
  const activity =
    '<i:id xmlns:i="urn:legacy:activities:v1">A-1</i:id><version>3</version><note> <![CDATA[<&amp;]]>&#x1F600;&#13;&quot; </note>' +
    '<minutes>+0045.50</minutes><mentor xsi:nil="1"/><date/><other>x</other><note xmlns="urn:another">no</note>';
  expect(await answered(made(activity))).toEqual({
    id: "A-1",
    version: "3",
    body: String.raw`{"mentor":null,"date":"","minutes":45.50,"note":" <&amp;😀\r\" "}`,
  });
});

test.for([
  ["no XML", "<html><p>OK"],
  ["nothing", ""],
  ["XML that is cut off", made("<id>A-1</id>").slice(0, -20)],
  ["another vocabulary", "<Envelope><Body/></Envelope>"],
  ["an empty body", envelope("")],
  ["another answer", envelope(`<GetActivityResponse xmlns="${own}"/>`)],
  ["another's answer", made("<id>A-1</id>").replace(own, "urn:another")],
  ["two answers", made("<id>A-1</id>").replace("<S:Body>", `<S:Body><a xmlns="${own}"/>`)],
  ["no record", envelope(`<CreateActivityResponse xmlns="${own}"/>`)],
  ["no ID", made("<note>x</note>")],
  ["a number that is none", made("<id>A-1</id><minutes>forty</minutes>")],
  ["an entity of its own", made("<id>A-1</id><note>&secret;</note>")],
  ["a character that there is not", made("<id>A-1</id><note>&#0;</note>")],
  ["a tower", made(`<id>A-1</id>${"<a>".repeat(100)}${"</a>".repeat(100)}`)],
  ["a prefix of nobody", made("<id>A-1</id><x:note>x</x:note>")],
] as const)("%s is no answer, and says nothing of what was done", async ([, body]) => {
  expect(await answered(body)).toMatchObject(unclear);
});

describe("a DOCTYPE is refused before it is read", () => {
  const laughs = Array.from({ length: 9 }, (_, level) => {
    const last = level === 0 ? "ha" : `&l${level - 1};`;
    return `<!ENTITY l${level} "${last.repeat(10)}">`;
  });
  test.for([
    ["a file", '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>', "&e;"],
    ["a billion laughs", `<!DOCTYPE x [${laughs.join("")}]>`, "&l8;"],
    ["nothing at all", "<!-- <S/> --> <?a b?>\n<!doctype x>", ""],
  ] as const)("%s", async ([, doctype, note]) => {
    const xml = made(`<id>A-1</id><note>${note}</note>`).replace("?>", `?>${doctype}`);
    const failure = (await answered(xml)) as UpstreamError;
    expect(failure).toMatchObject(unclear);
    expect(failure.message).toContain("DOCTYPE");
  });

  test("and stands in no other place either", () => {
    const inside = '<a><!DOCTYPE x [<!ENTITY e "ha">]><b>&e;</b></a>';
    expect(() => parseXml(inside)).toThrow(XmlError);
  });
});

test.for([
  ["of the client with a code that we know", "S:Client", "<detail><code>STALE</code></detail>", "conflict"],
  [
    "whose code has a namespace",
    "S:Client",
    '<detail><e:code xmlns:e="urn:e"> INVALID </e:code></detail>',
    "reject",
  ],
  [
    "of the client with a code that we don't know",
    "S:Client.Odd",
    "<detail><code>toString</code></detail>",
    "park",
  ],
  ["of the client without a code", "Client", "", "park"],
] as const)("a fault %s says that nothing was done", async ([, code, detail, disposition]) => {
  for (const status of [500, 200])
    expect(await answered(faultOf(code, detail), status)).toMatchObject({
      certainty: "refused",
      disposition,
    });
});

test("a fault of the server says nothing of what was done; one of our envelopes is the whole's matter", async () => {
  expect(await answered(faultOf("S:Server"), 500)).toMatchObject({ ...unclear, systemic: false });
  expect(await answered(faultOf("x:Whatever"), 200)).toMatchObject(unclear);
  const refused = { certainty: "refused", systemic: true };
  expect(await answered(faultOf("S:MustUnderstand"), 500)).toMatchObject(refused);
  const of12 = envelope("<S:Fault><S:Code><S:Value>S:Sender</S:Value></S:Code></S:Fault>");
  expect(await answered(of12, 401)).toMatchObject(refused);
  expect(await answered(of12, 503)).toMatchObject(unclear);
  expect(await answered("<html>", 502)).toMatchObject(unclear);
  expect(await answered("<html>", 403)).toMatchObject(refused);
});

test.for([
  ["a bell", String.raw`{"note":"\u0007"}`],
  ["a NUL", String.raw`{"note":"\u0000"}`],
  ["half a character", String.raw`{"note":"\ud800"}`],
  ["the end of Unicode", String.raw`{"note":"\uffff"}`],
  ["an exponent", '{"minutes":1e3}'],
  ["a text for a number", '{"minutes":"45"}'],
  ["a number for a text", '{"note":45}'],
  ["an object", '{"note":{"a":1}}'],
] as const)("%s is rejected before anything is sent", async ([, body]) => {
  const { upstream, connector } = await setup();
  const failure = await connector.create({ ...create, body }).catch((error: unknown) => error);
  expect(failure).toMatchObject({ certainty: "refused", disposition: "reject" });
  expect(upstream.requests).toEqual([]);
});

test("a field that the service lacks is not left out", async () => {
  const { upstream, connector } = await setup();
  const failure = await connector
    .create({ ...create, body: '{"weather":"fine"}' })
    .catch((error: unknown) => error);
  expect(failure).toMatchObject({ certainty: "refused", disposition: "park" });
  expect(upstream.requests).toEqual([]);
});

test("text survives the way there and back", () => {
  for (const text of [
    "",
    " ",
    "\t\r\n",
    "]]>",
    "&amp;",
    "<![CDATA[x]]>",
    "𝄞",
    "\"'",
    "\u0085\u2028",
    "-- -->",
  ])
    expect(parseXml(`<a>${escapeXml(text)}</a>`).text).toBe(text);
  expect(() => escapeXml("a\u000b")).toThrow(UnspeakableText);
});

test.for([
  ["45", "45"],
  ["+045.50", "45.50"],
  [" -.5 ", "-0.5"],
  ["5.", "5"],
  ["000", "0"],
  [".", undefined],
  ["", undefined],
  ["1e3", undefined],
  ["4 5", undefined],
  ["NaN", undefined],
] as const)("the decimal %j is the JSON number %j", ([decimal, number]) => {
  expect(toJsonNumber(decimal)).toBe(number);
  if (number !== undefined) expect(() => JSON.parse(number) as unknown).not.toThrow();
});
