import { expect, vi } from "vitest";

import type { Api } from "../fixtures/api.ts";
import type { CapabilityClass } from "../fixtures/capability-classes.ts";
import { classes, entityOfClass } from "../fixtures/capability-classes.ts";
import { tempId, type TestGateway } from "../fixtures/gateway.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { capabilities, storeOptions } from "../replay/capabilities.ts";
import { linesOf, resultOf, type Result } from "../replay/phone.ts";
import { newKeepingPhone, type KeepingPhone } from "./phone.ts";

/** A primary that knows what it did before, and a shadow with an entity of each capability class. */
export interface Systems extends AsyncDisposable {
  primary: ScriptedUpstream;
  shadow: ScriptedUpstream;
  upstreams: () => { crm: object; next: object };
}

export async function startSystems(): Promise<Systems> {
  const primary = await startScriptedUpstream(storeOptions);
  const shadow = await startScriptedUpstream(storeOptions);
  shadow.seed("elsewhere", ['{"id":7000}']);
  const { crm: next } = capabilities(shadow.url) as { crm: object };
  return {
    primary,
    shadow,
    upstreams: () => ({ crm: primaryOf(primary.url), next: { ...next, role: "shadow" } }),
    async [Symbol.asyncDispose]() {
      await primary.stop();
      await shadow.stop();
    },
  };
}

function primaryOf(baseUrl: string): object {
  const { crm } = capabilities(baseUrl) as { crm: object };
  return { ...crm, entities: Object.fromEntries(classes.map((name) => [name, ofPrimary(name)])) };
}

function ofPrimary(name: CapabilityClass): object {
  return entityOfClass(name, {
    create: { class: "idempotency-key" },
    update: { class: "conditional" },
    delete: { class: "client-id" },
    references: { "/parent": name },
  });
}

/** Two phones for each class; the second one knows the first one's records by their server IDs. */
export interface Crowd {
  owners: Phones;
  others: Phones;
  /** What they do before the moment to which the database is put back. */
  begin: () => Promise<void>;
  /** And after it. */
  goOn: () => Promise<void>;
  goOnUnseen: (at?: TestGateway) => Promise<void>;
}

export interface Phones {
  /** They send again what the server does not have; resolves with how many they are. */
  catchUp: (gateway: TestGateway) => Promise<number>;
  settled: (gateway: TestGateway) => Promise<void>;
}

export function newCrowd(gateway: TestGateway, names: readonly CapabilityClass[]): Crowd {
  let current = gateway;
  const pairs = names.map((name) => newPair({ ...gateway, as: () => apiOf(() => current) }, name));
  const each = async (act: (pair: Pair) => Promise<void>): Promise<void> =>
    void (await Promise.all(pairs.map(act)));
  return {
    owners: toPhones(pairs.map(({ owner }) => owner)),
    others: toPhones(pairs.map(({ other }) => other)),
    begin: async () => await each(begin),
    goOn: async () => await each(goOn),
    async goOnUnseen(at = gateway) {
      current = at;
      await each(goOnUnseen);
    },
  };
}

function apiOf(current: () => TestGateway): Api {
  return {
    ...current().as(),
    upload: async (...asked) =>
      await current()
        .as()
        .upload(...asked),
  };
}

interface Pair {
  owner: KeepingPhone;
  other: KeepingPhone;
  ids: Record<"kept" | "doomed" | "lost" | "plain", string>;
  serverIds: Record<"kept" | "lost" | "child", string>;
}

function newPair(gateway: TestGateway, name: CapabilityClass): Pair {
  return {
    owner: newKeepingPhone(gateway, name),
    other: newKeepingPhone(gateway, name),
    ids: { kept: tempId(), doomed: tempId(), lost: tempId(), plain: tempId() },
    serverIds: { kept: "", lost: "", child: "" },
  };
}

async function begin({ owner, ids, serverIds }: Pair): Promise<void> {
  const kept = owner.add({ op: "create", recordId: ids.kept, data: { name: "kept", minutes: 45 } });
  owner.add({ op: "create", recordId: ids.doomed, data: { name: "doomed" } });
  serverIds.kept = idOf(await applied(owner), kept);
}

async function goOn({ owner, other, ids, serverIds }: Pair): Promise<void> {
  owner.add({ op: "update", recordId: ids.kept, data: { minutes: 48 } });
  owner.add({ op: "update", recordId: ids.kept, data: { minutes: 50 } });
  const lost = owner.add({
    op: "create",
    recordId: ids.lost,
    data: { name: "lost", parent: ids.kept, minutes: 46 },
  });
  owner.add({ op: "update", recordId: ids.lost, data: { minutes: 51 } });
  const plain = owner.add({ op: "create", recordId: ids.plain, data: { name: "plain", minutes: 1 } });
  owner.add({ op: "delete", recordId: ids.doomed });
  const results = await applied(owner);
  serverIds.lost = idOf(results, lost);
  other.add({ op: "update", recordId: idOf(results, plain), data: { minutes: 2 } });
  other.add({ op: "update", recordId: serverIds.lost, data: { note: "seen" } });
  const child = other.add({
    op: "create",
    recordId: tempId(),
    data: { name: "child", parent: serverIds.lost },
  });
  other.add({ op: "update", recordId: serverIds.kept, data: { minutes: 60 } });
  serverIds.child = idOf(await applied(other), child);
}

async function goOnUnseen({ owner, other, ids, serverIds }: Pair): Promise<void> {
  other.add({ op: "update", recordId: serverIds.lost, data: { note: "unseen" } });
  other.add({ op: "delete", recordId: serverIds.child });
  await applied(other);
  owner.add({ op: "create", recordId: tempId(), data: { name: "late", parent: ids.lost } });
  owner.add({ op: "update", recordId: ids.kept, data: { note: "unseen" } });
  await applied(owner);
}

async function applied(phone: KeepingPhone): Promise<Result[]> {
  const results = await phone.replay();
  expect(linesOf(results)).toEqual(results.map(() => "applied"));
  return results;
}

function idOf(results: Result[], mutation: { id: string }): string {
  return resultOf(results, mutation).recordId ?? "none";
}

function toPhones(phones: KeepingPhone[]): Phones {
  return {
    async catchUp(gateway) {
      for (const phone of phones) await phone.catchUp(gateway);
      return phones.length;
    },
    async settled(gateway) {
      for (const { clientId, kept, entity } of phones) {
        const lines = async (): Promise<string[]> => {
          const { body } = await gateway.as().get(`/v1/mutations?clientId=${clientId}&limit=1000`);
          return linesOf(body.results as Result[]);
        };
        await vi.waitFor(async () => expect(await lines(), entity).toEqual(kept.map(() => "applied")), {
          timeout: 30_000,
          interval: 100,
        });
      }
    },
  };
}

/** @param names what the primary calls the shadow's records: by entity and the shadow's ID. */
export function expectSame(
  { primary, shadow }: Systems,
  names: ReadonlyMap<string, string>,
  entities: readonly CapabilityClass[],
): void {
  for (const entity of entities) {
    const back = (id: unknown): string => names.get(`${entity}/${String(id)}`) ?? `? ${String(id)}`;
    expect(contentOf(shadow, entity, back), entity).toEqual(contentOf(primary, entity, String));
  }
}

/** The records by what they are called; of two of one name, both. */
function contentOf(system: ScriptedUpstream, entity: string, named: (id: unknown) => string): unknown {
  const records = system.records(entity).map((text) => {
    const { id: _, externalRef: __, parent, ...rest } = JSON.parse(text) as Record<string, unknown>;
    return { ...rest, ...(parent !== undefined && { parent: named(parent) }) } as { name?: string };
  });
  return records.toSorted((a, b) => String(a.name).localeCompare(String(b.name)));
}

/** No record was made twice, in either system. */
export function expectOnce({ primary, shadow }: Systems, entities: readonly CapabilityClass[]): void {
  for (const system of [primary, shadow]) {
    for (const entity of entities) {
      const made = system.effects.flatMap(({ collection, op, record = "{}" }) =>
        collection === entity && op === "create" ? [(JSON.parse(record) as { name: string }).name] : [],
      );
      expect(made.toSorted(), entity).toEqual([...new Set(made)].toSorted());
    }
  }
}
