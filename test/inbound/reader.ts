import { expect } from "vitest";

import type { Api } from "../fixtures/api.ts";

export interface Shown {
  entity: string;
  id: string;
  version: string;
  data: Record<string, unknown>;
  tempId?: string;
}

export interface Told {
  type: "upsert" | "delete" | "revoke" | "outcome";
  entity?: string;
  id?: string;
  version?: string;
  data?: Record<string, unknown>;
  tempId?: string;
  result?: { id: string; status: string };
}

/** Somebody who follows the feed from its beginning. */
export interface Reader {
  /** Everything that was told so far, in order. */
  told: Told[];
  /** What it holds, by `entity/id`. */
  held: Map<string, Told>;
  /** Follows until `isEnough`. */
  until: (isEnough: () => boolean) => Promise<void>;
}

export function newReader(api: Api, clientId?: string): Reader {
  const told: Told[] = [];
  const held = new Map<string, Told>();
  let cursor: string | undefined;

  async function pull(): Promise<void> {
    for (let more = true; more;) {
      const query = new URLSearchParams({ ...(clientId && { clientId }), ...(cursor && { cursor }) });
      const { status, body } = await api.get(`/v1/changes?${query.toString()}`);
      expect(status).toBe(200);
      for (const change of body.changes as Told[]) {
        told.push(change);
        if (change.type === "outcome") continue;
        const key = `${change.entity}/${change.id}`;
        if (change.type === "upsert") held.set(key, change);
        else held.delete(key);
      }
      ({ cursor, more } = body as { cursor: string; more: boolean });
    }
  }

  return {
    told,
    held,
    async until(isEnough) {
      await expect.poll(async () => (await pull(), isEnough()), { timeout: 30_000, interval: 50 }).toBe(true);
    },
  };
}
