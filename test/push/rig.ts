import { randomUUID } from "node:crypto";

import { expect, vi } from "vitest";

import type { Answer, Api } from "../fixtures/api.ts";
import { crm } from "../fixtures/crm.ts";
import {
  startGateway,
  tempId,
  type GatewayOptions,
  type TestGateway,
  type TestUser,
} from "../fixtures/gateway.ts";
import { newOutbox } from "../fixtures/outbox.ts";
import { startScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { rowsOf } from "../replay/rows.ts";
import { startPushServer, type PushServer } from "./push-server.ts";

/** A gateway that wakes apps by a push server of the test's. */
export interface PushRig extends AsyncDisposable {
  gateway: TestGateway;
  server: PushServer;
  /** Somebody changes so many records, in these scopes: each change is in the feed when it resolves. */
  change: (scope?: { mentor?: string; group?: string }, count?: number) => Promise<void>;
  /** Waits until nothing is due, wanted or under way for a client. */
  isAtRest: (clientId: string) => Promise<void>;
}

export const delayMs = 200;

export async function startPushRig({
  push = {},
  ...options
}: Partial<GatewayOptions> & { push?: object } = {}): Promise<PushRig> {
  const server = await startPushServer();
  const upstream = await startScriptedUpstream();
  const entity = { scopes: ["group:{/group}", "user:{/mentor}"] };
  const gateway = await startGateway({
    upstreams: crm(upstream.url, { entity }),
    push: { fcm: server.fcm, webhook: server.webhook, delayMs, timeoutMs: 2_000, ...push },
    ...options,
  });
  const [writer, outbox] = [gateway.as({ sub: "the writer" }), newOutbox()];
  return {
    gateway,
    server,
    async change({ mentor = "nobody", group = "all" } = {}, count = 1) {
      for (let n = 0; n < count; n++) {
        outbox.add({ op: "create", recordId: tempId(), data: { mentor, group, n } });
      }
      const { status } = await writer.upload(outbox.batch());
      expect(status).toBe(200);
    },
    async isAtRest(clientId) {
      await vi.waitFor(
        async () =>
          expect(await registrationOf(gateway, clientId)).toMatchObject({
            due_at: null,
            wanted_position: null,
          }),
        { timeout: 25_000, interval: 30 },
      );
    },
    async [Symbol.asyncDispose]() {
      await gateway.close();
      await upstream.stop();
      await server[Symbol.asyncDispose]();
    },
  };
}

export interface RegistrationRow {
  scopes: string[];
  pushed_at: Date | null;
  client_id: string;
  wanted_position: string | null;
  told_position: string;
  read_position: string;
  due_at: Date | null;
  claim_id: string | null;
  pushes: number;
  sent_at: Date[];
  failures: number;
}

export async function registrationOf(
  gateway: TestGateway,
  clientId: string,
): Promise<RegistrationRow | undefined> {
  const [row] = await rowsOf<RegistrationRow>(
    gateway.database,
    "select * from push_registration where client_id = $1",
    [clientId],
  );
  return row;
}

/** An app: it registers, reads, and sleeps. */
export interface App {
  clientId: string;
  token: string;
  api: Api;
  register: (push?: object | null) => Promise<Answer>;
  /** Reads to the end, as an app does that is awake. Reads once more with the last cursor, if it means to say so. */
  read: (options?: { confirm?: boolean }) => Promise<void>;
}

export function newApp(gateway: TestGateway, user: TestUser = {}, token = `token-${randomUUID()}`): App {
  const clientId = randomUUID();
  const api = gateway.as({ groups: ["all"], ...user });
  let cursor: string | undefined;
  const pull = async (): Promise<boolean> => {
    const after = cursor === undefined ? "" : `&cursor=${cursor}`;
    const { status, body } = await api.get(`/v1/changes?clientId=${clientId}${after}`);
    expect(status).toBe(200);
    cursor = body.cursor as string;
    return body.more as boolean;
  };
  return {
    clientId,
    token,
    api,
    register: async (push = { service: "fcm", platform: "android", token }) =>
      await api.put(`/v1/clients/${clientId}`, { push }),
    async read({ confirm = true } = {}) {
      while (await pull());
      if (confirm) await pull();
    },
  };
}
