import { randomUUID } from "node:crypto";
import { expect, vi } from "vitest";

import type { Answer, Api, PostOptions } from "../fixtures/api.ts";
import type { TestGateway, TestUser } from "../fixtures/gateway.ts";
import { newOutbox, type Outbox, type QueuedMutation } from "../fixtures/outbox.ts";

/** What a mutation came to, as the API tells it. */
export interface Result {
  seq: number;
  id: string;
  status: "applied" | "conflict" | "rejected" | "pending" | "parked";
  recordId?: string;
  version?: string;
  blockedBy?: string | null;
  problem?: { type: string; detail: string };
  current?: { version: string; deleted?: boolean; data?: Record<string, unknown> };
}

/** An app on a phone: an outbox of its own and its user's token. */
export interface Phone extends Outbox {
  api: Api;
  /** Sends what was queued since the last time. */
  send: (options?: PostOptions) => Promise<Answer>;
  /** Sends, and resolves with the results. */
  replay: (options?: PostOptions) => Promise<Result[]>;
  /** What became of everything that was ever sent. */
  outcomes: () => Promise<Result[]>;
  /** Waits until nothing is pending any more. */
  settled: (timeoutMs?: number) => Promise<Result[]>;
}

export function newPhone(gateway: TestGateway, user: TestUser = {}, clientId: string = randomUUID()): Phone {
  const api = gateway.as(user);
  const outbox = newOutbox(clientId);
  const send: Phone["send"] = async (options) => await api.upload(outbox.batch(), options);
  const outcomes = async (): Promise<Result[]> => {
    const { body } = await api.get(`/v1/mutations?clientId=${clientId}&limit=1000`);
    return body.results;
  };
  return {
    ...outbox,
    api,
    send,
    replay: async (options) => (await send(options)).body.results,
    outcomes,
    async settled(timeoutMs = 20_000) {
      const nonePending = async () =>
        expect((await outcomes()).filter(({ status }) => status === "pending")).toEqual([]);
      await vi.waitFor(nonePending, { timeout: timeoutMs, interval: 50 });
      return await outcomes();
    },
  };
}

/** What a mutation's result says, in one line: `applied`, or `rejected upstream-rejected`. */
export function toLine({ status, problem }: Result): string {
  return problem ? `${status} ${problem.type.split(":").at(-1)}` : status;
}

export const linesOf = (results: Result[]): string[] => results.map(toLine);

/** The results by mutation, whatever their order. */
export function resultOf(results: Result[], { id }: Pick<QueuedMutation, "id">): Result {
  const result = results.find((other) => other.id === id);
  if (!result) throw new Error(`no result of ${id}`);
  return result;
}
