import { sql, type Kysely } from "kysely";
import type { Logger } from "pino";

import type { Database } from "./schema.ts";

/** The channel of Postgres' NOTIFY on which hints travel between processes. */
export const hintChannel = "tidegate_hints";

/** What is announced closely together leaves in one statement. */
const gatherMs = 20;
/** Postgres takes payloads of less than 8000 bytes. */
const payloadBytesMax = 7_900;

/** Sends hints to the other processes. Best effort, never awaited. */
export interface HintSender {
  send(keys: Iterable<string>): void;
  /** Sends what is left, and waits until it has gone out, or could not. */
  close(): Promise<void>;
}

/** What a notification says: who sent it, and the keys. */
export function readNotification(payload: string): { from: string; keys: string[] } {
  const [from = "", ...keys] = payload.split(",");
  return { from, keys };
}

/**
 * Sends hints as notifications, outside of the writes that they speak of: a NOTIFY in a transaction makes its commit wait
 * for every other one that has one. Those that come while a statement is under way, or shortly after one, go together.
 *
 * @param from names this process, whose own notifications it passes over.
 */
export function createHintSender(
  db: Kysely<Database>,
  { from, log }: { from: string; log: Logger },
): HintSender {
  let waiting = new Set<string>();
  let sentAt = -Infinity;
  let sending: Promise<void> | undefined;

  async function sendAll(): Promise<void> {
    while (waiting.size > 0) {
      const pauseMs = sentAt + gatherMs - performance.now();
      if (pauseMs > 0) await new Promise((resolve) => void setTimeout(resolve, pauseMs));
      // What is announced in one turn of the event loop belongs together.
      else await new Promise((resolve) => void setImmediate(resolve));
      const payloads = toPayloads(from, waiting);
      waiting = new Set();
      sentAt = performance.now();
      await notify(payloads);
    }
    sending = undefined;
  }

  async function notify(payloads: string[]): Promise<void> {
    try {
      await sql`select pg_notify(${hintChannel}, payload) from unnest(${payloads}::text[]) as p (payload)`.execute(
        db,
      );
    } catch (error) {
      log.warn({ err: error }, "other processes could not be told of changes; they look for themselves");
    }
  }

  return {
    send(keys) {
      for (const key of keys) waiting.add(key);
      if (waiting.size > 0) sending ??= sendAll();
    },
    async close() {
      await sending;
    },
  };
}

function toPayloads(from: string, keys: Iterable<string>): string[] {
  const payloads: string[] = [];
  let payload = from;
  for (const key of keys) {
    if (payload.length + 1 + key.length > payloadBytesMax) {
      payloads.push(payload);
      payload = from;
    }
    payload += `,${key}`;
  }
  return [...payloads, payload];
}
