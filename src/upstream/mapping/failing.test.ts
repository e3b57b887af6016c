import * as fc from "fast-check";
import { expect, test } from "vitest";

import { createFailingMappings } from "./failing.ts";

const place = "upstreams.crm.entities.activity.toUpstream";

test("a mapping that fails for three users, of as many records, is at fault until it takes something", () => {
  const failing = createFailingMappings();
  const fail = (n: number): boolean => failing.failed(place, { userId: `u${n}`, recordKey: `r${n}` });
  expect([1, 2, 3, 4].map(fail)).toEqual([false, false, true, true]);
  expect(failing.failed("another", { userId: "u5", recordKey: "r5" })).toBe(false);
  failing.took(place);
  expect([3, 4, 5].map(fail)).toEqual([false, false, true]);
});

test("whatever fails, neither one user nor one record makes it the mapping's fault", () => {
  const names = fc.array(fc.integer({ min: 0, max: 99 }).map(String), { maxLength: 50 });
  fc.assert(
    fc.property(names, (various) => {
      const failing = createFailingMappings();
      for (const name of various) {
        expect(failing.failed("of one user", { userId: "kari", recordKey: name })).toBe(false);
        expect(failing.failed("of one record", { userId: name, recordKey: "activity/1" })).toBe(false);
      }
    }),
  );
});
