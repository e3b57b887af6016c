import { setTimeout as delay } from "node:timers/promises";

import type { CapabilityClass } from "../fixtures/capability-classes.ts";
import type { Deed, Mishap, PlannedRecord, Turn } from "./program.ts";
import type { Random } from "./random.ts";
import { tokenOf } from "./tokens.ts";
import type { Marker } from "./upstream/journal.ts";

/** A mutation as a phone has queued it, and what the run has to know of it. */
export interface Queued {
  body: {
    seq: number;
    id: string;
    entity: CapabilityClass;
    op: Deed["op"];
    recordId: string;
    [k: string]: unknown;
  };
  record: PlannedRecord;
  phone: Phone;
  marker: Marker;
  /** It was named in the results of an answer 200 or 202. */
  acknowledged: boolean;
}

interface Result {
  seq: number;
  id: string;
  status: string;
  recordId?: string;
}

interface Receipt {
  ackedSeq: number;
  results: Result[];
  idMappings: { tempId: string; serverId: string }[];
}

/** An app on a phone with an outbox that it empties however often that takes. */
export interface Phone {
  index: number;
  clientId: string;
  user: string;
  /** Queues what a turn says, as far as the phone can know the records, and sends all that is queued. */
  act: (turn: Turn) => void;
  /** Sends until everything is acknowledged, or the time is over. */
  flush: (timeoutMs: number) => Promise<void>;
}

/** What all phones of a run share: what they can know from each other, and what was found wrong. */
export interface Fleet {
  apiUrl: string;
  random: Random;
  /** Every mutation ever queued, by id. */
  mutations: Map<string, Queued>;
  /** The creates that were acknowledged: other phones may use their temp IDs from then on. */
  created: Set<PlannedRecord>;
  /** By temp ID, as the gateway has told it. */
  serverIds: Map<string, string>;
  violation: (what: string, about?: Queued) => void;
}

const batchMax = 100;

export function newPhone(fleet: Fleet, index: number): Phone {
  const random = fleet.random.fork(`phone ${index}`);
  const clientId = random.uuid();
  // Several installations of one user, and several users.
  const user = `user${index % 5}`;
  const token = tokenOf(user);
  let seq = 0;
  let acked = 0;
  let outbox: Queued[] = [];
  let lastBatch: Queued[] = [];
  /** A phone sends one batch at a time; its mishaps are the exception. */
  let line: Promise<void> = Promise.resolve();
  let waiting = 0;

  const phone: Phone = {
    index,
    clientId,
    user,
    act(turn) {
      for (const deed of turn.deeds) queue(deed);
      // What is queued while the phone is sending goes with the next batch.
      if (waiting > 0) return;
      waiting++;
      line = sendAfter(line, turn);
    },
    async flush(timeoutMs) {
      const until = performance.now() + timeoutMs;
      await line;
      while (outbox.length > 0 && performance.now() < until) {
        await sendOnce(0, undefined);
        if (outbox.length > 0) await delay(200);
      }
    },
  };

  function queue(deed: Deed): void {
    const { record } = deed;
    if (deed.op !== "create" && record.phone !== index && !fleet.created.has(record)) return;
    // It names its own record only after it has queued the create.
    if (deed.op !== "create" && record.phone === index && !owned.has(record)) return;
    if (deed.op === "create") owned.add(record);
    const next = ++seq;
    const last = outbox.at(-1) ?? lastBatch.at(-1);
    const id = random.uuid();
    const tempId = `urn:uuid:${record.tempId}`;
    const byServerId = deed.op !== "create" && deed.byServerId;
    const marker: Marker = deed.op === "delete" ? `-${record.index}` : `${index}:${next}`;
    const data = { ...(deed.op === "create" && { born: marker }), [`c${index}`]: next, ...reference(deed) };
    const body = {
      seq: next,
      id,
      entity: record.entity,
      op: deed.op,
      recordId: (byServerId ? fleet.serverIds.get(tempId) : undefined) ?? tempId,
      ...(deed.op !== "delete" && { data }),
      ...(deed.op === "update" && deed.dependsOnLast && last && { dependsOn: [last.body.id] }),
    };
    const queued = { body, record, phone, marker, acknowledged: false };
    outbox.push(queued);
    fleet.mutations.set(id, queued);
  }

  const owned = new Set<PlannedRecord>();

  /** Under a name of its own, so that two phones never write the same field. */
  function reference(deed: Deed): object {
    const other = deed.op === "delete" ? undefined : deed.refersTo;
    if (!other || (other.phone === index ? !owned.has(other) : !fleet.created.has(other))) return {};
    return { [`r${index}`]: `urn:uuid:${other.tempId}` };
  }

  async function sendAfter(before: Promise<void>, { waitSeconds, mishap }: Turn): Promise<void> {
    await before;
    waiting--;
    await sendOnce(waitSeconds, mishap);
  }

  async function sendOnce(waitSeconds: number, mishap: Mishap | undefined): Promise<void> {
    const batch = outbox.slice(0, batchMax);
    if (batch.length === 0) return;
    const send = async (signal?: AbortSignal): Promise<void> =>
      await upload(batch, acked, waitSeconds, signal);
    lastBatch = batch;
    if (mishap?.kind === "hang-up") {
      await send(AbortSignal.timeout(mishap.afterMs));
      return;
    }
    await Promise.all(mishap?.kind === "twice" ? [send(), send()] : [send()]);
    if (mishap?.kind === "again") await upload(batch, Math.min(acked, (batch[0]?.body.seq ?? 1) - 1), 0);
  }

  async function upload(
    batch: Queued[],
    previousSeq: number,
    waitSeconds: number,
    signal: AbortSignal = AbortSignal.timeout(30_000),
  ): Promise<void> {
    let response: Response;
    let text: string;
    try {
      response = await fetch(`${fleet.apiUrl}/v1/batches`, {
        method: "POST",
        headers: {
          authorization: `Bearer ${token}`,
          "content-type": "application/json",
          prefer: `wait=${waitSeconds}`,
        },
        body: JSON.stringify({ clientId, previousSeq, mutations: batch.map(({ body }) => body) }),
        signal,
      });
      text = await response.text();
    } catch {
      return await delay(random.between(20, 200));
    }
    if (response.status === 200 || response.status === 202) return take(batch, JSON.parse(text) as Receipt);
    if (response.status < 500 && response.status !== 429) {
      fleet.violation(`an upload was answered ${response.status}: ${text}`, batch[0]);
    }
    await delay(random.between(50, 300));
  }

  function take(batch: Queued[], receipt: Receipt): void {
    acked = Math.max(acked, receipt.ackedSeq);
    const listed = new Map(receipt.results.map((result) => [result.id, result]));
    for (const queued of batch) {
      if (!listed.has(queued.body.id)) {
        fleet.violation("an answer names not every mutation of its batch", queued);
        continue;
      }
      queued.acknowledged = true;
      if (queued.body.op === "create") fleet.created.add(queued.record);
    }
    outbox = outbox.filter(({ acknowledged }) => !acknowledged);
    for (const { tempId, serverId } of receipt.idMappings) {
      const known = fleet.serverIds.get(tempId) ?? serverId;
      if (known !== serverId) fleet.violation(`${tempId} was ${known}, and is told to be ${serverId}`);
      fleet.serverIds.set(tempId, serverId);
    }
  }

  return phone;
}
