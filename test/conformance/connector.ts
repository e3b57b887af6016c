import { describe } from "vitest";

import { describeChanges } from "./changes.ts";
import { describeFailures } from "./failures.ts";
import type { Kind } from "./kind.ts";
import { describeReads } from "./reads.ts";
import { describeRepeats } from "./repeats.ts";
import { describeText } from "./text.ts";

/**
 * What every connector has to keep to, tried against its own kind of server: call it in a test file.
 *
 *     describeConnector("our billing system", { entity: "invoice", can: { … }, start: async (options) => … });
 *
 * What has to be known of the server, and done with it, is in `kind.ts`.
 */
export function describeConnector(name: string, kind: Kind): void {
  describe(`the connector of ${name}`, () => {
    describeChanges(kind);
    describeText(kind);
    describeRepeats(kind);
    describeReads(kind);
    describeFailures(kind);
  });
}
