import { describe, expect, test } from "vitest";

import { excerptOf, withoutValues } from "./redact.ts";

const excerpt = (text: string): string => excerptOf(Buffer.from(text));

describe("an excerpt of an answer", () => {
  test("keeps what is wrong and leaves out the record", () => {
    const answer = {
      error: { code: 4711, message: "minutes must not be above 1440" },
      errors: { minutes: ["is too large"], mentor: [{ reason: "is unknown", value: "Kari Nordmann" }] },
      activity: { mentor: "Kari Nordmann", minutes: 9999, note: null },
      name: "Ola",
    };
    expect(JSON.parse(excerpt(JSON.stringify(answer)))).toEqual({
      ...answer,
      errors: { ...answer.errors, mentor: [{ reason: "is unknown", value: "…" }] },
      activity: { mentor: "…", minutes: "…", note: null },
      name: "…",
    });
  });

  test("of a list of records shows none of them", () => {
    expect(excerpt('[{"name":"Kari"},"Ola",7]')).toBe('[{"name":"…"},"…","…"]');
  });

  test("keeps a plain text, but for addresses and long numbers", () => {
    expect(excerpt("no such person 010190 12345 (kari@example.org), call +47 900 00 000 by 2026-11-22")).toBe(
      "no such person … (…), call +… by …",
    );
    expect(excerpt("I'm a teapot")).toBe("I'm a teapot");
  });

  test("of JSON that was cut short shows no values", () => {
    expect(excerpt('{"name":"Kari \\"K\\" Nordmann","friends":["Ola","Si')).toBe(
      '{"name":"…","friends":["…","…"',
    );
  });

  test("is at most 500 characters", () => {
    expect(excerpt("x".repeat(9_000))).toBe("x".repeat(500));
    expect(excerpt(JSON.stringify({ message: "x".repeat(10_000) }))).toHaveLength(500);
  });
});

test("what the mutation had sent is taken out, where it stands by itself", () => {
  const data = JSON.stringify({
    name: "Kari Nordmann",
    minutes: 1441,
    note: { text: "a (b+c)" },
    n: 1,
    at: "x",
  });
  expect(withoutValues("1441 is above 1440: x, n 1; 'Kari Nordmann', a (b+c), 14411", data)).toBe(
    "… is above 1440: x, n 1; '…', …, 14411",
  );
});
