import { Pool } from "undici";

import type { PhoneMutation } from "../phones.ts";

/** Sends mutations to the upstream as the contenders without a gateway do. */
export interface Calls {
  /** @param id of the record, for an update. @returns the record's ID. */
  send: (mutation: Pick<PhoneMutation, "op" | "data">, id: string | undefined) => Promise<string>;
}

export function openCalls(upstreamUrl: string, concurrency: number): Calls {
  const pool = new Pool(upstreamUrl, { connections: concurrency, pipelining: 1 });
  return {
    async send({ op, data }, id) {
      const answer = await pool.request({
        method: op === "create" ? "POST" : "PATCH",
        path: op === "create" ? "/activities" : `/activities/${id}`,
        headers: { "content-type": "application/json" },
        body: JSON.stringify(data),
      });
      if (answer.statusCode >= 300) throw new Error(`the upstream answered ${answer.statusCode}`);
      const record = (await answer.body.json()) as { id: string };
      return record.id;
    },
  };
}
