import {
  createServer,
  request as forward,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type ServerResponse,
} from "node:http";
import type { AddressInfo } from "node:net";
import { buffer } from "node:stream/consumers";

/** One request that came by, and what became of it. */
export interface Exchange {
  method: string;
  path: string;
  /** What the other side answered; undefined when the request did not get there or no answer came. */
  status: number | undefined;
  answer: string;
  lost: "request" | "reply" | undefined;
}

/** A network of its own between a client and a server: a proxy on 127.0.0.1 that loses what it is told to lose. */
export interface LossyNetwork {
  /** What the client believes to be the server. */
  url: string;
  /** The next request of this kind arrives and takes effect, but the sender never hears: its connection breaks. */
  loseNextReply: (method: string, path: string) => void;
  /** The next request of this kind is lost on its way, after the sender has sent all of it. */
  loseNextRequest: (method: string, path: string) => void;
  /** In the order in which they ended. */
  exchanges: Exchange[];
  close: () => Promise<void>;
}

interface Plan {
  method: string;
  path: string;
  lost: "request" | "reply";
}

export async function startLossyNetwork(target: string): Promise<LossyNetwork> {
  const exchanges: Exchange[] = [];
  const plans: Plan[] = [];

  async function carry(incoming: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method = "", url = "" } = incoming;
    const body = await buffer(incoming);
    const planned = plans.findIndex((plan) => plan.method === method && plan.path === url.split("?")[0]);
    const lost = planned < 0 ? undefined : plans.splice(planned, 1)[0]?.lost;
    const reached =
      lost === "request" ? undefined : await send(target, incoming, body, response).catch(() => undefined);
    exchanges.push({
      method,
      path: url,
      status: reached?.head.statusCode,
      answer: reached?.body.toString() ?? "",
      lost,
    });
    if (!reached || lost) return void incoming.socket.resetAndDestroy();
    response.writeHead(reached.head.statusCode ?? 502, endToEnd(reached.head.headers)).end(reached.body);
  }

  const server = createServer((incoming, response) => {
    carry(incoming, response).catch(() => incoming.socket.destroy());
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject).listen(0, "127.0.0.1", resolve);
  });
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    loseNextReply: (method, path) => void plans.push({ method, path, lost: "reply" }),
    loseNextRequest: (method, path) => void plans.push({ method, path, lost: "request" }),
    exchanges,
    async close() {
      const closed = new Promise((resolve) => void server.close(resolve));
      server.closeAllConnections();
      await closed;
    },
  };
}

async function send(
  target: string,
  { method, url, headers }: IncomingMessage,
  body: Buffer,
  response: ServerResponse,
): Promise<{ head: IncomingMessage; body: Buffer }> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  const outgoing = forward(target + url, { method, headers: endToEnd(headers), agent: false }, resolve);
  outgoing.on("error", reject).end(body);
  // Whoever gave up waiting on this side is not waited for on the other.
  response.once("close", () => outgoing.destroy());
  const head = await promise;
  return { head, body: await buffer(head) };
}

/** Without the header that is about one connection; each side has its own. */
function endToEnd({ connection: _hop, ...headers }: IncomingHttpHeaders): IncomingHttpHeaders {
  return headers;
}
