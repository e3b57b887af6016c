import type { Change, Page, Result, ResultPage, ShownRecord, SnapshotPage } from "./protocol.ts";

/** All that a phone needs to begin anew, to be taken over in one piece. */
export interface Anew {
  records: ShownRecord[];
  results: Result[];
  /** What came after the snapshot began, to the feed's end: newer than `results`. */
  changes: Change[];
  cursor: string;
}

/** Asks the gateway; undefined after 410 and 404. */
export type Get = <Answer>(
  path: string,
  query: Record<string, string>,
  waitSeconds?: number,
) => Promise<Answer | undefined>;

const attemptsMax = 5;

/**
 * For a phone that has no cursor, or whose cursor is no longer honoured. The order matters:
 *
 * 1. the snapshot, to its end: the records as they stand. Some that change meanwhile are missing;
 * 2. the outcomes that the phone still waits for: those from before the snapshot are not told by the cursor;
 * 3. what has changed since the snapshot began, to the end: with it every record change that those outcomes caused.
 *
 * @param firstSeq the lowest position that has no final outcome; undefined when the phone waits for none
 */
export async function readAnew(
  get: Get,
  { clientId, firstSeq }: { clientId: string; firstSeq: number | undefined },
): Promise<Anew> {
  for (let attempt = 1; attempt <= attemptsMax; attempt++) {
    const snapshot = await readSnapshot(get, clientId);
    if (!snapshot) continue;
    const results = firstSeq === undefined ? [] : await readResults(get, clientId, firstSeq);
    const following = await readChanges(get, clientId, snapshot.cursor);
    if (following) return { records: snapshot.records, results, ...following };
  }
  throw new Error("the gateway honours no snapshot to its end");
}

async function readSnapshot(get: Get, clientId: string) {
  const records: ShownRecord[] = [];
  for (let page: string | undefined; ;) {
    const query = { clientId, ...(page !== undefined && { page }) };
    const answer = await get<SnapshotPage>("/v1/snapshot", query);
    if (!answer) return undefined;
    records.push(...answer.records);
    if (answer.cursor !== undefined) return { records, cursor: answer.cursor };
    page = answer.page;
  }
}

async function readResults(get: Get, clientId: string, firstSeq: number): Promise<Result[]> {
  const results: Result[] = [];
  for (;;) {
    const afterSeq = String(results.at(-1)?.seq ?? firstSeq - 1);
    const answer = await get<ResultPage>("/v1/mutations", { clientId, afterSeq });
    results.push(...(answer?.results ?? []));
    if (!answer?.more) return results;
  }
}

async function readChanges(get: Get, clientId: string, from: string) {
  const changes: Change[] = [];
  for (let cursor = from; ;) {
    const page = await get<Page>("/v1/changes", { clientId, cursor });
    if (!page) return undefined;
    changes.push(...page.changes);
    ({ cursor } = page);
    if (!page.more) return { changes, cursor };
  }
}
