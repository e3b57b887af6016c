import { expect, test } from "vitest";

import { anEntity } from "../../test/fixtures/upstream-config.ts";
import { TidegateError } from "../platform/errors.ts";
import { judgeBatch } from "./batch.ts";
import type { BatchEnvelope } from "./envelope.ts";

const limits = { mutations: 3, bodyBytes: 10_000, mutationBytes: 1_000, depth: 4, keepAckedDays: 35 };
const context = { entities: { activity: anEntity() }, limits, fingerprintSecrets: ["secret"] };
const mutation = (seq: number): string =>
  `{ "seq":${seq}, "id":"0192f0c2-0000-7000-8000-00000000000${seq % 10}", "entity":"activity", "op":"update", "recordId":"1", "data":{"n":${seq}.0} }`;
const judge = (text: string) => judgeBatch(context, JSON.parse(text) as BatchEnvelope, text);
const batch = (seqs: number[], rest = ""): string =>
  `{"clientId":"c","previousSeq":0${rest},"mutations":[${seqs.map(mutation).join(" ,\n")}]}`;
const codeOf = (text: string): string => {
  try {
    judge(text);
    return "fit";
  } catch (error) {
    return error instanceof TidegateError ? error.code : "broken";
  }
};

test("each mutation is judged on its own text, in the batch's order", () => {
  expect(judge(batch([1, 5, 6])).map(({ verdict }) => verdict)).toMatchObject(
    [1, 5, 6].map((seq) => ({ text: mutation(seq) })),
  );
});

test("of repeated members the last counts, as it does for the parser", () => {
  const text = batch([1]).replace("{", `{"mutations":[${mutation(8)},${mutation(9)}],`);
  expect(judge(text)).toMatchObject([{ seq: 1, verdict: { text: mutation(1) } }]);
  const escaped = batch([1]).replace('"mutations"', String.raw`"\u006dutations"`);
  expect(judge(escaped)).toMatchObject([{ seq: 1, verdict: { text: mutation(1) } }]);
});

test("seqs ascend, with any gaps", () => {
  expect([[], [1], [7, 9, 4_000]].map((seqs) => codeOf(batch(seqs)))).toEqual(["fit", "fit", "fit"]);
  expect(
    [
      [1, 1],
      [2, 1],
      [5, 9, 6],
    ].map((seqs) => codeOf(batch(seqs))),
  ).toEqual(Array(3).fill("invalid-request"));
});

test("what is lost lies before what is sent", () => {
  expect(codeOf(batch([5], ',"lostThrough":4'))).toBe("fit");
  expect(codeOf(batch([5], ',"lostThrough":5'))).toBe("invalid-request");
  expect(codeOf(batch([], ',"lostThrough":5'))).toBe("fit");
});

test("more mutations than the limit fail the batch, which tells the limits", () => {
  expect(codeOf(batch([1, 2, 3]))).toBe("fit");
  expect(() => judge(batch([1, 2, 3, 4]))).toThrow(
    expect.objectContaining({ code: "request-too-large", extensions: { limits } }),
  );
});
