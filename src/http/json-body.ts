import { isUtf8 } from "node:buffer";
import { promisify } from "node:util";
import { gunzip } from "node:zlib";

import type { FastifyInstance, FastifyRequest } from "fastify";

import { TidegateError } from "../platform/errors.ts";

declare module "fastify" {
  interface FastifyRequest {
    /** The JSON body as it was sent, decoded; empty without one. `body` is what it parses to. */
    bodyText: string;
  }
}

const inflate = promisify(gunzip);

/**
 * Takes JSON bodies, plain or gzip, and no other type.
 *
 * `request.bodyText` keeps the text, so that numbers, key order and escapes can be passed on as they were sent.
 * Nothing of the text gets into an error. Field names such as `__proto__` are data and are kept.
 *
 * @param bodyBytesMax of the decoded body; a gzip body is inflated no further than that.
 */
export function registerJsonBody(app: FastifyInstance, { bodyBytesMax }: { bodyBytesMax: number }): void {
  app.decorateRequest("bodyText", "");
  app.removeAllContentTypeParsers();
  app.addContentTypeParser<Buffer>(
    "application/json",
    { parseAs: "buffer", bodyLimit: bodyBytesMax },
    async (request: FastifyRequest, body: Buffer): Promise<unknown> => {
      refuseOtherCharsets(request.headers["content-type"]);
      const text = decode(await inflated(request.headers["content-encoding"], body, bodyBytesMax));
      request.bodyText = text;
      return parse(text);
    },
  );
}

const charsetParameter = /;\s*charset\s*=\s*"?([^";\s]*)/i;

function refuseOtherCharsets(contentType = ""): void {
  const charset = charsetParameter.exec(contentType)?.[1]?.toLowerCase();
  if (charset !== undefined && charset !== "utf-8" && charset !== "utf8") {
    throw new TidegateError("unsupported-media-type", "JSON is read as UTF-8 only.");
  }
}

async function inflated(encoding = "identity", body: Buffer, bytesMax: number): Promise<Buffer> {
  switch (encoding.trim().toLowerCase()) {
    case "identity":
      return body;
    case "gzip":
    case "x-gzip":
      return await inflateGzip(body, bytesMax);
    default:
      throw new TidegateError("unsupported-media-type", "The only content encoding is gzip.");
  }
}

async function inflateGzip(body: Buffer, bytesMax: number): Promise<Buffer> {
  try {
    return await inflate(body, { maxOutputLength: bytesMax });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ERR_BUFFER_TOO_LARGE") {
      throw new TidegateError("request-too-large", "The decoded body is larger than the limit.");
    }
    throw new TidegateError("invalid-request", "The body is not complete gzip.", { cause: error });
  }
}

function decode(body: Buffer): string {
  if (!isUtf8(body)) throw new TidegateError("invalid-request", "The body is not UTF-8.");
  return body.toString("utf8");
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // The parser's message quotes the text, so not even as a cause may it get out.
    throw new TidegateError("invalid-request", "The body is not JSON.");
  }
}
