import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";

/** A request as it would have left. */
export interface Captured {
  method: string;
  path: string;
  headers: [name: string, value: string][];
  body: string;
}

/** Takes the place of an upstream on this machine: keeps what comes, and answers each request with 204. */
export interface Capture extends AsyncDisposable {
  origin: string;
  requests: Captured[];
}

export async function startCapture(): Promise<Capture> {
  const requests: Captured[] = [];
  const server = createServer((incoming, response) => {
    void keep(incoming, requests).finally(() => response.writeHead(204).end());
  });
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once("error", reject).listen(0, "127.0.0.1", resolve);
  await promise;
  return {
    origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests,
    async [Symbol.asyncDispose]() {
      const closed = Promise.withResolvers<void>();
      server.close(() => closed.resolve());
      server.closeAllConnections();
      await closed.promise;
    },
  };
}

async function keep(incoming: IncomingMessage, requests: Captured[]): Promise<void> {
  requests.push(await captured(incoming));
}

async function captured(incoming: IncomingMessage): Promise<Captured> {
  const chunks: Buffer[] = [];
  for await (const chunk of incoming) chunks.push(chunk as Buffer);
  const { rawHeaders, method = "", url: path = "" } = incoming;
  const headers = rawHeaders.flatMap((name, at): [string, string][] =>
    at % 2 === 0 ? [[name, rawHeaders[at + 1] ?? ""]] : [],
  );
  return { method, path, headers, body: Buffer.concat(chunks).toString() };
}
