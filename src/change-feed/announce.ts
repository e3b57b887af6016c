import type { HintSender } from "../platform/hint-sender.ts";
import type { Hints } from "../platform/hints.ts";
import { hintKey, tenantHintKey } from "./audience.ts";

/**
 * Tells the readers of these audiences, in this process and the others, that the feed has something for them. Whoever
 * writes to the feed calls it after the commit, with what `takePositions` has resolved with. It never fails and is not
 * awaited: a word that gets lost costs the readers the time until they look for themselves.
 */
export type Announce = (tenantId: string, audiences: Iterable<string>) => void;

/** With more audiences at once, everybody in the tenant is told: that costs them a look, and the channel little. */
const audiencesMax = 200;

export function createAnnounce(hints: Hints, sender: HintSender): Announce {
  return (tenantId, audiences) => {
    const told = new Set(audiences);
    const keys =
      told.size > audiencesMax
        ? [tenantHintKey(tenantId)]
        : Array.from(told, (audience) => hintKey(tenantId, audience));
    hints.give(keys);
    sender.send(keys);
  };
}
