import { promisify } from "node:util";
import { brotliDecompress, gunzip, inflate } from "node:zlib";

import { UpstreamError } from "../connector.ts";
import type { HttpAnswer } from "../http-client.ts";

const decoders = new Map([
  ["gzip", promisify(gunzip)],
  ["x-gzip", promisify(gunzip)],
  ["deflate", promisify(inflate)],
  ["br", promisify(brotliDecompress)],
]);

/**
 * The answer without the coding that a server or a proxy has put it in: none was asked for, and some do it all the same.
 * The body of a failure that can't be decoded is left out.
 *
 * @throws {UpstreamError} `ambiguous` for a success of more than `answerBytesMax`, in a coding that is not known, or damaged
 */
export async function decoded(
  answer: HttpAnswer,
  { answerBytesMax }: { answerBytesMax: number },
): Promise<HttpAnswer> {
  const { status, headers, body } = answer;
  const coding = String(headers["content-encoding"] ?? "identity")
    .trim()
    .toLowerCase();
  if (coding === "identity" || coding === "" || body.length === 0) return answer;
  try {
    const decode = decoders.get(coding);
    if (!decode) throw new Error("a coding that is not known");
    return { ...answer, body: await decode(body, { maxOutputLength: answerBytesMax }) };
  } catch (error) {
    if (status >= 300) return { ...answer, body: Buffer.alloc(0) };
    const isTooLarge = (error as NodeJS.ErrnoException).code === "ERR_BUFFER_TOO_LARGE";
    throw new UpstreamError(
      isTooLarge
        ? "no usable answer from the upstream: it is too large"
        : "the answer's content coding can't be read",
      { certainty: "ambiguous", disposition: "retry", status },
    );
  }
}
