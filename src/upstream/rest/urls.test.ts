import * as fc from "fast-check";
import { expect, test } from "vitest";

import { aRestUpstream, anEntity } from "../../../test/fixtures/upstream-config.ts";
import { urlsOf } from "./urls.ts";

const { baseUrl } = aRestUpstream("http://crm.example/api/v2/");

test("a base URL with a path prefix is kept", () => {
  const urls = urlsOf(baseUrl, anEntity({ path: "/activities", lookup: "{path}?externalRef={tempId}" }));
  expect(urls.collection).toBe("/api/v2/activities");
  expect(urls.item("4711")).toBe("/api/v2/activities/4711");
  expect(urls.search("urn:uuid:a&b")).toBe("/api/v2/activities?externalRef=urn%3Auuid%3Aa%26b");
});

test("a search may go elsewhere than the collection", () => {
  const urls = urlsOf("http://crm.example", anEntity({ lookup: "/search?q='{tempId}'&in={path}" }));
  expect(urls.search("urn:uuid:1")).toBe("/search?q=%27urn%3Auuid%3A1%27&in=/activities");
});

test("a path with other letters is percent-encoded", () => {
  expect(urlsOf("http://crm.example", anEntity({ path: "/møter" })).collection).toBe("/m%C3%B8ter");
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
