import { request as plainRequest, type RequestOptions } from "node:http";
import { request as secureRequest } from "node:https";
import type { Duplex } from "node:stream";

import { buildConnector } from "undici";

type Connect = buildConnector.connector;

/**
 * Connects to an https origin by a tunnel through the proxy (CONNECT), and speaks TLS with the origin inside it.
 *
 * A proxy that can't be reached, refuses or does not answer in time is a connection that failed: no request was written.
 * @param timeoutMs for the tunnel, and again for TLS inside it
 */
export function connectThrough(
  proxy: string,
  options: buildConnector.BuildOptions & { timeoutMs: number },
): Connect {
  const { timeoutMs, ...rest } = options;
  const { ca } = rest as { ca?: string[] };
  const secure = buildConnector({ ...rest, allowH2: false, timeout: timeoutMs });
  return (target, callback) => {
    const host = target.hostname.includes(":") ? `[${target.hostname}]` : target.hostname;
    openTunnel({ proxy: new URL(proxy), ca }, `${host}:${target.port || 443}`, timeoutMs, (opened) => {
      if (opened instanceof Error) callback(opened, null);
      else secure({ ...target, httpSocket: opened as never }, callback);
    });
  };
}

/** What a proxy is shown of us: the credentials in its URL. */
export function proxyAuthorization(proxy: string): string[] {
  const { username, password } = new URL(proxy);
  if (username === "" && password === "") return [];
  const pair = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`;
  return ["proxy-authorization", `Basic ${Buffer.from(pair).toString("base64")}`];
}

/** @param done is told the tunnel, or what failed, once. */
function openTunnel(
  { proxy, ca }: { proxy: URL; ca: string[] | undefined },
  authority: string,
  timeoutMs: number,
  done: (opened: Duplex | Error) => void,
): void {
  const [name, value] = proxyAuthorization(proxy.href);
  const options: RequestOptions = {
    method: "CONNECT",
    // An IPv6 address stands in brackets in a URL only.
    host: proxy.hostname.replace(/^\[|\]$/g, ""),
    port: proxy.port || (proxy.protocol === "https:" ? 443 : 80),
    path: authority,
    headers: { host: authority, ...(name !== undefined && { [name]: value }) },
    agent: false,
  };
  const request =
    proxy.protocol === "https:" ? secureRequest({ ...options, ...(ca && { ca }) }) : plainRequest(options);
  const deadline = setTimeout(() => void request.destroy(new Error("timeout")), timeoutMs);
  request.once("connect", ({ statusCode = 0 }, socket, head) => {
    clearTimeout(deadline);
    if (statusCode < 200 || statusCode > 299) {
      socket.destroy();
      return done(new Error(`the proxy answered CONNECT with ${statusCode}`));
    }
    if (head.length > 0) socket.unshift(head);
    done(socket);
  });
  request.once("error", ({ code, message }: NodeJS.ErrnoException) => {
    clearTimeout(deadline);
    done(new Error(`no tunnel through the proxy: ${code ?? message}`));
  });
  request.end();
}
