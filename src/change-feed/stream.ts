import type { ServerResponse } from "node:http";

import { toProblem } from "../http/problem.ts";
import { createBell } from "../platform/bell.ts";
import { TidegateError } from "../platform/errors.ts";
import { changeJson, commentText, eventText } from "./event-text.ts";
import { placeAfter, type Follower, type Place } from "./pull.ts";
import type { ChangePage } from "./read.ts";

/** Why a stream ended. All but the first two are told to the reader, in an `end` event. */
export type StreamEnd =
  | "client"
  | "failed"
  | "slow-reader"
  | "token-expired"
  | "stopping"
  | "replaced"
  | "cursor-expired"
  | "client-owned";

/**
 * One reader's event stream. It is in one of four states:
 *
 * - reading: a page is being read; nothing of an earlier one is held;
 * - full: what was written is more than the connection takes at the moment. Nothing is read until it has drained;
 * - waiting: everything was written. A wake leads back to reading;
 * - ended.
 *
 * So it holds no more than `textMax`, one change and its outcome, and what was not written is read again.
 */
export interface Stream {
  follower: Follower;
  place: () => Place;
  wake: () => void;
  /** Writes the first page, then follows until the stream has ended. Never rejects. */
  run: (first: ChangePage) => Promise<void>;
  /** Since when the connection has not taken all of the last write, on the monotonic clock. */
  fullSinceMs: () => number | undefined;
  /** Sends a comment if nothing was sent since `ms`. */
  keepAlive: (ms: number) => void;
  end: (reason: StreamEnd, error?: TidegateError) => void;
}

export interface StreamOptions {
  follower: Follower;
  place: Place;
  /** Only cursors are sent. */
  isHint: boolean;
  raw: ServerResponse;
  readNext: (at: { place: Place; limit: number; isBehind: boolean }) => Promise<ChangePage>;
  signAt: (place: ReturnType<typeof placeAfter>) => string;
  /** Called with what is about to be told. */
  onTell: (page: Pick<ChangePage, "changes" | "position" | "head">) => void;
  onError: (error: unknown) => void;
  onEnd: (reason: StreamEnd) => void;
}

/** A reader who takes nothing at the end has so long to come back and read why. */
const lingerMs = 5_000;
/** Of one write. */
const textMax = 64 * 1024;
const limitMax = 500;

/** How many changes are read at first; then as many as are written at once. */
export function firstLimit({ isHint }: { isHint: boolean }): number {
  return isHint ? 1 : 50;
}

/** A page as text, as far as it fits: up to which position, and how many of its changes. */
interface Written {
  text: string;
  position: number;
  count: number;
}

export function createStream(options: StreamOptions): Stream {
  const { follower, raw, isHint, readNext, signAt, onTell, onError, onEnd } = options;
  const bell = createBell();
  let place = options.place;
  let limit = firstLimit(options);
  let hasMore = false;
  let hasEnded = false;
  let fullSinceMs: number | undefined;
  let sentAtMs = performance.now();

  const isOpen = (): boolean => !hasEnded;

  async function run(first: ChangePage): Promise<void> {
    try {
      for (let page: ChangePage | undefined = first; isOpen(); page = await next()) {
        if (page) await send(page);
        if (!hasMore && isOpen()) await bell.heard();
      }
    } catch (error) {
      onError(error);
      end("failed");
    }
  }

  async function next(): Promise<ChangePage | undefined> {
    if (hasEnded) return undefined;
    try {
      return await readNext({ place, limit, isBehind: hasMore });
    } catch (error) {
      hasMore = false;
      if (error instanceof TidegateError && isFinal(error.code)) end(error.code, error);
      // A look wakes it again.
      else onError(error);
      return undefined;
    }
  }

  async function send(page: ChangePage): Promise<void> {
    const { text, position, count } = isHint ? toHint(page) : toEvents(page);
    hasMore = position < page.position || (page.more && !isHint);
    // Records may be large: no more of them are read than fit, or they would be read again and again.
    if (!isHint) limit = count < page.changes.length ? count : Math.min(limitMax, 2 * limit);
    place = placeAfter(place, { ...page, position });
    if (!isHint) onTell({ ...page, position });
    if (hasEnded || text === "") return;
    sentAtMs = performance.now();
    if (raw.write(text)) return;
    fullSinceMs = sentAtMs;
    await drained(raw);
    fullSinceMs = undefined;
  }

  function toEvents({ changes, position: last, head }: ChangePage): Written {
    let text = "";
    for (const [index, { position, change, isBeforeOutcome }] of changes.entries()) {
      const isLast = index === changes.length - 1;
      const id = signAt(placeAfter(place, { head, position: isLast ? last : position }));
      text += eventText("change", changeJson(change), id);
      if (text.length >= textMax && !isLast && !isBeforeOutcome) return { text, position, count: index + 1 };
    }
    return { text, position: last, count: changes.length };
  }

  /** However much has changed: the reader asks for it. */
  function toHint({ changes, more, head }: ChangePage): Written {
    const { position } = head;
    if (changes.length === 0 && !more) return { text: "", position, count: 0 };
    const cursor = signAt(placeAfter(place, { head, position }));
    return { text: eventText("cursor", JSON.stringify({ cursor }), cursor), position, count: 1 };
  }

  function end(reason: StreamEnd, error?: TidegateError): void {
    if (hasEnded) return;
    hasEnded = true;
    const isFull = fullSinceMs !== undefined;
    // A process that stops waits for no reader.
    if (reason === "client" || reason === "failed" || (isFull && reason === "stopping")) raw.destroy();
    else tell(raw, { reason, ...(error && { problem: toProblem(error) }) });
    if (isFull) setTimeout(() => raw.destroy(), lingerMs).unref();
    bell.ring();
    onEnd(reason);
  }
  raw.once("close", () => end("client"));
  // What breaks a connection closes it as well.
  raw.on("error", () => undefined);

  return {
    follower,
    place: () => place,
    wake: bell.ring,
    run,
    fullSinceMs: () => fullSinceMs,
    keepAlive(ms) {
      if (hasEnded || fullSinceMs !== undefined || sentAtMs > performance.now() - ms) return;
      sentAtMs = performance.now();
      raw.write(commentText);
    },
    end,
  };
}

function tell(raw: ServerResponse, end: { reason: StreamEnd; problem?: object }): void {
  // Nobody comes back on this connection.
  raw.once("finish", () => raw.socket?.destroySoon());
  raw.end(eventText("end", JSON.stringify(end)));
}

function isFinal(code: string): code is "cursor-expired" | "client-owned" {
  return code === "cursor-expired" || code === "client-owned";
}

/** Until the connection has taken what was written, or is closed. */
async function drained(raw: ServerResponse): Promise<void> {
  await new Promise<void>((resolve) => {
    const done = (): void => {
      raw.off("drain", done).off("close", done);
      resolve();
    };
    raw.on("drain", done).on("close", done);
    if (raw.destroyed) done();
  });
}
