import { expect, onTestFinished, test } from "vitest";

import { aRestUpstream } from "../../test/fixtures/upstream-config.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../../test/fixtures/scripted-upstream.ts";
import type { EntityConfig } from "../platform/config/entity-schema.ts";
import { probeConfig } from "./probe.ts";
import { unsafeRepeats } from "./repeats.ts";

const conditional = { class: "conditional", enabled: true } as const;

/** An upstream that answers as it is told, whatever it is asked: a path and query gets a body, else 404. */
async function serving(answers: (path: string) => string | undefined): Promise<ScriptedUpstream> {
  const upstream = await startScriptedUpstream();
  onTestFinished(async () => await upstream.stop());
  upstream.always({}, ({ request, response }) => {
    const body = answers(decodeURIComponent(request.path));
    response.writeHead(body === undefined ? 404 : 200, { etag: 'W/"1"' }).end(body ?? "{}");
  });
  return upstream;
}

/** What was found of one thing, as `result detail`. */
async function found(url: string, entity: Partial<EntityConfig>, what: string): Promise<string[]> {
  const findings = await probeConfig({
    tenants: { ours: { upstreams: { crm: aRestUpstream(url, { entity }) } } },
  });
  return findings
    .filter((finding) => finding.what === what)
    .map(({ result, detail }) => `${result} ${detail}`.trim());
}

const two = '[{"id":1},{"id":2}]';
const item = (path: string): string | undefined => (/\/[12]$/.test(path) ? '{"id":1}' : undefined);

test("a list that gives the same page for ever is broken; one that ends works", async () => {
  const endless = await serving((path) => (path.includes("?") ? two : item(path)));
  expect(await found(endless.url, { list: { page: "p" } }, "pages")).toEqual([
    expect.stringMatching(/^broken 2 records of the first page are on the second one too/),
  ]);
  const ending = await serving((path) => (path.endsWith("p=1") ? two : (item(path) ?? "[]")));
  expect(await found(ending.url, { list: { page: "p" } }, "pages")).toEqual(["works"]);
});

/** Two records, of which those are told that have changed. */
const answersOf =
  (changed: (ms: number) => boolean) =>
  (path: string): string | undefined => {
    const [, ms] = /after=ge(\d+)$/.exec(path) ?? [];
    if (ms === undefined) return item(path) ?? two;
    return changed(Number(ms)) ? two : "[]";
  };

test("changes that can't be found are broken, and all of them each time is not verified", async () => {
  const list = { since: "after=ge{sinceMs}" };
  for (const [changed, result] of [
    [(ms: number) => ms < Date.now(), /^works$/],
    [() => false, /^broken nothing has changed since 1970/],
    [() => true, /^unverified 2 records have changed since tomorrow/],
  ] as const) {
    const upstream = await serving(answersOf(changed));
    expect(await found(upstream.url, { list }, "since")).toEqual([expect.stringMatching(result)]);
  }
});

test("a weak ETag leaves it open whether changes are conditional", async () => {
  const upstream = await serving((path) => (path === "/activities" ? two : item(path)));
  const version = { header: "etag" };
  const update = { method: "PATCH", ...conditional } as const;
  expect(await found(upstream.url, { version }, "version")).toEqual(["works header etag"]);
  expect(await found(upstream.url, { version, update }, "version")).toEqual([
    expect.stringMatching(/^unverified header etag is weak/),
  ]);
});

test("an unknown ID is asked for in the form of those that there are", async () => {
  for (const [id, form] of [
    ["1", /^\/activities\/\d+$/],
    ["5f1e2d3c4b5a69788796a5b4", /^\/activities\/[0-9a-f]{24}$/],
    ["a-b", /^\/activities\/[0-9a-f-]{36}$/],
  ] as const) {
    const upstream = await serving((path) =>
      path === "/activities" ? `[{"id":"${id}"}]` : path.endsWith(id) ? "{}" : undefined,
    );
    expect(await found(upstream.url, {}, "unknown id")).toEqual(["works answered as none"]);
    expect(upstream.requests[1]!.path).toMatch(form);
  }
});

test("a search that is answered in another form than the list is looked at in that form", async () => {
  const upstream = await serving((path) => {
    if (path.includes("ref=")) return two;
    return path === "/activities" ? `{"items":${two}}` : item(path);
  });
  const searched = { reference: "/ref", lookup: "{path}?ref={tempId}", list: { items: "/items" } };
  expect(await found(upstream.url, searched, "lookup")).toEqual([
    "broken the search was not answered with a list at /items, as `list` says; `found` may say otherwise for searches",
  ]);
  expect(await found(upstream.url, { ...searched, found: {} }, "lookup")).toEqual([
    expect.stringMatching(/^unverified the filter is ignored: .* 2 other records/),
  ]);
});

const sure = {
  update: { method: "PATCH", class: "upsert", enabled: true },
  delete: { method: "DELETE", class: "client-id", enabled: true },
} as const;

const named = (entity: Partial<EntityConfig>): string[] => {
  const upstream = aRestUpstream("http://crm", { entity: { ...sure, ...entity } });
  return unsafeRepeats({ tenants: { ours: { upstreams: { crm: upstream } } } });
};

test("an upsert by POST without a key is named as one that may double records", () => {
  const create = { method: "POST", class: "upsert", enabled: true } as const;
  expect(named({ create, reference: "/ref" })).toEqual([]);
  expect(named({ create })).toEqual([expect.stringContaining("A REPEATED CREATE MAY MAKE A SECOND RECORD")]);
});
