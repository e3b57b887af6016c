import { randomUUID } from "node:crypto";

import { dropCursor, serverIdOf, viewOf, type LocalRecord } from "./local-records.ts";
import {
  becomeNewClient,
  enqueue,
  hasUnsent,
  nextBatch,
  prune,
  readAnothers,
  readOutbox,
  readUnsettled,
  rewind,
  takeAnew,
  takePage,
  takeReceipt,
  takeResults,
  type Queued,
} from "./outbox.ts";
import { openPhoneDb, readClient } from "./phone-db.ts";
import type { Change, Page, Problem, Receipt, Result } from "./protocol.ts";
import { readAnew, type Get } from "./resync.ts";

export interface PhoneOptions {
  /** The gateway, e.g. `https://sync.example.org`. */
  url: string;
  /** Asked before each request; an app refreshes its token here. */
  token: () => string;
  /** The SQLite file. One for each user of the device. */
  path: string;
}

export interface Phone {
  /** Queues a new record and returns its temp ID, which names it for ever. */
  create: (entity: string, data: Record<string, unknown>) => string;
  /** Queues a JSON Merge Patch. */
  update: (entity: string, recordId: string, data: Record<string, unknown>) => void;
  remove: (entity: string, recordId: string) => void;
  /** The records as the user sees them, own changes included. */
  view: (entity: string) => LocalRecord[];
  serverId: (tempId: string) => string;
  /** Every mutation that is still kept. */
  outbox: () => Queued[];
  /** Those of them without a final outcome. */
  unsettled: () => Queued[];
  hasUnsent: () => boolean;
  /**
   * Hands over the outbox, oldest first, batch by batch, and returns the last receipt with its HTTP status.
   * @param waitSeconds how long the gateway may wait for outcomes before it answers
   * @throws {TryLater} after 429 or 503, and without asking until `Retry-After` is over. Other errors: no answer came,
   * or the app has a mistake. The outbox keeps everything in each case; call again when there is network.
   */
  upload: (options?: { waitSeconds?: number }) => Promise<{ status: number; receipt: Receipt }>;
  /** Follows the feed from the cursor to its end, and returns what came. @param waitSeconds for a first change */
  pull: (options?: { waitSeconds?: number }) => Promise<Change[]>;
  /** Once a day, say: forgets mutations that were settled long enough ago. */
  tidy: () => Promise<void>;
  close: () => void;
}

/** The gateway has asked for a pause. */
export class TryLater extends Error {
  readonly afterMs: number;
  constructor(afterMs: number) {
    super(`the gateway asks to try again in ${Math.ceil(afterMs / 1000)} s`);
    this.afterMs = afterMs;
  }
}

const retryAfterDefaultSeconds = 5;
const batchMaxAtFirst = 500;

/** A phone's side of the protocol. Calls must not overlap: one batch at a time. */
export function openPhone({ url, token, path }: PhoneOptions): Phone {
  const db = openPhoneDb(path);
  let batchMax = batchMaxAtFirst;
  let quietUntil = 0;

  async function call(target: string, init: RequestInit, waitSeconds: number): Promise<Response> {
    if (Date.now() < quietUntil) throw new TryLater(quietUntil - Date.now());
    const response = await fetch(url + target, {
      ...init,
      headers: { authorization: `Bearer ${token()}`, ...(init.headers as Record<string, string>) },
      signal: AbortSignal.timeout((waitSeconds + 20) * 1000),
    });
    if (response.status !== 429 && response.status !== 503) return response;
    const afterMs = 1000 * (Number(response.headers.get("retry-after")) || retryAfterDefaultSeconds);
    quietUntil = Date.now() + afterMs;
    throw new TryLater(afterMs);
  }

  async function uploadOnce(waitSeconds: number): Promise<{ status: number; receipt?: Receipt }> {
    const batch = nextBatch(db, batchMax);
    const headers = { "content-type": "application/json", prefer: `wait=${waitSeconds}` };
    const init = { method: "POST", headers, body: JSON.stringify(batch) };
    const response = await call("/v1/batches", init, waitSeconds);
    if (response.ok) {
      const receipt = (await response.json()) as Receipt;
      takeReceipt(db, receipt);
      return { status: response.status, receipt };
    }
    const problem = (await response.json()) as Problem;
    if (problem.type.endsWith(":sequence-gap")) rewind(db, problem);
    else if (problem.type.endsWith(":sequence-reused")) becomeNewClient(db);
    else if (response.status === 413 && batch.mutations.length > 1) {
      batchMax = Math.ceil(batch.mutations.length / 2);
    } else throw new Error(`${response.status} ${problem.type}: ${problem.detail ?? problem.title}`);
    return { status: response.status };
  }

  async function upload({ waitSeconds = 10 } = {}): Promise<{ status: number; receipt: Receipt }> {
    for (;;) {
      const { status, receipt } = await uploadOnce(waitSeconds);
      if (receipt && !hasUnsent(db)) return { status, receipt };
    }
  }

  const get: Get = async <Answer>(target: string, query: Record<string, string>, waitSeconds = 0) => {
    const response = await call(`${target}?${new URLSearchParams(query).toString()}`, {}, waitSeconds);
    if (response.status === 410 || response.status === 404) return undefined;
    if (!response.ok) throw new Error(`${response.status} from ${target}`);
    return (await response.json()) as Answer;
  };

  async function pullAnew(): Promise<Change[]> {
    const firstSeq = readUnsettled(db)[0]?.seq;
    const anew = await readAnew(get, { clientId: readClient(db).client_id, firstSeq });
    takeAnew(db, anew);
    return [...anew.records.map((record) => ({ type: "upsert" as const, ...record })), ...anew.changes];
  }

  async function readResultsOfAnother(): Promise<Result[]> {
    const results: Result[] = [];
    for (const id of readAnothers(db)) {
      const result = await get<Result>(`/v1/mutations/${id}`, {});
      if (result) results.push(result);
    }
    return results;
  }

  /** What an outcome has changed is read after the outcome, and taken over before it: nothing is gone in between. */
  async function pull({ waitSeconds = 0 } = {}): Promise<Change[]> {
    const results = await readResultsOfAnother();
    const changes = await follow(waitSeconds);
    takeResults(db, results);
    return changes;
  }

  async function follow(waitSeconds: number): Promise<Change[]> {
    const changes: Change[] = [];
    for (let wait = waitSeconds; ; wait = 0) {
      const { client_id: clientId, cursor } = readClient(db);
      if (cursor === null) return [...changes, ...(await pullAnew())];
      const page = await get<Page>("/v1/changes", { clientId, cursor, wait: String(wait) }, wait);
      if (!page) {
        dropCursor(db);
        continue;
      }
      takePage(db, page);
      changes.push(...page.changes);
      if (!page.more) return changes;
    }
  }

  return {
    create(entity, data) {
      const recordId = `urn:uuid:${randomUUID()}`;
      enqueue(db, { entity, op: "create", recordId, data });
      return recordId;
    },
    update: (entity, recordId, data) => enqueue(db, { entity, op: "update", recordId, data }),
    remove: (entity, recordId) => enqueue(db, { entity, op: "delete", recordId }),
    view: (entity) => viewOf(db, entity, readUnsettled(db)),
    serverId: (tempId) => serverIdOf(db, tempId),
    outbox: () => readOutbox(db),
    unsettled: () => readUnsettled(db),
    hasUnsent: () => hasUnsent(db),
    upload,
    pull,
    async tidy() {
      const response = await call("/v1/capabilities", {}, 0);
      if (response.ok) prune(db, ((await response.json()) as { keepAckedDays: number }).keepAckedDays);
    },
    close: () => db.close(),
  };
}
