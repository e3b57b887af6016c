import { setTimeout as delay } from "node:timers/promises";

import type { Random } from "./random.ts";
import { tokenOf } from "./tokens.ts";

/** Somebody who follows the feed by its cursors for the whole run, through every fault. */
export interface Follower {
  /** What it holds of each record that is there, by entity and ID. */
  held: Map<string, { version: number; data: unknown }>;
  /** The outcomes that it was told, in order. */
  outcomes: { seq: number; id: string; status: string }[];
  /** Reads to the end of the feed and stops. */
  finish: () => Promise<void>;
}

type Change =
  | { type: "upsert"; entity: string; id: string; version: string; data: unknown }
  | { type: "delete" | "revoke"; entity: string; id: string }
  | { type: "outcome"; result: Outcome };

interface Outcome {
  seq: number;
  id: string;
  status: string;
  recordId?: string;
  version?: string;
}

interface FollowOptions {
  apiUrl: string;
  /** Whose outcomes are read; none without it. */
  client: { clientId: string; user: string } | undefined;
  random: Random;
  /** Which entity a mutation is about. */
  entityOf: (mutationId: string) => string | undefined;
  violation: (what: string) => void;
}

export function follow({ apiUrl, client, random, entityOf, violation }: FollowOptions): Follower {
  const token = tokenOf(client?.user ?? "reader");
  const held: Follower["held"] = new Map();
  const gone = new Set<string>();
  const seen = new Map<string, number>();
  const outcomes: Follower["outcomes"] = [];
  const told = new Map<string, string>();
  let cursor: string | undefined;
  let isFinishing = false;

  async function readPage(): Promise<"more" | "end" | "failed"> {
    const query = new URLSearchParams({
      limit: String(random.pick([1, 3, 20, 200])),
      wait: isFinishing ? "0" : "2",
      ...(client && { clientId: client.clientId }),
      ...(cursor !== undefined && { cursor }),
    });
    const response = await fetch(`${apiUrl}/v1/changes?${query.toString()}`, {
      headers: { authorization: `Bearer ${token}` },
      signal: AbortSignal.timeout(20_000),
    }).catch(() => undefined);
    const text = await response?.text().catch(() => undefined);
    if (response?.status !== 200 || text === undefined) {
      if (response && response.status < 500 && response.status !== 429 && text !== undefined)
        violation(`a follower was answered ${response.status}: ${text}`);
      return "failed";
    }
    const page = JSON.parse(text) as { changes: Change[]; cursor: string; more: boolean };
    for (const change of page.changes) take(change);
    cursor = page.cursor;
    return page.more ? "more" : "end";
  }

  function take(change: Change): void {
    if (change.type === "outcome") return takeOutcome(change.result);
    const key = `${change.entity}/${change.id}`;
    if (change.type !== "upsert") {
      held.delete(key);
      gone.add(key);
      return;
    }
    const version = Number(change.version);
    if (gone.has(key)) violation(`${key} was deleted and is there again, in version ${version}`);
    const before = seen.get(key) ?? 0;
    if (version < before) violation(`${key} went back from version ${before} to ${version}`);
    seen.set(key, version);
    held.set(key, { version, data: change.data });
  }

  function takeOutcome({ seq, id, status, recordId, version }: Outcome): void {
    const known = told.get(id);
    if (known !== undefined && known !== "parked") violation(`the outcome of ${id} was told twice`);
    const last = outcomes.at(-1)?.seq ?? 0;
    if (known === undefined && seq <= last) violation(`outcome ${seq} was told after ${last}`);
    told.set(id, status);
    outcomes.push({ seq, id, status });
    if (status !== "applied" || recordId === undefined || version === undefined) return;
    const key = `${entityOf(id)}/${recordId}`;
    if ((seen.get(key) ?? 0) < Number(version) && !gone.has(key))
      violation(`the outcome of ${id} was told before version ${version} of ${key}`);
  }

  async function run(): Promise<void> {
    for (;;) {
      // A page that was asked for before may have been read before the last commit.
      const isLast = isFinishing;
      const page = await readPage();
      if (page === "failed") await delay(100);
      if (page === "end" && isLast) return;
    }
  }

  const running = run();
  return {
    held,
    outcomes,
    async finish() {
      isFinishing = true;
      await running;
    },
  };
}
