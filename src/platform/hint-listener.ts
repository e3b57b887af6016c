import { setTimeout as delay } from "node:timers/promises";

import pg from "pg";
import type { Logger } from "pino";
import { Gauge, type Registry } from "prom-client";

import { hintChannel, readNotification } from "./hint-sender.ts";
import type { Hints } from "./hints.ts";
import type { Ask } from "./installation.ts";

export interface HintListenerOptions {
  /** Not that of a pool that shares its connections between transactions: a LISTEN belongs to one connection. */
  connectionString: string;
  /** As the sender of this process names itself: what it sent was given here before. */
  from: string;
  log: Logger;
  /** Called with each new connection. */
  onConnection: (ask: Ask) => void;
  metrics: Registry;
}

export interface HintListener {
  close: () => Promise<void>;
}

const connectTimeoutMs = 5_000;
/** A way that was cut without a word is noticed by this. */
const probeEveryMs = 15_000;
const probeTimeoutMs = 5_000;
const backoff = { baseMs: 100, capMs: 5_000 };

/**
 * Gives the hints of other processes here, over one connection that comes back by itself. What was sent while it was away
 * is lost, so that everybody is woken once when it is there again.
 */
export function startHintListener(hints: Hints, options: HintListenerOptions): HintListener {
  const { log } = options;
  const closing = new AbortController();
  const closed = new Promise<void>((resolve) => {
    closing.signal.addEventListener("abort", () => resolve(), { once: true });
  });
  let isListening = false;

  async function listenOn(client: pg.Client): Promise<void> {
    await client.connect();
    await client.query(`listen ${hintChannel}`);
    isListening = true;
    options.onConnection(async (text, values) => await client.query(text, values));
    hints.giveAll();
    while (!closing.signal.aborted) {
      await pause(probeEveryMs, closing.signal);
      if (!closing.signal.aborted) await inTime(client.query("select 1"));
    }
  }

  async function keepListening(): Promise<void> {
    for (let failures = 0; !closing.signal.aborted; failures++) {
      const client = openClient(options, hints);
      const broken = new Promise<never>((_resolve, reject) => {
        client.on("error", reject).on("end", () => reject(new Error("the connection was ended")));
      });
      broken.catch(() => undefined);
      try {
        await Promise.race([listenOn(client), broken, closed]);
        await client.end();
      } catch (error) {
        if (isListening) failures = 0;
        log.warn({ err: error }, "hints of other processes are not heard for the moment");
        client.connection.stream.destroy();
      }
      isListening = false;
      await pause(Math.random() * Math.min(backoff.capMs, backoff.baseMs * 2 ** failures), closing.signal);
    }
  }

  registerGauge(options.metrics, () => isListening);
  const ended = keepListening();
  return {
    async close() {
      closing.abort();
      await ended;
    },
  };
}

function registerGauge(registry: Registry, isListening: () => boolean): void {
  registry.registerMetric(
    new Gauge({
      name: "tidegate_hints_listening",
      help: "1 while what other processes write is heard of at once; 0 while it is only looked for.",
      registers: [],
      collect() {
        this.set(isListening() ? 1 : 0);
      },
    }),
  );
}

function openClient({ connectionString, from }: HintListenerOptions, hints: Hints): pg.Client {
  const client = new pg.Client({
    connectionString,
    connectionTimeoutMillis: connectTimeoutMs,
    application_name: "tidegate-hints",
    keepAlive: true,
  });
  client.on("notification", ({ payload = "" }) => {
    const told = readNotification(payload);
    if (told.from !== from) hints.give(told.keys);
  });
  return client;
}

async function inTime(answer: Promise<unknown>): Promise<void> {
  const over = new AbortController();
  const late = delay(probeTimeoutMs, undefined, { signal: over.signal }).then(() => {
    throw new Error("the connection does not answer");
  });
  try {
    await Promise.race([answer, late]);
  } finally {
    over.abort();
    late.catch(() => undefined);
    answer.catch(() => undefined);
  }
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await delay(ms, undefined, { signal }).catch(() => undefined);
}
