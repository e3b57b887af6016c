import { expect, test } from "vitest";

import { anEntity } from "../../test/fixtures/upstream-config.ts";
import { recordsIn, referencesIn, substitute } from "./references.ts";

const [kari, ola] = ["6f1e0000-0000-4000-8000-00000000000a", "6f1e0000-0000-4000-8000-00000000000b"];
const temp = (uuid: string): string => `urn:uuid:${uuid}`;
const anywhere = anEntity();
const declared = anEntity({ references: { "/mentor": "mentor", "/visit/hosts": "mentor" } });

test("a reference is a string value that is exactly a temp ID, in any case of its letters", () => {
  const found = [`"${temp(kari)}"`, `"urn:uuid:${ola.toUpperCase()}"`, String.raw`"\u0075rn:uuid:${kari}"`];
  expect(referencesIn(`{"a":[${found.join()}],"b":{"c":"${temp(kari)}"}}`, anywhere)).toEqual([kari, ola]);
  const none = [
    ` ${temp(kari)}`,
    `${temp(kari)} `,
    `see ${temp(kari)}`,
    kari,
    "urn:uuid:",
    `${temp(kari)}0`,
    `URN:uuid:x`,
  ];
  expect(referencesIn(JSON.stringify({ none, [temp(kari)]: 1 }), anywhere)).toEqual([]);
  expect(referencesIn(undefined, anywhere)).toEqual([]);
});

test("where fields are declared, only they hold references, alone or in a list", () => {
  const data = JSON.stringify({ mentor: temp(kari), visit: { hosts: [temp(ola), "4711"] }, note: temp(ola) });
  expect(referencesIn(data, declared)).toEqual([kari, ola]);
  expect(referencesIn(JSON.stringify({ a: { mentor: temp(kari) }, note: temp(ola) }), declared)).toEqual([]);
  expect(referencesIn(JSON.stringify({ mentor: { id: temp(kari) } }), declared)).toEqual([]);
});

test("what is substituted is the reference alone; every other byte stays as it was", () => {
  const data = String.raw`{ "n":9007199254740993, "mentor" : "${temp(kari)}", "x":"\ud800", "note":"${temp(kari)}", "visit":{"hosts":["${temp(ola)}","7"]} }`;
  const ids = new Map([[kari, 'a"b']]);
  expect(substitute(data, declared, ids)).toBe(
    data.replace(`"mentor" : "${temp(kari)}"`, String.raw`"mentor" : "a\"b"`),
  );
  expect(substitute(data, declared, new Map())).toBe(data);
});

test("server IDs in declared fields name records, and temp IDs do not", () => {
  const data = `{"mentor":"4711","visit":{"hosts":["${temp(ola)}",9007199254740993,null,"8"]},"note":"9"}`;
  expect(recordsIn(data, declared)).toEqual([
    { entity: "mentor", serverId: "4711" },
    { entity: "mentor", serverId: "9007199254740993" },
    { entity: "mentor", serverId: "8" },
  ]);
  expect(recordsIn(data, anywhere)).toEqual([]);
});
