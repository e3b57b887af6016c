import { afterAll, beforeAll, expect, vi } from "vitest";

import { startGateway, type GatewayOptions, type TestGateway } from "../fixtures/gateway.ts";
import type { QueueBackendKind } from "../fixtures/redis.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import type { StoreOptions } from "../fixtures/scripted-store.ts";
import { rowsOf } from "../replay/rows.ts";

/** Both systems can do everything; which of it is used, the classes say. */
export const storeOptions: StoreOptions = {
  etags: true,
  clientIds: true,
  idempotencyHeader: "Idempotency-Key",
};

export interface PairConfig {
  /** Further keys of the shadow's entities. */
  entity?: object;
  /** Further keys of the shadow. */
  shadow?: object;
  primary?: object;
}

const operations = {
  create: { class: "idempotency-key" },
  update: { class: "conditional" },
  delete: { class: "client-id" },
};

/** Mentors, who may have a mentor themselves, and activities of mentors. */
function entities(more: object = {}): object {
  const entity = { id: "/id", version: { header: "etag" }, ...operations, ...more };
  return {
    mentor: { path: "/mentors", references: { "/mentor": "mentor" }, ...entity },
    activity: { path: "/activities", references: { "/mentor": "mentor", "/others": "mentor" }, ...entity },
  };
}

const upstream = { kind: "rest", timeoutMs: 1_000, retry: { baseMs: 10, capMs: 100 } };

export function onlyPrimary(primaryUrl: string, { primary }: PairConfig = {}): object {
  return { crm: { ...upstream, role: "primary", baseUrl: primaryUrl, ...primary, entities: entities() } };
}

/** The configuration of a primary and its shadow `next`. */
export function withShadow(primaryUrl: string, shadowUrl: string, config: PairConfig = {}): object {
  const shadow = { circuit: { failures: 10_000, cooldownMs: 20 }, ...config.shadow };
  return {
    ...onlyPrimary(primaryUrl, config),
    next: { ...upstream, role: "shadow", baseUrl: shadowUrl, ...shadow, entities: entities(config.entity) },
  };
}

/** A gateway with a primary and a shadow, whose own IDs differ from the primary's. */
export interface Pair extends AsyncDisposable {
  gateway: TestGateway;
  primary: ScriptedUpstream;
  shadow: ScriptedUpstream;
}

export async function startPair(
  queues: QueueBackendKind,
  config: PairConfig = {},
  options: Partial<GatewayOptions> = {},
): Promise<Pair> {
  const [primary, shadow] = await startSystems();
  const upstreams = withShadow(primary.url, shadow.url, config);
  const gateway = await startGateway({ queues, upstreams, ...options });
  return {
    gateway,
    primary,
    shadow,
    async [Symbol.asyncDispose]() {
      await gateway.close();
      await primary.stop();
      await shadow.stop();
    },
  };
}

/** One pair for all tests of a block, there from the first test on. */
export function sharedPair(queues: QueueBackendKind, config: PairConfig = {}): Pair {
  const pair = {} as Pair;
  beforeAll(async () => {
    Object.assign(pair, await startPair(queues, config));
    await added(pair.gateway);
  });
  afterAll(async () => await (pair as Partial<Pair>)[Symbol.asyncDispose]?.());
  return pair;
}

export async function startSystems(
  ofShadow: StoreOptions = {},
): Promise<[ScriptedUpstream, ScriptedUpstream]> {
  const primary = await startScriptedUpstream(storeOptions);
  const shadow = await startScriptedUpstream({ ...storeOptions, ...ofShadow });
  shadow.seed("elsewhere", ['{"id":7000}']);
  return [primary, shadow];
}

/** Waits until the shadow was added and its lanes have passed everything. */
export async function caughtUp(gateway: Pick<TestGateway, "database">, timeoutMs = 60_000): Promise<void> {
  const { database } = gateway;
  await added(gateway);
  const behind = `
    select l.partition, l.position, l.failures, l.due_at, l.lease_until from lane l
    where l.partition is not null and (l.lease_until is not null
      or exists (select 1 from shadow_seed s where s.upstream_id = l.upstream_id and s.partition = l.partition
        and s.position > l.position)
      or exists (select 1 from applied_change c where c.partition = l.partition
        and c.position > greatest(l.position, l.follows_from)))`;
  await vi.waitFor(async () => expect(await rowsOf(database, behind)).toEqual([]), {
    timeout: timeoutMs,
    interval: 50,
  });
}

/** Waits until the shadow was added: it follows from here. */
export async function added({ database }: Pick<TestGateway, "database">): Promise<void> {
  const lanes = async (): Promise<unknown[]> =>
    await rowsOf(database, "select 1 from lane where partition is not null");
  await vi.waitFor(async () => expect(await lanes()).toHaveLength(16), { timeout: 60_000, interval: 50 });
}

type Held = Record<string, unknown> & { id: string | number };
type Naming = (entity: string, id: unknown) => string;

/** What both systems hold, by the primary's IDs: the shadow's own ones are put back. */
export async function bothHold({
  gateway,
  primary,
  shadow,
}: Pair): Promise<{ primary: unknown; shadow: unknown }> {
  const rows = await rowsOf<{ entity: string; server_id: string; own_id: string }>(
    gateway.database,
    "select * from shadow_record where not deleted",
  );
  const serverIds = new Map(rows.map((row) => [`${row.entity}/${row.own_id}`, row.server_id]));
  const back: Naming = (entity, id) => serverIds.get(`${entity}/${String(id)}`) ?? `? ${String(id)}`;
  return { primary: contentOf(primary, (_, id) => String(id)), shadow: contentOf(shadow, back) };
}

function contentOf(system: ScriptedUpstream, named: Naming): unknown {
  const held = (collection: string, entity: string): unknown =>
    Object.fromEntries(
      system.records(collection).map((text) => {
        const record = JSON.parse(text) as Held;
        return [named(entity, record.id), withNames(record, named)];
      }),
    );
  return { mentors: held("mentors", "mentor"), activities: held("activities", "activity") };
}

function withNames(record: Held, named: Naming): unknown {
  const { mentor, others } = record;
  return {
    ...record,
    id: undefined,
    externalRef: undefined,
    ...(mentor !== undefined && { mentor: named("mentor", mentor) }),
    ...(others !== undefined && { others: (others as unknown[]).map((id) => named("mentor", id)) }),
  };
}
