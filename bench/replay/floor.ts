import { answerParent } from "../child.ts";
import type { Phone } from "../phones.ts";
import { openCalls } from "./calls.ts";

export interface FloorRequest {
  upstreamUrl: string;
  concurrency: number;
  phones: Phone[];
}

/** The floor of replay: each phone's calls one after the other, so many phones at a time; nothing is written down. */
answerParent(async ({ upstreamUrl, concurrency, phones }: FloorRequest): Promise<null> => {
  const calls = openCalls(upstreamUrl, concurrency);
  const waiting = [...phones];
  const replayPhones = async (): Promise<void> => {
    for (let phone = waiting.pop(); phone; phone = waiting.pop()) {
      const ids = new Map<string, string>();
      for (const mutation of phone.batches.flatMap(({ mutations }) => mutations)) {
        ids.set(mutation.recordId, await calls.send(mutation, ids.get(mutation.recordId)));
      }
    }
  };
  await Promise.all(Array.from({ length: concurrency }, replayPhones));
  return null;
});
