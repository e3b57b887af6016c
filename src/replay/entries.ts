import { decodeBlock, type LogEntry } from "../inbox/block.ts";
import type { PayloadCodec } from "../platform/payload-codec.ts";
import { openBlock, type Author } from "./blocks.ts";
import type { Claim } from "./claim.ts";
import { toFollowed, type FollowedEntry } from "./shadows/log.ts";

/** A place in the log with what ingest stored beside it. */
export type ClaimedEntry = (LogEntry & { author: Author }) | FollowedEntry;

/** What a claim has to replay, in order. @throws when a block can't be decoded; that is one lane's trouble. */
export function entriesOf(
  { tenantId, blocks, followed, position }: Claim,
  codec: PayloadCodec,
): ClaimedEntry[] {
  if (followed.length > 0) return toFollowed(followed, tenantId, codec);
  return blocks.flatMap((block) => {
    const { text, author } = openBlock(block, codec);
    return decodeBlock(text, position).map((entry) => ({ ...entry, author }));
  });
}
