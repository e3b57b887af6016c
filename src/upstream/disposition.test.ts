import { describe, expect, test } from "vitest";

import { judge, type Operation } from "./disposition.ts";

const operations: Operation[] = ["create", "update", "delete", "read", "lookup"];

describe("what a status means, whatever the operation", () => {
  test.for([
    [300, "park", "ambiguous", false],
    [301, "retry", "refused", true],
    [302, "park", "ambiguous", false],
    [303, "park", "ambiguous", false],
    [307, "retry", "refused", true],
    [308, "retry", "refused", true],
    [400, "reject", "refused", false],
    [401, "retry", "refused", true],
    [402, "park", "refused", false],
    [403, "retry", "refused", true],
    [405, "park", "refused", false],
    [406, "park", "refused", false],
    [407, "retry", "refused", true],
    [408, "retry", "refused", false],
    [409, "conflict", "refused", false],
    [411, "park", "refused", false],
    [412, "conflict", "refused", false],
    [413, "reject", "refused", false],
    [414, "park", "refused", false],
    [415, "park", "refused", false],
    [418, "park", "refused", false],
    [422, "reject", "refused", false],
    [423, "park", "refused", false],
    [425, "retry", "refused", false],
    [428, "park", "refused", false],
    [429, "retry", "refused", false],
    [451, "park", "refused", false],
    [500, "retry", "ambiguous", false],
    [502, "retry", "ambiguous", false],
    [503, "retry", "ambiguous", false],
    [504, "retry", "ambiguous", false],
    [599, "retry", "ambiguous", false],
  ] as const)("%i: %s, %s, systemic %s", ([status, disposition, certainty, systemic]) => {
    for (const operation of operations) {
      expect(judge(status, operation)).toEqual({ disposition, certainty, systemic });
    }
  });
});

test.for([404, 410])("%i is a conflict for changes of a record, and unknown for anything else", (status) => {
  const verdicts = operations.map((operation) => judge(status, operation).disposition);
  expect(verdicts).toEqual(["park", "conflict", "conflict", "park", "park"]);
});

test("every status from 300 to 599 has a verdict for every operation", () => {
  for (let status = 300; status < 600; status++) {
    for (const operation of operations) {
      const { disposition, certainty, systemic } = judge(status, operation);
      expect(["retry", "conflict", "reject", "park"]).toContain(disposition);
      expect(certainty === "ambiguous").toBe(status >= 500 || (status < 400 && !systemic));
      expect(systemic && disposition !== "retry").toBe(false);
    }
  }
});

describe("the configuration knows its upstream better", () => {
  test("a configured status is not systemic", () => {
    expect(judge(403, "create", { 403: "reject" })).toEqual({
      disposition: "reject",
      certainty: "refused",
      systemic: false,
    });
  });

  test("a 5xx that is configured as retry means that nothing was done", () => {
    expect(judge(503, "create", { 503: "retry" }).certainty).toBe("refused");
    expect(judge(500, "create", { 503: "retry" }).certainty).toBe("ambiguous");
  });

  test("a 5xx that is configured as park stays ambiguous", () => {
    expect(judge(500, "create", { 500: "park" })).toMatchObject({
      disposition: "park",
      certainty: "ambiguous",
    });
  });
});
