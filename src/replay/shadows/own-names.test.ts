import { describe, expect, test } from "vitest";

import { anEntity } from "../../../test/fixtures/upstream-config.ts";
import { withoutNames, withoutOwnFields, withOwnNames } from "./own-names.ts";

const mentor = (serverId: string) => ({ entity: "mentor", serverId });
const tempId = "urn:uuid:6f1e0000-0000-4000-8000-000000000001";
const names = {
  records: new Map([[tempId.slice(9), mentor("4711")]]),
  ownIds: new Map([
    ["mentor/4711", "a"],
    ["mentor/9007199254740993", "900"],
  ]),
};
const referring = anEntity({ references: { "/mentor": "mentor", "/team/all": "mentor" } });

describe("a shadow's own IDs stand", () => {
  const cases: [what: string, text: string, expected: string][] = [
    ["for a temp ID", `{"mentor":"${tempId}"}`, '{"mentor":"a"}'],
    ["for a server ID", '{"mentor": "4711" }', '{"mentor": "a" }'],
    ["as a number for a number, of any size", '{"mentor":9007199254740993}', '{"mentor":900}'],
    ["as text for a number, if it is none", '{"mentor":4711}', '{"mentor":"a"}'],
    ["in lists", `{"team":{"all":["4711","${tempId}","x"]}}`, '{"team":{"all":["a","a","x"]}}'],
    ["not for what the shadow does not have", '{"mentor":"12"}', '{"mentor":"12"}'],
    ["not in other fields", `{"note":"4711","other":"${tempId}"}`, `{"note":"4711","other":"${tempId}"}`],
    ["not for null", '{"mentor":null,"n":1.0}', '{"mentor":null,"n":1.0}'],
  ];
  test.each(cases)("%s", (_, text, expected) => {
    expect(withOwnNames(text, referring, names)).toBe(expected);
  });

  test("for temp IDs anywhere when no fields are declared", () => {
    expect(withOwnNames(`{"x":[{"y":"${tempId}"}],"mentor":"4711"}`, anEntity(), names)).toBe(
      '{"x":[{"y":"a"}],"mentor":"4711"}',
    );
  });
});

test("references that have to be left out are, also out of lists", () => {
  const left = new Set(["mentor/7"]);
  expect(JSON.parse(withoutNames('{"mentor":7,"team":{"all":["8","7"]},"n":7}', referring, left))).toEqual({
    team: { all: ["8"] },
    n: 7,
  });
});

test("the primary's own fields are left out, unless a mapping shapes its records", () => {
  const primary = anEntity({ version: { pointer: "/meta/version" }, reference: "/ref" });
  const record = '{"id":1,"meta":{"version":2,"by":"x"},"ref":"r","note":null}';
  expect(JSON.parse(withoutOwnFields(record, primary))).toEqual({ meta: { by: "x" }, note: null });
  expect(withoutOwnFields('{"minutes":1}', primary)).toBe('{"minutes":1}');
  expect(withoutOwnFields(record, { ...primary, fromUpstream: "$.x" })).toBe(record);
});
