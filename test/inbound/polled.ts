import { crm } from "../fixtures/crm.ts";

/** A primary whose own changes are fetched: what has changed every 100 ms, everything every `sweepEveryMs`. */
export function polled(
  baseUrl: string,
  { poll, entity, upstream }: { poll?: object; entity?: object; upstream?: object } = {},
): object {
  return crm(baseUrl, {
    upstream: { poll: { everyMs: 100, overlapMs: 1_000, ...poll }, ...upstream },
    entity: {
      list: { since: "since", page: "page", size: "size", updatedAt: "/updatedAt" },
      ...entity,
    },
  });
}

/** What the scripted system needs for it. */
export const stamps = { updatedAt: { field: "updatedAt", clock: () => new Date() }, pages: {} };
