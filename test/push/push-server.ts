import { createHmac, generateKeyPairSync, timingSafeEqual, verify } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

import { expect, vi } from "vitest";

/**
 * A server that speaks what FCM and its token server speak, and receives webhooks, on a real port. It checks what it is
 * sent as they do; a test may script other answers.
 */
export interface PushServer extends AsyncDisposable {
  url: string;
  /** The tenant's `push` for it. */
  fcm: { projectId: string; clientEmail: string; privateKey: string; tokenUri: string; baseUrl: string };
  webhook: { url: string; secret: string };
  /** Access tokens that were given. */
  grants: number;
  /** Access tokens that were asked for. */
  asked: number;
  /** Until it resolves, nobody gets an access token. */
  grantsFrom: Promise<void>;
  /** Messages and webhooks that were taken, in order. */
  pushes: TakenPush[];
  /** Every call for a push, also those that were not taken. */
  calls: { address: string; at: number }[];
  /** Registration tokens that are no longer registered. */
  unregistered: Set<string>;
  /** Takes back the access tokens that were given. */
  expireAccessTokens: () => void;
  /** How long the access tokens last that are given from now on; 3,600 at first. */
  accessTokenSeconds: number;
  /** The next calls meet these answers, one each. */
  script: (...answers: PushAnswer[]) => void;
  /** Every call does, until there is none. */
  always: PushAnswer | undefined;
  /** Waits until so many pushes were taken, and resolves with them. */
  taken: (count: number) => Promise<TakenPush[]>;
}

export interface TakenPush {
  /** The registration token, or what the webhook was handed for it. */
  address: string;
  /** The whole body. */
  // oxlint-disable-next-line typescript/no-explicit-any
  body: any;
  headers: IncomingMessage["headers"];
}

/** Answers by itself, or lets the call be taken as usual. */
export type PushAnswer = (call: {
  address: string;
  response: ServerResponse;
  take: () => void;
}) => void | Promise<void>;

/** An error of FCM's, in its form. */
export function fcmError(
  code: number,
  errorCode: string,
  {
    headers = {},
    field,
    message = "no",
  }: { headers?: Record<string, string>; field?: string; message?: string } = {},
): PushAnswer {
  return ({ response }) => sendFcmError(response, code, errorCode, { headers, field, message });
}

function sendFcmError(
  response: ServerResponse,
  code: number,
  errorCode: string,
  {
    headers = {},
    field,
    message = "no",
  }: { headers?: object; field?: string | undefined; message?: string } = {},
): void {
  const details = [
    { "@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", errorCode },
    ...(field === undefined
      ? []
      : [{ "@type": "type.googleapis.com/google.rpc.BadRequest", fieldViolations: [{ field }] }]),
  ];
  response.writeHead(code, { "content-type": "application/json", ...headers });
  response.end(JSON.stringify({ error: { code, status: errorCode, message, details } }));
}

const { publicKey, privateKey } = generateKeyPairSync("rsa", { modulusLength: 2_048 });
const pem = privateKey.export({ type: "pkcs8", format: "pem" }).toString();
const clientEmail = "tidegate@a-project.iam.gserviceaccount.com";
const webhookSecret = `whsec_${Buffer.from("a webhook's secret, of 32 bytes!").toString("base64")}`;

export async function startPushServer(): Promise<PushServer> {
  const accessTokens = new Map<string, number>();
  let scripted: PushAnswer[] = [];
  const server = createServer((incoming, response) => {
    incoming.on("error", () => undefined);
    response.on("error", () => undefined);
    void serve(incoming, response);
  });
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const tokenUri = `${url}/token`;

  async function serve(incoming: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of incoming) chunks.push(chunk as Buffer);
    const text = Buffer.concat(chunks).toString();
    if (incoming.url === "/token") {
      me.asked++;
      await me.grantsFrom;
      return grant(incoming, text, response);
    }
    if (incoming.url === "/hook") return await receive(incoming, text, response);
    if (incoming.url === "/v1/projects/a-project/messages:send")
      return await message(incoming, text, response);
    response.writeHead(404).end("<html>not here</html>");
  }

  function grant(incoming: IncomingMessage, text: string, response: ServerResponse): void {
    const fault = assertionFault(incoming, text, tokenUri);
    if (fault !== undefined) {
      response.writeHead(400, { "content-type": "application/json" });
      return void response.end(JSON.stringify({ error: "invalid_grant", error_description: fault }));
    }
    const token = `access-${++me.grants}`;
    accessTokens.set(token, performance.now() + me.accessTokenSeconds * 1_000);
    response.writeHead(200, { "content-type": "application/json" });
    response.end(
      JSON.stringify({ access_token: token, expires_in: me.accessTokenSeconds, token_type: "Bearer" }),
    );
  }

  async function message(incoming: IncomingMessage, text: string, response: ServerResponse): Promise<void> {
    const body = JSON.parse(text) as { message: { token: string } };
    const [scheme, bearer = ""] = (incoming.headers.authorization ?? "").split(" ");
    const isValid = scheme === "Bearer" && (accessTokens.get(bearer) ?? -Infinity) > performance.now();
    await answer(body.message.token, response, () => {
      if (!isValid) return sendFcmError(response, 401, "UNAUTHENTICATED");
      const field = messageFault(body);
      if (field !== undefined) return sendFcmError(response, 400, "INVALID_ARGUMENT", { field });
      if (me.unregistered.has(body.message.token)) return sendFcmError(response, 404, "UNREGISTERED");
      me.pushes.push({ address: body.message.token, body, headers: incoming.headers });
      response.writeHead(200, { "content-type": "application/json" });
      response.end(JSON.stringify({ name: `projects/a-project/messages/${me.pushes.length}` }));
    });
  }

  async function receive(incoming: IncomingMessage, text: string, response: ServerResponse): Promise<void> {
    if (!isSignedWell(incoming, text)) return void response.writeHead(401).end();
    const body = JSON.parse(text) as { data: { registration: string } };
    await answer(body.data.registration, response, () => {
      me.pushes.push({ address: body.data.registration, body, headers: incoming.headers });
      response.writeHead(204).end();
    });
  }

  async function answer(address: string, response: ServerResponse, take: () => void): Promise<void> {
    me.calls.push({ address, at: performance.now() });
    const [first, ...rest] = scripted;
    scripted = rest;
    const script = first ?? me.always;
    if (script) await script({ address, response, take });
    else take();
  }

  const me: PushServer = {
    url,
    fcm: { projectId: "a-project", clientEmail, privateKey: pem, tokenUri, baseUrl: url },
    webhook: { url: `${url}/hook`, secret: webhookSecret },
    grants: 0,
    asked: 0,
    grantsFrom: Promise.resolve(),
    pushes: [],
    calls: [],
    unregistered: new Set(),
    expireAccessTokens: () => accessTokens.clear(),
    accessTokenSeconds: 3_600,
    script: (...answers) => void scripted.push(...answers),
    always: undefined,
    async taken(count) {
      await vi.waitFor(() => expect(me.pushes.length).toBeGreaterThanOrEqual(count), {
        timeout: 60_000,
        interval: 20,
      });
      return me.pushes;
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => void server.close(resolve));
    },
  };
  return me;
}

/** What is wrong with an assertion (RFC 7523), as Google's token server would find it. */
function assertionFault(incoming: IncomingMessage, text: string, tokenUri: string): string | undefined {
  const form = new URLSearchParams(text);
  const [header = "", claims = "", signature = ""] = (form.get("assertion") ?? "").split(".");
  const isSigned = verify(
    "sha256",
    Buffer.from(`${header}.${claims}`),
    publicKey,
    Buffer.from(signature, "base64url"),
  );
  if (incoming.headers["content-type"] !== "application/x-www-form-urlencoded") return "content type";
  if (form.get("grant_type") !== "urn:ietf:params:oauth:grant-type:jwt-bearer") return "grant_type";
  if (!isSigned || partOf(header)["alg"] !== "RS256") return "signature";
  const { iss, aud, scope, iat, exp } = partOf(claims) as Record<string, string> & {
    iat: number;
    exp: number;
  };
  const now = Date.now() / 1_000;
  if (iss !== clientEmail || aud !== tokenUri) return "iss or aud";
  if (scope !== "https://www.googleapis.com/auth/firebase.messaging") return "scope";
  if (!(iat <= now + 5 && iat > now - 60 && exp > now && exp - iat <= 3_600)) return "iat or exp";
  return undefined;
}

function partOf(token: string): Record<string, unknown> {
  return JSON.parse(Buffer.from(token, "base64url").toString()) as Record<string, unknown>;
}

/** The first field that FCM, or the platform behind it, would not have. */
function messageFault(body: { message: object }): string | undefined {
  const { token, data, android, apns, ...rest } = body.message as Record<string, Record<string, unknown>>;
  if (Object.keys(body).length !== 1 || Object.keys(rest).length > 0) return "message";
  if (typeof token !== "string" || token === "") return "message.token";
  if (Object.values(data ?? {}).some((value) => typeof value !== "string")) return "message.data";
  if ((android === undefined) === (apns === undefined)) return "message.android";
  if (android) {
    if (!["normal", "high"].includes(String(android["priority"]))) return "message.android.priority";
    if (!/^\d+s$/.test(String(android["ttl"]))) return "message.android.ttl";
  }
  if (apns) {
    const { headers, payload } = apns as {
      headers: Record<string, string>;
      payload: { aps: Record<string, unknown> };
    };
    const isSilent =
      payload.aps["content-available"] === 1 && !("alert" in payload.aps) && !("sound" in payload.aps);
    if (headers["apns-push-type"] !== "background" || headers["apns-priority"] !== "5" || !isSilent) {
      return "message.apns";
    }
  }
  return undefined;
}

/** As a library of Standard Webhooks would see it. */
function isSignedWell({ headers }: IncomingMessage, text: string): boolean {
  const [id, timestamp] = [String(headers["webhook-id"]), String(headers["webhook-timestamp"])];
  if (Math.abs(Date.now() / 1_000 - Number(timestamp)) > 300) return false;
  const key = Buffer.from(webhookSecret.slice("whsec_".length), "base64");
  const expected = createHmac("sha256", key).update(`${id}.${timestamp}.${text}`).digest();
  return String(headers["webhook-signature"])
    .split(" ")
    .some((signature) => {
      const [version, value = ""] = signature.split(",");
      const given = Buffer.from(value, "base64");
      return version === "v1" && given.length === expected.length && timingSafeEqual(given, expected);
    });
}
