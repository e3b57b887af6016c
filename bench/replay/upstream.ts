import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

import { answerParent } from "../child.ts";
import type { Activity } from "../phones.ts";
import { createJournal, type Journal, type JournalView } from "./journal.ts";

export type UpstreamRequest =
  | { kind: "listen" }
  | { kind: "reset"; latencyMs: number }
  /** While it is down it answers 503. */
  | { kind: "down"; isDown: boolean }
  | { kind: "journal" }
  /** The phones whose changes took effect, in that order. */
  | { kind: "order" };

/** A system of record that only keeps a journal of what it was asked to change, and answers after a while. */
let latencyMs = 0;
let isDown = false;
let journal: Journal = createJournal();
let lastId = 0;

answerParent(async (request: UpstreamRequest): Promise<string | JournalView | number[] | null> => {
  switch (request.kind) {
    case "listen":
      return await listen();
    case "reset":
      ({ latencyMs } = request);
      journal = createJournal();
      return null;
    case "down":
      ({ isDown } = request);
      return null;
    case "journal":
      return journal.view();
    case "order":
      return journal.order();
  }
});

async function listen(): Promise<string> {
  const server = createServer({ keepAliveTimeout: 60_000 }, receive);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

function receive(request: IncomingMessage, response: ServerResponse): void {
  const chunks: Buffer[] = [];
  request.on("data", (chunk: Buffer) => chunks.push(chunk));
  request.on("end", () => {
    if (isDown) {
      journal.refuse();
      return void response.writeHead(503).end();
    }
    const body = Buffer.concat(chunks).toString();
    const created = request.method === "POST";
    const id = created ? String(++lastId) : (request.url ?? "").slice("/activities/".length);
    journal.add(JSON.parse(body) as Activity, !/^\d+$/.test(id));
    // The effect takes place when the request has come; the answer takes its time.
    const answer = (): void => void response.end(`{"id":"${id}",${body.slice(1)}`);
    response.writeHead(created ? 201 : 200, { "content-type": "application/json" });
    if (latencyMs > 0) setTimeout(answer, latencyMs);
    else answer();
  });
}
