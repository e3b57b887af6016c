import { describe, expect, test } from "vitest";

import { ownLater, sentBeforeRecovery } from "./recovery.ts";

const leaseMs = 6_000;
const recoveredAt = new Date("2026-03-10T12:00:00Z");
const at = (text: string): Date => new Date(`2026-${text}Z`);

function sent(occurredAt: Date | null, receivedAt: Date) {
  return sentBeforeRecovery({ mutation: { occurredAt }, author: { receivedAt } }, { recoveredAt }, leaseMs);
}

describe("what may have been sent before a recovery", () => {
  test("nothing, when there was none", () => {
    const entry = { mutation: { occurredAt: null }, author: { receivedAt: at("03-10T12:00:00") } };
    expect(sentBeforeRecovery(entry, { recoveredAt: undefined }, leaseMs)).toBeUndefined();
  });

  test.each([
    ["received before", null, at("03-09T12:00:00")],
    ["received within a day, whatever it says", at("03-11T11:00:00"), at("03-11T11:00:00")],
    ["occurred before, received months later", at("03-10T11:00:00"), at("08-01T00:00:00")],
    ["occurred before by a clock that is a day ahead", at("03-11T11:59:00"), at("08-01T00:00:00")],
    ["a time that had not come when it was received", at("12-01T00:00:00"), at("03-20T00:00:00")],
  ])("%s", (_what, occurredAt, receivedAt) => {
    expect(sent(occurredAt, receivedAt)).toBeDefined();
  });

  test.each([
    ["occurred later than a day after", at("03-11T12:01:00"), at("03-11T12:02:00")],
    ["without a time, received later than a day after", null, at("03-11T12:01:00")],
    [
      "a time that had not come, when no phone keeps anything from then",
      at("12-01T00:00:00"),
      at("07-01T00:00:00"),
    ],
  ])("not: %s", (_what, occurredAt, receivedAt) => {
    expect(sent(occurredAt, receivedAt)).toBeUndefined();
  });

  test("between when it occurred, if that is known, and the end of the last lease that was not given back", () => {
    const until = new Date(recoveredAt.getTime() + leaseMs);
    expect(sent(at("03-10T11:00:00"), at("04-01T00:00:00"))).toEqual({ from: at("03-10T11:00:00"), until });
    expect(sent(at("03-10T13:00:00"), at("03-10T13:00:00"))).toEqual({ from: recoveredAt, until });
    expect(sent(null, at("03-10T11:00:00"))).toEqual({ from: new Date(0), until });
  });
});

const update = (seq: number, recordId: string, data: string, op = "update") => ({
  mutation: { seq, id: "", entity: "activity", op, recordId, data },
});

test("what later updates of the same record in the log made of it may be found, one after the other", () => {
  const entries = [
    update(1, "a", '{"minutes":1}'),
    update(2, "a", '{"minutes":2}'),
    update(3, "b", '{"minutes":9}'),
    update(4, "a", '{"note":"x"}'),
    update(5, "a", "{}", "delete"),
    { rejected: { seq: 6, id: "" } },
  ];
  type Arguments = Parameters<typeof ownLater>;
  const own = { ...update(1, "a", ""), data: '{"minutes":1}', config: {} };
  const later = ownLater({ entries } as unknown as Arguments[0], own as unknown as Arguments[1]);
  expect(later.map((text) => JSON.parse(text))).toEqual([{ minutes: 2 }, { minutes: 2, note: "x" }]);
});
