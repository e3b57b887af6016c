import type { Server, ServerResponse } from "node:http";
import type { Socket } from "node:net";

import { problemMediaType } from "./problem.ts";

const answers = {
  HPE_HEADER_OVERFLOW: { status: 431, title: "Request Header Fields Too Large" },
  ERR_HTTP_REQUEST_TIMEOUT: { status: 408, title: "Request Timeout" },
} as const;

const underWay = new WeakMap<Socket, Set<ServerResponse>>();

/** Remembers which answers are under way on each connection, for `answerBrokenHttp`. */
export function noteAnswers(server: Server): void {
  server.on("request", ({ socket }, response) => {
    const own = underWay.get(socket) ?? new Set();
    underWay.set(socket, own.add(response));
    response.once("close", () => own.delete(response));
  });
}

/**
 * Answers what is not HTTP, or came too slowly, on the bare socket: there is no request yet. What comes after it on the same
 * socket, which is as broken, is not answered.
 *
 * Behind a request that came whole, the connection is cut without a word: the client would take it for the answer to that
 * one, which may have been carried out, or for a part of it.
 */
export function answerBrokenHttp(error: Error & { code?: string }, socket: Socket): void {
  if (error.code === "ECONNRESET" || !socket.writable) return;
  if ([...(underWay.get(socket) ?? [])].some(({ req, headersSent }) => req.complete || headersSent)) {
    socket.destroy();
    return;
  }
  const { status, title } = answers[error.code as keyof typeof answers] ?? {
    status: 400,
    title: "Bad Request",
  };
  const type = "urn:tidegate:problem:invalid-request";
  const body = JSON.stringify({
    type,
    title: "The request does not follow the protocol",
    status,
    detail: title,
  });
  socket.write(
    `HTTP/1.1 ${status} ${title}\r\nContent-Type: ${problemMediaType}\r\n` +
      `Content-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  );
  socket.destroySoon();
}
