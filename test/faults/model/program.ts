import fc from "fast-check";

import { classes } from "../../fixtures/capability-classes.ts";
import { callFaults, type CallFault, type Deed } from "./oracle.ts";

const faults: fc.Arbitrary<CallFault[]> = fc.oneof(
  { weight: 6, arbitrary: fc.constant<CallFault[]>([]) },
  {
    weight: 6,
    arbitrary: fc.array(fc.constantFrom<CallFault>(...callFaults), { minLength: 1, maxLength: 2 }),
  },
  { weight: 1, arbitrary: fc.constant<CallFault[]>(["422"]) },
);

/** Numbers of records, reduced later to those that there are: so a program stays one when it is shrunk. */
const draft = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({
      op: fc.constant("create" as const),
      entity: fc.constantFrom(...classes),
      record: fc.nat(11),
      refers: fc.boolean(),
      faults,
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      op: fc.constant("update" as const),
      entity: fc.constantFrom(...classes),
      record: fc.nat(11),
      refers: fc.boolean(),
      faults,
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      op: fc.constant("delete" as const),
      entity: fc.constantFrom(...classes),
      record: fc.nat(11),
      refers: fc.constant(false),
      faults,
    }),
  },
);

/** What one phone does. */
export const phoneProgram: fc.Arbitrary<Deed[]> = fc
  .array(draft, { minLength: 1, maxLength: 14 })
  .map((drafts) => {
    let records = 0;
    const deleted = new Set<number>();
    return drafts.flatMap(({ op, entity, record, refers, faults: list }): Deed[] => {
      const index = records === 0 ? undefined : record % records;
      const refersTo = refers ? index : undefined;
      if (op === "create") {
        records++;
        return [{ op, entity, refersTo, faults: list }];
      }
      if (index === undefined) return [];
      if (op === "delete") {
        // A record's deletes look alike to whoever scripts the faults, so all of them are the first one's.
        const isFirst = !deleted.has(index);
        deleted.add(index);
        return [{ op, record: index, faults: isFirst ? list : [] }];
      }
      // A record that refers to itself says nothing new.
      return [{ op, record: index, refersTo: refers ? (record * 7) % records : undefined, faults: list }];
    });
  });
