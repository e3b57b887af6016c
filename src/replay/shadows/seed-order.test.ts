import { expect, test } from "vitest";

import { anEntity, aRestUpstream } from "../../../test/fixtures/upstream-config.ts";
import { seedOrder } from "./seed-order.ts";

function ranksOf(references: Record<string, string[]>): Record<string, string> {
  const entities = Object.fromEntries(
    Object.entries(references).map(([name, others]) => [
      name,
      anEntity({ references: Object.fromEntries(others.map((other) => [`/${other}`, other])) }),
    ]),
  );
  const config = { ...aRestUpstream("http://127.0.0.1"), entities };
  return Object.fromEntries(
    seedOrder(config, config).map(({ entity, rank, inCircle }) => [
      entity,
      `${rank}${inCircle ? " circle" : ""}`,
    ]),
  );
}

test("entities come behind all that they refer to; who refers to itself, or in a circle, is told", () => {
  expect(ranksOf({ visit: ["activity", "mentor"], activity: ["mentor"], mentor: [] })).toEqual({
    mentor: "0",
    activity: "1",
    visit: "2",
  });
  expect(ranksOf({ mentor: ["mentor"], activity: ["mentor"] })).toEqual({
    mentor: "0 circle",
    activity: "1",
  });
  const circle = ranksOf({ a: ["b"], b: ["a"], c: ["a"] });
  expect(Object.values(circle).filter((rank) => rank.includes("circle"))).toHaveLength(1);
  expect(Number.parseInt(circle["c"] ?? "", 10)).toBeGreaterThan(Number.parseInt(circle["a"] ?? "", 10));
});
