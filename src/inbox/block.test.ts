import { expect, test } from "vitest";

import { decodeBlock, encodeBlock } from "./block.ts";

const id = "0192f0c2-0000-7000-8000-00000000000A";
const problem = { code: "invalid-mutation", detail: "data must be an object." };
const accepted = (seq: number, members: string): { text: string } => ({
  text: `{"seq":${seq},"id":"${id}","entity":"activity","op":"update","recordId":"1",${members}}`,
});

test("what was accepted comes out with the text of its data, and what was rejected as a mark", () => {
  const data = String.raw`{ "b":1e400, "a":"\ud800", "10":9007199254740993 }`;
  const text = encodeBlock([
    accepted(1, `"data": ${data} ,"base":{"x":[1, 2]},"baseVersion":"3","dependsOn":["${id}"]`),
    { rejected: { seq: 2, id, problem } },
  ]);
  expect(text).not.toContain(problem.detail);
  const lower = id.toLowerCase();
  expect(decodeBlock(text, 0)).toEqual([
    {
      mutation: {
        seq: 1,
        id: lower,
        entity: "activity",
        op: "update",
        recordId: "1",
        baseVersion: "3",
        base: '{"x":[1, 2]}',
        data,
        dependsOn: [lower],
        occurredAt: null,
      },
    },
    { rejected: { seq: 2, id: lower } },
  ]);
});

test("what the lane has passed is left out", () => {
  const text = encodeBlock([5, 9, 2 ** 53 - 1].map((seq) => accepted(seq, '"data":{}')));
  const seqs = (position: number): number[] =>
    decodeBlock(text, position).map((entry) => ("mutation" in entry ? entry.mutation.seq : 0));
  expect([seqs(0), seqs(5), seqs(6), seqs(9), seqs(2 ** 53 - 1)]).toEqual([
    [5, 9, 2 ** 53 - 1],
    [9, 2 ** 53 - 1],
    [9, 2 ** 53 - 1],
    [2 ** 53 - 1],
    [],
  ]);
});

test("members that are null or absent come out alike; of repeated ones the last counts", () => {
  const [given] = decodeBlock(
    encodeBlock([
      accepted(1, '"data":{"a":1},"data":{"a":2},"base":null,"baseVersion":null,"dependsOn":null'),
    ]),
    0,
  );
  const [absent] = decodeBlock(encodeBlock([accepted(1, '"data":{"a":2}')]), 0);
  expect(given).toEqual(absent);
  expect(given).toMatchObject({
    mutation: { data: '{"a":2}', base: undefined, baseVersion: null, dependsOn: [] },
  });
});
