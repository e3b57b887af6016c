import { execFileSync } from "node:child_process";
import { createHmac, randomUUID } from "node:crypto";
import { isDeepStrictEqual } from "node:util";
import { setTimeout as delay } from "node:timers/promises";

/**
 * Sends one batch through the services of docker-compose.yml and fails unless the old system holds it.
 *
 *   npx node --env-file=.env scripts/compose-check.ts [docker compose …]
 *
 * The arguments are the command that started the services; the old system is asked from inside, as nothing but the API
 * is published.
 */
const compose = process.argv.length > 2 ? process.argv.slice(2) : ["docker", "compose"];
const baseUrl = `http://127.0.0.1:${process.env["TIDEGATE_PUBLISHED_PORT"] || "8080"}`;
const startTimeoutMs = 180_000;
const arrivalTimeoutMs = 60_000;

interface Result {
  id: string;
  status: string;
  recordId?: string;
}

type Json = Record<string, unknown>;

async function main(): Promise<void> {
  await until("the API is ready", startTimeoutMs, isReady);
  const token = mintToken();
  const { clientId, mutations } = newBatch();
  await upload(token, { clientId, previousSeq: 0, mutations });
  const results = await until("every mutation has its outcome", arrivalTimeoutMs, async () => {
    const known = await readResults(token, clientId);
    return known.every(({ status }) => status !== "pending") ? known : undefined;
  });
  const failed = results.filter(({ status }) => status !== "applied");
  if (results.length !== mutations.length || failed.length > 0) {
    throw new Error(`not everything was applied: ${JSON.stringify(results)}`);
  }
  const [mentorId, activityId] = results.map(({ recordId }) => recordId);
  assertHolds(`/mentors/${mentorId}`, { name: "Kari" });
  assertHolds(`/activities/${activityId}`, { mentor: mentorId, minutes: 50 });
  console.log(`the batch arrived: mentor ${mentorId}, activity ${activityId}`);
}

function newBatch() {
  const [mentor, activity] = [`urn:uuid:${randomUUID()}`, `urn:uuid:${randomUUID()}`];
  return {
    clientId: randomUUID(),
    mutations: [
      { entity: "mentor", op: "create", recordId: mentor, data: { name: "Kari" } },
      { entity: "activity", op: "create", recordId: activity, data: { mentor, minutes: 45 } },
      { entity: "activity", op: "update", recordId: activity, data: { minutes: 50 } },
    ].map((mutation, index) => ({ seq: index + 1, id: randomUUID(), ...mutation })),
  };
}

async function isReady(): Promise<true | undefined> {
  const response = await fetch(`${baseUrl}/health/ready`).catch(() => undefined);
  return response?.ok ? true : undefined;
}

async function upload(token: string, batch: object): Promise<void> {
  await call(token, "/v1/batches", {
    method: "POST",
    headers: { "content-type": "application/json", prefer: "wait=20" },
    body: JSON.stringify(batch),
  });
}

async function readResults(token: string, clientId: string): Promise<Result[]> {
  return ((await call(token, `/v1/mutations?clientId=${clientId}`)) as { results: Result[] }).results;
}

async function call(token: string, path: string, init: RequestInit = {}): Promise<unknown> {
  const headers = { authorization: `Bearer ${token}`, ...(init.headers as Record<string, string>) };
  const response = await fetch(baseUrl + path, { ...init, headers });
  const text = await response.text();
  if (!response.ok) throw new Error(`${path} answered ${response.status}: ${text}`);
  return JSON.parse(text);
}

function mintToken(): string {
  const secret = process.env["DEMO_JWT_SECRET"];
  if (!secret) throw new Error("DEMO_JWT_SECRET is not set: run this with --env-file=.env");
  const exp = Math.floor(Date.now() / 1_000) + 600;
  const claims = { iss: "tidegate-demo", aud: "tidegate", sub: "compose-check", exp };
  const signed = `${part({ alg: "HS256", typ: "JWT" })}.${part(claims)}`;
  return `${signed}.${createHmac("sha256", secret).update(signed).digest("base64url")}`;
}

function part(value: object): string {
  return Buffer.from(JSON.stringify(value)).toString("base64url");
}

function assertHolds(path: string, expected: Json): void {
  const record = askLegacy(path);
  for (const [key, value] of Object.entries(expected)) {
    if (isDeepStrictEqual(record[key], value)) continue;
    throw new Error(
      `the old system holds ${JSON.stringify(record)} as ${path}, not ${key}: ${String(value)}`,
    );
  }
}

/** A compose command may print lines of its own around the answer. */
function askLegacy(path: string): Json {
  const ask = `fetch("http://127.0.0.1:4010${path}").then((r) => r.json()).then((j) => console.log(JSON.stringify(j)))`;
  const [command = "", ...args] = compose;
  const output = execFileSync(command, [...args, "exec", "-T", "legacy", "node", "-e", ask], {
    encoding: "utf8",
  });
  const answer = output.split("\n").find((line) => line.startsWith("{"));
  if (answer === undefined) throw new Error(`the old system did not answer: ${output}`);
  return JSON.parse(answer) as Json;
}

async function until<T>(what: string, timeoutMs: number, probe: () => Promise<T | undefined>): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const found = await probe();
    if (found !== undefined) return found;
    if (performance.now() > deadline) throw new Error(`not within ${timeoutMs / 1_000} s: ${what}`);
    await delay(250);
  }
}

await main();
