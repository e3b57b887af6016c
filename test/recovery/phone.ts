import { expect } from "vitest";

import type { Answer } from "../fixtures/api.ts";
import type { CapabilityClass } from "../fixtures/capability-classes.ts";
import { tempId, type TestGateway } from "../fixtures/gateway.ts";
import type { QueuedMutation } from "../fixtures/outbox.ts";
import { newPhone, type Phone, type Result } from "../replay/phone.ts";

/** A phone that keeps what was acknowledged, and sends it again when the server has lost its memory. */
export interface KeepingPhone extends Phone {
  entity: CapabilityClass;
  kept: QueuedMutation[];
  /** Asks with an empty batch, and sends again what the server does not have. Resolves with the last seq it had. */
  catchUp: (gateway: TestGateway) => Promise<number>;
}

export function newKeepingPhone(gateway: TestGateway, entity: CapabilityClass): KeepingPhone {
  const phone = newPhone(gateway);
  const kept: QueuedMutation[] = [];
  return {
    ...phone,
    entity,
    kept,
    add(mutation) {
      const queued = phone.add({ occurredAt: new Date().toISOString(), ...mutation, entity });
      kept.push(queued);
      return queued;
    },
    async catchUp(at) {
      const { clientId, batch } = phone;
      batch();
      const previousSeq = kept.at(-1)?.seq ?? 0;
      const upload = async (from: number, mutations: QueuedMutation[]): Promise<Answer> =>
        await at.as().upload({ clientId, previousSeq: from, mutations }, { wait: 0 });
      const asked = await upload(previousSeq, []);
      expect([asked.status, asked.body.type]).toEqual([409, "urn:tidegate:problem:sequence-gap"]);
      const lastSeq = asked.body.lastSeq as number;
      const sent = await upload(
        lastSeq,
        kept.filter(({ seq }) => seq > lastSeq),
      );
      expect([sent.status, sent.body.ackedSeq]).toEqual([202, previousSeq]);
      return lastSeq;
    },
  };
}

/** What a phone did before the moment to which the database is put back. */
export async function before(phone: KeepingPhone): Promise<Record<"kept" | "doomed" | "version", string>> {
  const names = { kept: tempId(), doomed: tempId() };
  phone.add({ op: "create", recordId: names.kept, data: { name: "kept", minutes: 45 } });
  phone.add({ op: "create", recordId: names.doomed, data: { name: "doomed" } });
  const results = await phone.replay();
  expectApplied(results);
  return { ...names, version: results[0]?.version ?? "" };
}

/** And after it; the upstream has all of it, the database forgets it. */
export async function after(
  phone: KeepingPhone,
  { kept, doomed, version }: Record<"kept" | "doomed" | "version", string>,
): Promise<Result[]> {
  const lost = tempId();
  const next = String(Number(version) + 1);
  phone.add({ op: "update", recordId: kept, data: { minutes: 48 }, baseVersion: version });
  phone.add({ op: "update", recordId: kept, data: { minutes: 50 }, baseVersion: next });
  phone.add({ op: "create", recordId: lost, data: { name: "lost", minutes: 46 } });
  phone.add({ op: "update", recordId: lost, data: { minutes: 51 } });
  phone.add({ op: "delete", recordId: doomed });
  const results = await phone.replay();
  expectApplied(results);
  return results;
}

function expectApplied(results: Result[]): void {
  expect(results.map(({ status }) => status)).toEqual(results.map(() => "applied"));
}
