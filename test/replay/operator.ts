import { expect } from "vitest";

import type { Answer } from "../fixtures/api.ts";
import type { TestGateway } from "../fixtures/gateway.ts";

export interface CommandBody {
  command: "retry" | "applied" | "reject";
  recordId?: string;
  reason?: string;
}

/** A person at the operators' API of one tenant. */
export interface Operator {
  /** Gives a command that is taken. */
  command: (mutationId: string, body: CommandBody) => Promise<void>;
  /** Gives a command, whatever the answer. */
  ask: (mutationId: string, body: CommandBody) => Promise<Answer>;
  now: (laneId: string) => Promise<void>;
  /** What came of the commands about a mutation, in order; null while it is open. */
  results: (mutationId: string) => Promise<(string | null)[]>;
  /** Waits until every command about a mutation was carried out, and nothing is on its way for one. */
  done: (mutationId: string) => Promise<string[]>;
}

/** @param at what is decided about; by default the tenant's mutations. */
export function newOperator(gateway: TestGateway, tenant = "ours", at = "mutations"): Operator {
  const api = gateway.asOps();
  const base = `/ops/v1/tenants/${tenant}`;
  const ask: Operator["ask"] = async (id, body) => await api.post(`${base}/${at}/${id}/commands`, body);
  const results: Operator["results"] = async (id) => {
    const { body } = await api.get(`${base}/${at}/${id}`);
    return (body.commands as { result: string | null }[]).map(({ result }) => result);
  };
  return {
    ask,
    results,
    async command(id, body) {
      expect(await ask(id, body)).toMatchObject({ status: 202 });
    },
    async now(laneId) {
      expect(await api.post(`${base}/lanes/${laneId}/now`, {})).toMatchObject({ status: 202 });
    },
    async done(id) {
      const isOpen = async () =>
        (await results(id)).some((result) => result === null || result === "sending");
      await expect.poll(isOpen, { timeout: 20_000 }).toBe(false);
      return (await results(id)) as string[];
    },
  };
}
