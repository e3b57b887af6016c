import { createRequire } from "node:module";

import { UpstreamError, type Call } from "../connector.ts";

/** A call that is about to be made; `body` is exactly the text that will be sent. */
export interface Signable {
  method: string;
  url: string;
  /** Their names in lower case. */
  headers: Readonly<Record<string, string>>;
  body: string | undefined;
}

/** What a signing hook exports: returns the headers to add, or to put in the place of others. */
export type Sign = (request: Signable) => Record<string, string> | Promise<Record<string, string>>;

/** The headers of a call with its signature, as names and values in turn. */
export type Signer = (request: Omit<Signable, "headers">, headers: string[], call: Call) => Promise<string[]>;

/**
 * A signer by the module `file`, whose default export, or only one, is the function.
 *
 * What it throws, or gives that is no map of texts, stops the call before anything is sent; so does a promise that has
 * not settled after `timeoutMs`. A hook that never returns stops the whole process.
 */
export function openSigner(file: string | undefined, timeoutMs: number): Signer {
  if (file === undefined) return (_request, headers) => Promise.resolve(headers);
  const sign = signIn(createRequire(import.meta.url)(file));
  return async (request, headers, { signal }) => {
    const all = new Map<string, string>();
    for (let at = 0; at < headers.length; at += 2) all.set(headers[at]!, headers[at + 1]!);
    const added = await inTime(async () => await sign({ ...request, headers: Object.fromEntries(all) }), {
      timeoutMs,
      signal,
    });
    if (!isTextMap(added)) throw unsigned("the signing hook gave no map of texts");
    for (const [name, value] of Object.entries(added)) all.set(name.toLowerCase(), value);
    return [...all].flat();
  };
}

function signIn(exported: unknown): Sign {
  const module = exported as Record<string, unknown>;
  const found = module["default"] ?? Object.values(module)[0];
  if (typeof found !== "function") throw new Error("the signing hook exports no function");
  return found as Sign;
}

function isTextMap(value: unknown): value is Record<string, string> {
  if (typeof value !== "object" || value === null) return false;
  return Object.values(value).every((each) => typeof each === "string");
}

async function inTime<T>(
  work: () => Promise<T>,
  { timeoutMs, signal }: { timeoutMs: number; signal: AbortSignal | undefined },
): Promise<T> {
  const { promise: stopped, reject } = Promise.withResolvers<never>();
  const stop = (): void => reject(unsigned("stopped while the signing hook was at work"));
  const deadline = setTimeout(
    () => reject(unsigned(`the signing hook took longer than ${timeoutMs} ms`)),
    timeoutMs,
  );
  signal?.addEventListener("abort", stop);
  try {
    return await Promise.race([work(), stopped]);
  } catch (error) {
    if (error instanceof UpstreamError) throw error;
    // What it says may quote a secret or the data.
    throw unsigned(`the signing hook failed: ${error instanceof Error ? error.name : "no Error"}`);
  } finally {
    clearTimeout(deadline);
    signal?.removeEventListener("abort", stop);
  }
}

/** A hook that fails is wrong for every call: the breaker's matter, not one record's. */
function unsigned(message: string): UpstreamError {
  return new UpstreamError(message, { certainty: "not-sent", disposition: "retry", systemic: true });
}
