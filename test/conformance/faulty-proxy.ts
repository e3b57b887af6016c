import { createServer, request as forward, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

import type { Disposition } from "../../src/upstream/connector.ts";
import type { Fault } from "./kind.ts";

export interface FaultyProxyOptions {
  /** The server behind it, by HTTP. */
  target: string;
  /** What the server would answer to mean each of these. */
  answers: Partial<Record<Disposition | "systemic", ProxyAnswer>>;
  /** A success that makes no sense in the server's protocol. */
  garbage?: ProxyAnswer;
}

export interface ProxyAnswer {
  status: number;
  headers?: Record<string, string>;
  body?: string;
}

/** Stands in front of a real HTTP server, so that the suite's faults need nothing of the server itself. */
export interface FaultyProxy {
  /** The target's URL, by way of here. */
  url: string;
  next: (fault: Fault) => void;
  requests: () => readonly { headers: IncomingMessage["headers"] }[];
  /** Requests that are answered by silence, as long as the client waits. */
  hanging: () => number;
  stop: () => Promise<void>;
}

interface Exchange {
  incoming: IncomingMessage;
  body: Buffer;
  response: ServerResponse;
}

export async function startFaultyProxy(options: FaultyProxyOptions): Promise<FaultyProxy> {
  const { garbage = { status: 200, body: "<html><p>OK</p></html>" }, answers } = options;
  const target = new URL(options.target);
  const requests: { headers: IncomingMessage["headers"] }[] = [];
  const faults: Fault[] = [];
  let hanging = 0;

  async function serve(exchange: Exchange): Promise<void> {
    const { incoming, response } = exchange;
    requests.push({ headers: incoming.headers });
    const fault = faults.shift();
    if (typeof fault === "object") return send(response, answerOf(fault.answer));
    if (fault === "lose-request") return void incoming.socket.resetAndDestroy();
    const answer = await askTarget(target, exchange);
    switch (fault) {
      case "lose-reply":
        return void incoming.socket.resetAndDestroy();
      case "hang":
        hanging++;
        return void response.once("close", () => hanging--);
      case "garbage":
        return send(response, garbage);
      default:
        return send(response, answer);
    }
  }

  function answerOf(meaning: Disposition | "systemic"): ProxyAnswer {
    const answer = answers[meaning];
    if (!answer) throw new Error(`the server has no answer that means ${meaning}`);
    return answer;
  }

  const server = createServer((incoming, response) => {
    void readWhole(incoming)
      .then((body) => serve({ incoming, body, response }))
      .catch(() => incoming.socket.destroy());
  });
  await new Promise<void>((resolve) => {
    server.listen(0, "127.0.0.1", resolve);
  });
  const { port } = server.address() as AddressInfo;
  return {
    url: Object.assign(new URL(target), { hostname: "127.0.0.1", port: String(port) }).href,
    next: (fault) => void faults.push(fault),
    requests: () => requests,
    hanging: () => hanging,
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function send(
  response: ServerResponse,
  { status, headers = {}, body = "" }: ProxyAnswer | TargetAnswer,
): void {
  response.writeHead(status, headers).end(body);
}

interface TargetAnswer {
  status: number;
  headers: IncomingMessage["headers"];
  body: Buffer;
}

/** On a connection of its own, so that nothing of one request stays for the next. */
async function askTarget(target: URL, { incoming, body }: Exchange): Promise<TargetAnswer> {
  const { method = "GET", url: path = "/" } = incoming;
  const headers = { ...incoming.headers, host: target.host, connection: "close" };
  const { hostname: host, port } = target;
  const answer = await new Promise<IncomingMessage>((resolve, reject) => {
    const asked = forward({ host, port, method, path, headers, agent: false }, resolve);
    asked.once("error", reject).end(body);
  });
  const { "transfer-encoding": _chunked, connection: _closed, ...kept } = answer.headers;
  return { status: answer.statusCode ?? 502, headers: kept, body: await readWhole(answer) };
}

async function readWhole(stream: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}
