import type { FcmConfig } from "../platform/config/push-schema.ts";
import type { HttpAnswer } from "../upstream/http-client.ts";
import { codeOf, createAccessTokens, readJson, TokenRefused, type AccessTokens } from "./access-token.ts";
import { failedWith, openCaller, withoutAnswer, type CallOptions, type Caller } from "./call.ts";
import type { Push, PushService, Verdict } from "./service.ts";

/** Firebase Cloud Messaging, HTTP v1: silent messages to Android and iOS. */
export function openFcm(config: FcmConfig, options: CallOptions): PushService {
  const tokens = createAccessTokens(config, options);
  const messages = `${config.baseUrl.replace(/\/+$/, "")}/v1/projects/${config.projectId}/messages:send`;
  const caller = openCaller(messages, options);
  return {
    name: "fcm",
    async send(push) {
      try {
        return verdictOn(await sendWithToken(tokens, caller, push, messageOf(push, config)));
      } catch (error) {
        return error instanceof TokenRefused
          ? failedWith(error.answer, error.message, "unauthorized")
          : withoutAnswer(error);
      }
    },
    async close() {
      await Promise.all([tokens.close(), caller.close()]);
    },
  };
}

/** An access token may be taken back at any time: then another one is fetched, once. */
async function sendWithToken(
  tokens: AccessTokens,
  caller: Caller,
  { mayStart }: Push,
  message: string,
): Promise<HttpAnswer> {
  const attempt = async (token: string): Promise<HttpAnswer> =>
    await caller.post(
      ["authorization", `Bearer ${token}`, "content-type", "application/json; charset=utf-8"],
      message,
      mayStart,
    );
  const token = await tokens.get();
  const answer = await attempt(token);
  if (answer.status !== 401 || errorOf(answer).code === "THIRD_PARTY_AUTH_ERROR") return answer;
  tokens.reject(token);
  return await attempt(await tokens.get());
}

/** Pushes that a device has not got yet become one. */
const collapseKey = "tidegate";

function messageOf(
  { platform, address, ttlMs }: Push,
  { androidPriority }: Pick<FcmConfig, "androidPriority">,
): string {
  const ttlSeconds = Math.min(Math.ceil(ttlMs / 1_000), ttlSecondsMax);
  const android = { priority: androidPriority, collapse_key: collapseKey, ttl: `${ttlSeconds}s` };
  const expiration = Math.floor(Date.now() / 1_000) + ttlSeconds;
  const apns = {
    // Anything else than 5 would make it an alert to Apple, and an app that shows none is then not woken again.
    headers: {
      "apns-push-type": "background",
      "apns-priority": "5",
      "apns-collapse-id": collapseKey,
      "apns-expiration": String(expiration),
    },
    payload: { aps: { "content-available": 1 } },
  };
  const message = {
    token: address,
    data: { type: "changed" },
    ...(platform === "ios" ? { apns } : { android }),
  };
  return JSON.stringify({ message });
}

/** FCM keeps nothing for longer than four weeks. */
const ttlSecondsMax = 2_419_200;

function verdictOn(answer: HttpAnswer): Verdict {
  if (answer.status === 200) return { kind: "sent" };
  const { code, status, isAboutToken } = errorOf(answer);
  if (code === "UNREGISTERED") return { kind: "dead", reason: "unregistered" };
  if (code === "SENDER_ID_MISMATCH") return { kind: "dead", reason: "sender-id-mismatch" };
  if (isAboutToken) return { kind: "dead", reason: "invalid-token" };
  return failedWith(answer, `it answered ${answer.status} ${code || status}`.trimEnd());
}

interface FcmError {
  /** FCM's own code. */
  code: string;
  /** Google's. */
  status: string;
  /** The registration token is not one. Any other invalid argument is a fault of ours. */
  isAboutToken: boolean;
}

function errorOf({ status: httpStatus, body }: HttpAnswer): FcmError {
  const error = membersOf(readJson(body)["error"]);
  const details = Array.isArray(error["details"]) ? error["details"].map(membersOf) : [];
  const code = details.map(({ errorCode }) => codeOf(errorCode)).find((found) => found !== "") ?? "";
  const violations = details.flatMap(({ fieldViolations }) =>
    Array.isArray(fieldViolations) ? fieldViolations.map(membersOf) : [],
  );
  const isAboutToken =
    httpStatus === 400 &&
    (violations.some(({ field }) => field === "message.token") ||
      (violations.length === 0 && /registration token/i.test(String(error["message"]))));
  return { code, status: codeOf(error["status"]), isAboutToken };
}

function membersOf(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}
