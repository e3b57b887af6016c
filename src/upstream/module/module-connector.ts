import { setTimeout as delay } from "node:timers/promises";

import type { Logger } from "pino";

import type * as own from "../../connector-module.ts";
import type { UpstreamConfig } from "../../platform/config/upstream-schema.ts";
import { valueAt } from "../../platform/json-text.ts";
import {
  UpstreamError,
  type Call,
  type Connector,
  type UpstreamPage,
  type UpstreamRecord,
} from "../connector.ts";
import { toPage, toRecord, toRecords } from "./results.ts";
import { createRunner, type OwnCall } from "./run-call.ts";

/**
 * A connector of the operator's, behind a guard: its calls end in time, what it gives is looked at before it is believed,
 * and what it throws is one of the failures that the gateway knows.
 *
 * @param beneath closed after the connector itself.
 */
export function guardConnector(
  connector: own.Connector,
  { timeoutMs, concurrency, entities }: Pick<UpstreamConfig, "timeoutMs" | "concurrency" | "entities">,
  { log, beneath }: { log: Logger; beneath?: { close(): Promise<void> } | undefined },
): Connector {
  const runner = createRunner({
    timeoutMs,
    leftoversMax: concurrency,
    onUnforeseen: (error, { entity }) => log.warn({ entity, ...whereOf(error) }, "the connector failed"),
  });

  async function search(call: own.LookupCall): Promise<UpstreamRecord[]> {
    const found = toRecords(await connector.lookup?.(call));
    const reference = entities[call.entity]?.reference;
    const ours = found.filter((record) => carries(record, reference, call.tempId));
    // Who searches without a filter may have seen one page of many: it is not shown that ours is not there.
    if (ours.length === 0 && found.length > 0)
      throw new UpstreamError("the search gave others' records", unclear);
    return ours;
  }

  async function pageWithRecords(call: own.ListCall): Promise<UpstreamPage> {
    let asked = call;
    for (let pages = 0; pages < emptyPagesMax; pages++) {
      const page = toPage(await connector.list?.(asked), asked.after);
      // Whoever asked would take an empty one for the last.
      if (page.records.length > 0 || page.next === undefined) return page;
      asked = { ...call, after: page.next, since: undefined };
    }
    throw new UpstreamError("the list gives empty pages without end", unclear);
  }

  const run = async <T>(call: Call, work: (shared: OwnCall) => Promise<T>): Promise<T> =>
    await runner.run(call, work);

  return {
    create: ({ body, id, idempotencyKey, ...call }) =>
      run(call, async (shared) => known(await connector.create({ ...shared, body, id, idempotencyKey }))),
    update: ({ id, patch, body, version, idempotencyKey, ...call }) =>
      run(call, async (shared) => {
        const change = { ...shared, id, patch, body, version, idempotencyKey };
        return known(await connector.update(change), { id });
      }),
    delete: ({ id, version, idempotencyKey, ...call }) =>
      run(call, async (shared) => await connector.delete({ ...shared, id, version, idempotencyKey })),
    read: ({ id, ...call }) =>
      run(call, async (shared) => known(await connector.read({ ...shared, id }), { id, withBody: true })),
    lookup: ({ tempId, ...call }) => run(call, async (shared) => await search({ ...shared, tempId })),
    list: ({ after, since, ...call }) =>
      run(call, async (shared) => {
        if (!connector.list) throw new UpstreamError("the connector does not list", unable);
        return await pageWithRecords({ ...shared, after, since });
      }),
    async close() {
      runner.close();
      const closed = (async () => await connector.close?.())().catch((error: unknown) =>
        log.warn(whereOf(error), "the connector could not be closed"),
      );
      await Promise.race([closed, delay(closeMsMax, undefined, { ref: false })]);
      await beneath?.close();
    },
  };
}

const unclear = { certainty: "ambiguous", disposition: "park" } as const;
const unable = { certainty: "not-sent", disposition: "park" } as const;
const emptyPagesMax = 20;
const closeMsMax = 10_000;

function known(value: unknown, asked?: Parameters<typeof toRecord>[1]): UpstreamRecord | undefined {
  return value === undefined || value === null ? undefined : toRecord(value, asked);
}

function carries({ body = "{}" }: UpstreamRecord, reference: string | undefined, tempId: string): boolean {
  const value = reference === undefined ? undefined : valueAt(body, reference);
  return typeof value === "string" && value.toLowerCase() === tempId.toLowerCase();
}

const framesMax = 5;

/** What failed, and where in whose code. What an error says may quote the data. */
function whereOf(error: unknown): { failure: string; at?: string } {
  if (!(error instanceof Error)) return { failure: typeof error };
  const frames = (error.stack ?? "").split("\n").filter((line) => /^\s+at /.test(line));
  return {
    failure: error.name,
    at: frames
      .slice(0, framesMax)
      .map((line) => line.trim())
      .join(", "),
  };
}
