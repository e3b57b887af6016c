import * as fc from "fast-check";
import { describe, expect, test } from "vitest";

import { aRestUpstream, anEntity } from "../../../test/fixtures/upstream-config.ts";
import { urlsOf } from "./urls.ts";

const { baseUrl } = aRestUpstream("http://crm.example/api/v2/");

test("a base URL with a path prefix is kept", () => {
  const urls = urlsOf(baseUrl, anEntity({ path: "/activities", lookup: "{path}?externalRef={tempId}" }));
  expect(urls.list).toBe("/api/v2/activities");
  expect(urls.item("4711")).toBe("/api/v2/activities/4711");
  expect(urls.search("urn:uuid:a&b")).toBe("/api/v2/activities?externalRef=urn%3Auuid%3Aa%26b");
});

test("a search may go elsewhere than the collection", () => {
  const urls = urlsOf("http://crm.example", anEntity({ lookup: "/search?q='{tempId}'&in={path}" }));
  expect(urls.search("urn:uuid:1")).toBe("/search?q=%27urn%3Auuid%3A1%27&in=/activities");
});

test("a search may hold JSON, with braces of its own", () => {
  const lookup = '{path}?where={"ref":{"$eq":"{tempId}"}}&limit=2';
  const urls = urlsOf("http://crm.example", anEntity({ lookup }));
  const { searchParams } = new URL(urls.search('urn:uuid:a"&limit=9')!, "http://crm.example");
  expect([...searchParams]).toEqual([
    ["where", '{"ref":{"$eq":"urn:uuid:a"&limit=9"}}'],
    ["limit", "2"],
  ]);
});

test("a path with other letters is percent-encoded", () => {
  expect(urlsOf("http://crm.example", anEntity({ path: "/møter" })).list).toBe("/m%C3%B8ter");
});

describe("a record below others", () => {
  const urls = urlsOf(
    "http://crm.example",
    anEntity({
      path: "/projects/{/project/id}/tasks",
      update: { method: "POST", class: "opaque", enabled: true, path: "{item}/edit?by=us" },
      delete: { method: "POST", class: "opaque", enabled: true, path: "/archive/{/project/id}/{id}" },
    }),
  );
  const id = "7%2F%C3%A6/1%202";

  test("is created below what it says, and has an ID that tells where it is", () => {
    expect(urls.creation('{"project":{"id":"7/æ"}}', undefined)).toBe("/projects/7%2F%C3%A6/tasks");
    expect(urls.idOf("1 2", '{"project":{"id":"7/æ"}}')).toBe(id);
    expect(urls.idOf("3", '{"project":{"id":90071992547409931234}}')).toBe("90071992547409931234/3");
  });

  test("is found by that ID, for every operation", () => {
    expect(urls.item(id)).toBe("/projects/7%2F%C3%A6/tasks/1%202");
    expect(urls.change(id)).toBe("/projects/7%2F%C3%A6/tasks/1%202/edit?by=us");
    expect(urls.removal(id)).toBe("/archive/7%2F%C3%A6/1%202");
    expect(urls.ownIdAt("http://internal/app/projects/7/tasks/1%202")).toBe("1 2");
    expect(urls.ownIdAt("http://internal/app/projects/7/tasks")).toBeUndefined();
  });

  test("is not moved by a change", () => {
    urls.refuseMove(id, '{"project":{"id":"7/æ"},"a":1}');
    urls.refuseMove(id, '{"a":1}');
    for (const body of ['{"project":{"id":8}}', '{"project":{"id":null}}'])
      expect(() => urls.refuseMove(id, body)).toThrow(
        expect.objectContaining({ certainty: "not-sent", disposition: "park" }),
      );
  });

  test.for(['{"project":{}}', '{"project":{"id":null}}', '{"project":{"id":""}}', '{"project":{"id":".."}}'])(
    "is not created where %s does not say where",
    (body) => {
      expect(() => urls.creation(body, undefined)).toThrow(
        expect.objectContaining({ certainty: "not-sent", disposition: "park" }),
      );
    },
  );

  test.for(["1", "7/1/2", "7/%E0%A4%A", "../1", "7/"])(
    "is not looked for by the ID %s, which is none",
    (none) => {
      expect(() => urls.item(none)).toThrow(expect.objectContaining({ certainty: "not-sent" }));
    },
  );
});

test.each([
  ["/activity/{id}", "/activity/a%2Fb", "/x/activity/7", "7"],
  ["/activity?id={id}&full=1", "/activity?id=a%2Fb&full=1", "/activity/7", undefined],
  ["{path}/no-{id}.json", "/activities/no-a%2Fb.json", "/activities/no-7.json", "7"],
  ["/{id}", "/a%2Fb", "/7", "7"],
])("a record may be at %s", (item, url, location, own) => {
  const urls = urlsOf("http://crm.example", anEntity({ item }));
  expect(urls.item("a/b")).toBe(url);
  expect(urls.ownIdAt(location)).toBe(own);
});

test.for(["", ".", "..", "\ud800"])("the ID %j, which would reach another resource, is refused", (id) => {
  expect(() => urlsOf(baseUrl, anEntity()).item(id)).toThrow(
    expect.objectContaining({ certainty: "not-sent", disposition: "park" }),
  );
});

test("every other ID is one path segment that means exactly that ID", () => {
  const urls = urlsOf(baseUrl, anEntity());
  const ids = fc.string({ unit: "binary", minLength: 1 }).filter((id) => id !== "." && id !== "..");
  fc.assert(
    fc.property(ids, (id) => {
      const segments = new URL(urls.item(id), "http://crm.example").pathname.split("/");
      expect(segments).toHaveLength(5);
      expect(decodeURIComponent(segments[4]!)).toBe(id);
    }),
  );
});
