import { describe, expect, test } from "vitest";

import { anEntity } from "../../test/fixtures/upstream-config.ts";
import { contentReader } from "../inbox/fingerprint.ts";
import { judgeMutation, type JudgeContext } from "./judge.ts";

const id = "0192F0C2-0000-7000-8000-00000000000A";
const temp = "urn:uuid:6F1E0000-0000-4000-8000-00000000000A";
const entities = {
  activity: anEntity(),
  visit: anEntity({ create: { method: "PUT", class: "client-id", enabled: true } }),
  report: anEntity({ update: { method: "PATCH", class: "opaque", enabled: false } }),
};
const context: JudgeContext = {
  entities,
  limits: { mutationBytes: 1_000, depth: 4 },
  fingerprintSecrets: ["new", "old"],
};

function judge(members: object, text?: string) {
  const envelope = { seq: 7, id, entity: "activity", op: "create", recordId: temp, data: {}, ...members };
  const sent = text ?? JSON.stringify(envelope);
  const { canonical: content } = contentReader(sent, context.limits.depth + 1)(0);
  return judgeMutation(context, envelope, { text: sent, content });
}
const codeOf = (members: object): string => {
  const { verdict } = judge(members);
  return "rejected" in verdict ? verdict.rejected.code : "fit";
};

test("a fit mutation keeps its text, and its identifiers come out in lower case", () => {
  const text = `{ "seq":7, "id":"${id}", "entity":"activity", "op":"create", "recordId":"${temp}", "data":{} }`;
  expect(judge({}, text)).toMatchObject({
    seq: 7,
    id: id.toLowerCase(),
    entity: "activity",
    verdict: { text, tempId: temp.slice("urn:uuid:".length).toLowerCase() },
  });
});

test("only a create gives a temp ID", () => {
  expect(judge({ op: "update" }).verdict).toMatchObject({ tempId: undefined });
  expect(judge({ op: "delete" }).verdict).toMatchObject({ tempId: undefined });
});

test("a server ID can be chosen where the upstream takes the client's", () => {
  expect(codeOf({ entity: "visit", recordId: "2026/7" })).toBe("fit");
  expect(codeOf({ recordId: "2026/7" })).toBe("invalid-mutation");
});

test("an operation that is switched off is as unknown as an entity that is not there", () => {
  expect([codeOf({ entity: "report" }), codeOf({ entity: "report", op: "update" })]).toEqual([
    "fit",
    "unknown-entity",
  ]);
  expect(codeOf({ entity: "hasOwnProperty" })).toBe("unknown-entity");
});

/** A create of this many bytes. */
const sized = (bytes: number, letter = "x"): object => {
  const empty = JSON.stringify({
    seq: 7,
    id,
    entity: "activity",
    op: "create",
    recordId: temp,
    data: { a: "" },
  });
  return { data: { a: letter.repeat((bytes - empty.length) / Buffer.byteLength(letter)) } };
};
const prints = (data: object): string[] => judge({ data }).fingerprints;

describe("size", () => {
  test("is counted in bytes, up to and including the limit", () => {
    expect([codeOf(sized(1_000)), codeOf(sized(1_001))]).toEqual(["fit", "mutation-too-large"]);
    expect([codeOf(sized(1_000, "é")), codeOf(sized(1_004, "é"))]).toEqual(["fit", "mutation-too-large"]);
  });

  test("of nesting is that of data and base, up to and including the limit", () => {
    const nested = [{}, { a: [{ b: {} }] }, { a: [{ b: [1, {}] }] }];
    expect(nested.map((data) => codeOf({ data }))).toEqual(["fit", "fit", "mutation-too-large"]);
    expect(codeOf({ base: nested[2] })).toBe("mutation-too-large");
    expect(codeOf({ data: { a: "[[[[[[[[[[" } })).toBe("fit");
  });

  test("does not keep a mutation from being recognised, nor from being told from another", () => {
    const large = { a: "x".repeat(2_000) };
    expect(prints(large)).toEqual(prints(large));
    expect(prints(large)).toHaveLength(2);
    expect(prints({ a: "y".repeat(2_000) })).not.toEqual(prints(large));
  });
});

test("a rejection tells the field and never what was in it", () => {
  for (const members of [
    { recordId: "secret\0" },
    { op: "secret" },
    { entity: "secret" },
    { baseVersion: "secret" },
  ]) {
    expect(JSON.stringify(judge({ ...members, data: { a: "secret" } }).verdict)).not.toContain("secret");
  }
});
