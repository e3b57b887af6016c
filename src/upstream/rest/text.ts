import type { HttpAnswer } from "../http-client.ts";

/**
 * What a JSON string or number says, as text: a number's digits as they were sent, also beyond 2^53. undefined for
 * every other value.
 */
export function toText(token: string): string | undefined {
  if (token.startsWith('"')) return JSON.parse(token) as string;
  return /^-?\d/.test(token) ? token : undefined;
}

const utf8 = new TextDecoder("utf-8", { fatal: true });

/**
 * An answer's body, when it is JSON; undefined when it is not. It is read as UTF-8, as JSON has to be; where it is not
 * that, in the charset that its Content-Type names: old servers do so.
 */
export function textOf({ headers, body }: Pick<HttpAnswer, "headers" | "body">): string | undefined {
  for (const decode of [
    () => utf8.decode(body),
    () => inCharset(String(headers["content-type"] ?? ""), body),
  ])
    try {
      const text = decode();
      JSON.parse(text);
      return text;
    } catch {
      continue;
    }
  return undefined;
}

function inCharset(contentType: string, body: Buffer): string {
  const [, charset = "utf-8"] = /;\s*charset\s*=\s*"?([^\s;"]+)/i.exec(contentType) ?? [];
  return new TextDecoder(charset, { fatal: true }).decode(body);
}
