import fc from "fast-check";
import { expect, test } from "vitest";

import { TidegateError } from "../platform/errors.ts";
import { readCursor, signCursor, type CursorClaims } from "./cursor.ts";

const claims: CursorClaims = { tenantId: "hlf", clientId: "c", scopes: ["org", "user:1"], epoch: "e" };
const expired = (secrets: string[], read: CursorClaims, cursor: string): unknown => {
  try {
    return readCursor(secrets, read, cursor);
  } catch (error) {
    return error instanceof TidegateError ? error.code : error;
  }
};

test("a cursor gives its position back, under the newest secret and under the one before", () => {
  for (const position of [0, 1, Number.MAX_SAFE_INTEGER]) {
    const cursor = signCursor(["b", "a"], claims, position);
    for (const secrets of [["b"], ["c", "b"]]) {
      expect(readCursor(secrets, claims, cursor)).toEqual({ position, begunAt: position, untoldTo: 0 });
    }
  }
});

test("one of a reader who began at the feed's beginning says where the head was, until the reader is there", () => {
  const cursor = signCursor(["a"], claims, 7, { begunAt: 9 });
  expect(readCursor(["a"], claims, cursor)).toEqual({ position: 7, begunAt: 9, untoldTo: 0 });
  for (const begunAt of [6, 7]) {
    expect(signCursor(["a"], claims, 7, { begunAt })).toBe(signCursor(["a"], claims, 7));
  }
});

test("one of a reader who was not told all outcomes says up to where", () => {
  const cursor = signCursor(["a"], claims, 7, { untoldTo: 5 });
  expect(readCursor(["a"], claims, cursor)).toEqual({ position: 7, begunAt: 7, untoldTo: 5 });
});

test("it is honoured for nobody else", () => {
  const cursor = signCursor(["a"], claims, 7);
  const others: Partial<CursorClaims>[] = [
    { tenantId: "two" },
    { clientId: undefined },
    { clientId: "d" },
    { scopes: ["org"] },
    { scopes: ["org", "user:1", "user:2"] },
    { scopes: ["org,user:1"] },
    { epoch: "f" },
  ];
  for (const other of others) expect(expired(["a"], { ...claims, ...other }, cursor)).toBe("cursor-expired");
  expect(expired(["b"], claims, cursor)).toBe("cursor-expired");
  expect(expired([], claims, cursor)).toBe("cursor-expired");
});

/** Any UTF-16, half characters too. */
const anyText = (size: { minLength?: number; maxLength?: number } = {}) =>
  fc.array(fc.nat(0xffff), size).map((codes) => String.fromCharCode(...codes));

test("nobody but the gateway makes one: any text ends as expired", () => {
  const cursor = signCursor(["a"], claims, 7);
  fc.assert(
    fc.property(
      fc.oneof(
        anyText(),
        fc
          .tuple(fc.nat(cursor.length), fc.string({ minLength: 1 }))
          .map(([at, text]) => cursor.slice(0, at) + text + cursor.slice(at)),
        anyText({ minLength: 22, maxLength: 22 }).map((signature) => `${cursor.split(".")[0]}.${signature}`),
      ),
      (text) => {
        expect(expired(["a"], claims, text)).toBe("cursor-expired");
      },
    ),
  );
});

test("it fits into URLs and headers, and tells neither user nor scopes", () => {
  const cursor = signCursor(["a"], claims, 7);
  expect(cursor).toMatch(/^[\w-]+\.[\w-]+$/);
  expect(Buffer.from(cursor.split(".")[0]!, "base64url").toString()).not.toContain("user:1");
});
