import { expect, test } from "vitest";

import type { EntityConfig } from "../../platform/config/entity-schema.ts";
import { idInUrl, keyPredicate, type KeyType } from "./keys.ts";

const guid = "6f1e6f1e-0000-4000-8000-00000000000a";

test.each<[KeyType, string, string]>([
  ["string", "O'Neil", "('O''Neil')"],
  ["string", "a/b+c%?#&=;", "('a%2Fb%2Bc%25%3F%23%26%3D%3B')"],
  ["string", "')/$count?$filter=('", "(''')%2F%24count%3F%24filter%3D(''')"],
  ["number", "9223372036854775807", "(9223372036854775807)"],
  ["number", "-1.50", "(-1.50)"],
  ["guid", guid, `(${guid})`],
])("a %s key %s is written %s", (keyType, id, predicate) => {
  expect(keyPredicate(id, keyType).replaceAll("%27", "'")).toBe(predicate);
});

test.each<[KeyType, string]>([
  ["string", ""],
  ["string", "\ud800"],
  ["number", "07"],
  ["number", "+7"],
  ["number", "1e3"],
  ["number", "0x1"],
  ["number", "7)/Boss(1"],
  ["number", "７"],
  ["number", "7\n"],
  ["guid", `${guid}\n`],
  ["guid", `{${guid}}`],
  ["guid", "Id=1,Line=2"],
])("no %s key is %j", (keyType, id) => {
  expect(() => keyPredicate(id, keyType)).toThrow(`no ${keyType} key`);
});

test.each<[KeyType, string, string | undefined]>([
  ["string", "http://inside/odata/Activities('O''Neil')", "O'Neil"],
  ["string", "Activities('a%2Fb%20%27%27')", "a/b '"],
  ["string", "/odata/Activities('x/Activities(''7'')')", "x/Activities('7')"],
  ["string", "Activities(7)", undefined],
  ["string", "http://inside/odata/Activities/a%2Fb", "a/b"],
  ["string", "http://inside/odata/Activities/('a')", undefined],
  ["number", "Activities(Id=7)", "7"],
  ["number", "Mentors(7)", undefined],
  ["number", "Activities('9007199254740993')", "9007199254740993"],
  ["number", "Activities(Id=7,Line=1)", undefined],
  ["number", "Activities(7)/Mentor", undefined],
  ["number", "Activities/7", "7"],
  ["number", "Activities", undefined],
  ["guid", `https://h/odata/Activities(${guid})`, guid],
  ["guid", "Activities(%zz)", undefined],
])("the %s key in %s is %s", (keyType, url, id) => {
  expect(idInUrl(url, { path: "/v4/Activities", keyType } as EntityConfig)).toBe(id);
});
