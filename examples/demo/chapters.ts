import { randomUUID } from "node:crypto";

import { strangers, type LegacyRecord } from "./legacy.ts";
import type { Exchange } from "./lossy-network.ts";
import type { Queued } from "./outbox.ts";
import type { Phone } from "./phone.ts";
import type { Change } from "./protocol.ts";
import type { Scene } from "./scene.ts";
import { check, heading, say, short, table } from "./tell.ts";

/** The temp IDs of what Kari registers. */
export interface Registered {
  mentor: string;
  walk: string;
  talk: string;
}

export async function offline({ kari, ola }: Scene): Promise<Registered> {
  heading("1  Offline: Kari registers her day in a basement without coverage");
  check("a second phone (Ola's) has an empty feed and a cursor into it", await ola.pull(), []);
  const mentor = kari.create("mentor", { name: "Sunniva Lie", city: "Tromsø" });
  const walk = kari.create("activity", { mentor, what: "walk", minutes: 45 });
  const talk = kari.create("activity", { mentor, what: "phone call", minutes: 20 });
  kari.create("activity", {
    mentor: `urn:uuid:${randomUUID()}`,
    what: "unknown mentor",
    minutes: 30,
  });
  kari.update("activity", walk, { minutes: 50 });
  say("Her outbox, in SQLite on the phone:", "");
  table(kari.unsettled().map(outboxRow));
  check("she sees her own changes at once", minutesOf(kari), {
    walk: 50,
    "phone call": 20,
    "unknown mentor": 30,
  });
  return { mentor, walk, talk };
}

export async function lostReplies({ kari, air, wire, legacy }: Scene): Promise<void> {
  heading("2  The upload, on a network that loses the first reply");
  air.loseNextReply("POST", "/v1/batches");
  wire.loseNextReply("POST", "/mentors");
  wire.loseNextRequest("POST", "/activities");
  const first = await kari.upload({ waitSeconds: 1 }).catch((error: unknown) => error);
  check(
    "the first upload was taken, but its reply is lost: the phone sees an error",
    first instanceof TypeError,
    true,
  );
  check(
    "so all five mutations stay in the outbox, unsent",
    kari.outbox().filter(({ result }) => !result).length,
    5,
  );
  const { status, receipt } = await kari.upload({ waitSeconds: 20 });
  check("the second upload of the same batch gets every outcome (200)", status, 200);
  check("all five are acknowledged", receipt.ackedSeq, 5);
  check(
    "the invalid one is rejected, and the one after it is applied all the same",
    receipt.results.map((result) => result.status),
    ["applied", "applied", "applied", "rejected", "applied"],
  );
  check("nothing is doubled: one mentor more than before", (await legacy.records("mentors")).length, 2);
  check(
    "nothing is doubled: two activities more than before",
    (await legacy.records("activities")).length,
    4,
  );
}

export async function strangersRecords({ wire, legacy }: Scene, { mentor }: Registered): Promise<void> {
  heading("3  Behind the gateway replies were lost too, and strangers' records were in the way");
  say("What went over the wire between the gateway and the legacy system:", "");
  table(wire.exchanges.map(wireRow));
  say(
    "The reply to the first create of a mentor was lost. The gateway did not create it again: it",
    "looked for its own reference, found it, and adopted the record. The first create of an activity",
    "did not even arrive; then json-server, which knows no such field yet, answers the search with",
    "the whole list. A careless gateway would adopt a stranger's record now. Ours waits until the",
    "lost call can't arrive any more, and sends again.",
    "",
  );
  const [lookedUp] = answersOf(wire.exchanges, "GET", "/mentors");
  check("the search for the mentor found the one that carries our reference", referencesOf(lookedUp), [
    mentor,
  ]);
  const [wholeList] = answersOf(wire.exchanges, "GET", "/activities");
  check(
    "the search for the activity was answered with strangers' records",
    wholeList,
    strangers["activities"],
  );
  for (const [collection, before] of Object.entries(strangers)) {
    const now = await legacy.records(collection);
    check(`the strangers' ${collection} are as they were`, now.slice(0, before.length), before);
  }
  const made = answersOf(wire.exchanges, "POST", "/mentors");
  check("exactly one mentor was created, by exactly one call", made.length, 1);
}

export async function whereItAllWent(scene: Scene, { mentor, walk, talk }: Registered): Promise<void> {
  const { kari, ola, legacy } = scene;
  heading("4  Where it all went");
  await kari.pull();
  const id = (tempId: string): string => kari.serverId(tempId);
  say("Temporary IDs and the server IDs they became:", "");
  table([
    ["mentor", mentor, id(mentor)],
    ["activity", walk, id(walk)],
    ["activity", talk, id(talk)],
  ]);
  say("Outcomes, as Kari's phone knows them:", "");
  table(kari.outbox().map(outcomeRow));
  say("Records, as json-server holds them:", "");
  await showRecords(scene);
  check("the mentor is there as it was registered", (await legacy.records("mentors")).at(-1), {
    name: "Sunniva Lie",
    city: "Tromsø",
    id: Number(id(mentor)),
    externalRef: mentor,
  });
  check(
    "the activities have the mentor's server ID, and the update arrived",
    (await legacy.records("activities")).slice(2),
    [
      { mentor: id(mentor), what: "walk", minutes: 50, id: Number(id(walk)), externalRef: walk },
      { mentor: id(mentor), what: "phone call", minutes: 20, id: Number(id(talk)), externalRef: talk },
    ],
  );
  check("nothing waits on Kari's phone any more", kari.unsettled(), []);
  const seen = await ola.pull();
  say("", "What Ola's phone sees through its cursor:", "");
  table(seen.map(changeRow));
  check("Ola sees what Kari sees", minutesOf(ola), { walk: 50, "phone call": 20 });
  check("but none of the outcomes, and no temp IDs: those are Kari's", seen.filter(isPrivate), []);
}

export async function outage(scene: Scene, { mentor, talk }: Registered): Promise<void> {
  const { kari, ola, wire, legacy } = scene;
  heading("5  The legacy system goes away, and comes back");
  await legacy.stop();
  say("json-server is stopped. Kari goes on: she still uses the temp IDs of the first batch.", "");
  const cinema = kari.create("activity", { mentor, what: "cinema", minutes: 120 });
  kari.update("activity", cinema, { minutes: 130 });
  kari.update("activity", talk, { minutes: 25 });
  const before = wire.exchanges.length;
  const { status, receipt } = await kari.upload({ waitSeconds: 1 });
  check("the batch is accepted and durable (202)", status, 202);
  check(
    "its outcomes are pending",
    receipt.results.map((result) => result.status),
    ["pending", "pending", "pending"],
  );
  check("Kari's phone may forget nothing yet", kari.unsettled().length, 3);
  await legacy.start();
  say("json-server is back. Kari's phone follows its cursor until it has heard of all three:", "");
  const deadline = Date.now() + 30_000;
  while (kari.unsettled().length > 0 && Date.now() < deadline) await kari.pull({ waitSeconds: 5 });
  table(kari.outbox().slice(5).map(outcomeRow));
  const id = (tempId: string): string => kari.serverId(tempId);
  check("the batch arrived in order, each mutation once", writes(wire.exchanges.slice(before)), [
    "POST /activities",
    `PATCH /activities/${id(cinema)}`,
    `PATCH /activities/${id(talk)}`,
  ]);
  say("", "Records, as json-server holds them now:", "");
  await showRecords(scene);
  await ola.pull();
  check("Ola sees it too", minutesOf(ola), { walk: 50, "phone call": 25, cinema: 130 });
}

async function showRecords({ legacy }: Scene): Promise<void> {
  const rows = [];
  for (const collection of Object.keys(strangers)) {
    for (const record of await legacy.records(collection))
      rows.push([collection, short(JSON.stringify(record))]);
  }
  table(rows);
}

function outboxRow({ seq, op, entity, recordId, data }: Queued): (string | number)[] {
  return [seq, op, entity, short(recordId), short(JSON.stringify(data))];
}

function outcomeRow({ seq, op, entity, result }: Queued): (string | number)[] {
  const { status = "", recordId = "", version = "", problem } = result ?? {};
  return [
    seq,
    op,
    entity,
    status,
    problem ? problem.type.replace("urn:tidegate:problem:", "") : `${recordId} v${version}`,
  ];
}

function wireRow({ method, path, status, answer, lost }: Exchange): (string | number)[] {
  if (lost === "request") return [method, short(path), "lost on its way there"];
  if (lost === "reply") return [method, short(path), `${status}, but the reply was lost`];
  const found = path.includes("?") ? `: ${counted(JSON.parse(answer) as unknown[])}` : "";
  return [method, short(path), status === undefined ? "no answer" : `${status}${found}`];
}

function counted({ length }: unknown[]): string {
  return length === 1 ? "1 record" : `${length} records`;
}

function changeRow(change: Change): (string | number)[] {
  if (change.type === "outcome") return [change.type, "", change.result.id, change.result.status];
  const data = change.type === "upsert" ? short(JSON.stringify(change.data)) : "";
  return [change.type, change.entity, change.id, data];
}

function isPrivate(change: Change): boolean {
  return change.type === "outcome" || "tempId" in change;
}

function minutesOf(phone: Phone): Record<string, unknown> {
  return Object.fromEntries(phone.view("activity").map(({ data }) => [data["what"], data["minutes"]]));
}

function answersOf(exchanges: Exchange[], method: string, path: string): LegacyRecord[][] {
  return exchanges
    .filter(
      (exchange) =>
        exchange.method === method && exchange.path.split("?")[0] === path && exchange.answer !== "",
    )
    .map(({ answer }) => JSON.parse(answer) as LegacyRecord[]);
}

function referencesOf(records: LegacyRecord[] = []): unknown[] {
  return records.map((record) => record["externalRef"]);
}

/** What took effect at the legacy system, in its order. */
function writes(exchanges: Exchange[]): string[] {
  return exchanges
    .filter(({ method, status }) => method !== "GET" && status !== undefined && status < 300)
    .map(({ method, path }) => `${method} ${path}`);
}
