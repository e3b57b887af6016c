import { createHmac, randomUUID } from "node:crypto";

/** The secret of every token of the benchmark. */
export const jwtSecret = "the benchmark's secret, long enough for HS256";

/** A phone with an outbox: activities that a peer mentor registers, and corrections of them. */
export interface Phone {
  clientId: string;
  token: string;
  batches: PhoneBatch[];
}

export interface PhoneBatch {
  clientId: string;
  previousSeq: number;
  mutations: PhoneMutation[];
}

export interface PhoneMutation {
  seq: number;
  id: string;
  entity: "activity";
  op: "create" | "update";
  recordId: string;
  occurredAt: string;
  data: Activity;
}

/** `phone` and `n` let the upstream's journal tell whether each phone's changes came in order, each of them once. */
export type Activity = { phone: number; n: number } & Record<string, unknown>;

/** Every fifth mutation corrects the activity before it. */
const correctionEvery = 5;

/** @param number names the phone at the upstream. */
export function createPhone(
  number: number,
  { batches, mutationsPerBatch }: { batches: number; mutationsPerBatch: number },
): Phone {
  const clientId = randomUUID();
  let seq = 0;
  let recordId = "";
  const nextMutation = (): PhoneMutation => {
    const n = ++seq;
    const isCorrection = n % correctionEvery === 0;
    if (!isCorrection) recordId = `urn:uuid:${randomUUID()}`;
    return {
      seq: n,
      id: randomUUID(),
      entity: "activity",
      op: isCorrection ? "update" : "create",
      recordId,
      occurredAt: new Date(Date.UTC(2026, 0, 1) + n * 3_600_000).toISOString(),
      data: isCorrection ? { phone: number, n, minutes: 40 + n } : activity(number, n),
    };
  };
  return {
    clientId,
    token: tokenFor(`mentor-${number}`),
    batches: Array.from({ length: batches }, () => ({
      clientId,
      previousSeq: seq,
      mutations: Array.from({ length: mutationsPerBatch }, nextMutation),
    })),
  };
}

/** About 150 bytes as JSON. */
function activity(phone: number, n: number): Activity {
  return {
    phone,
    n,
    mentor: String(1_000 + phone),
    date: `2026-03-${10 + (n % 20)}`,
    minutes: 45,
    kind: "conversation",
    place: "Kafé ved Oslo S",
    note: "Walked along the river; talked about work.",
  };
}

export function tokenFor(sub: string): string {
  const exp = Math.floor(Date.now() / 1_000) + 3_600;
  const claims = { iss: "bench", aud: "tidegate", sub, exp, roles: ["mentor"] };
  const input = `${part({ alg: "HS256", typ: "JWT" })}.${part(claims)}`;
  return `${input}.${createHmac("sha256", jwtSecret).update(input).digest("base64url")}`;
}

function part(value: object): string {
  return Buffer.from(JSON.stringify(value)).toString("base64url");
}
