import { createPublicKey, type JsonWebKey, type KeyObject } from "node:crypto";

import { TidegateError } from "../platform/errors.ts";

export type KeyAlgorithm = "RS256" | "ES256" | "EdDSA";

export interface JwksOptions {
  /** Pause between two fetches; keeps tokens with made-up key IDs from driving requests to the issuer. */
  cooldownMs?: number;
  /** Age at which the keys are fetched anew in the background, so that a withdrawn key stops being accepted. */
  maxAgeMs?: number;
  timeoutMs?: number;
  bytesMax?: number;
  /** Told about each fetch that failed. */
  onError?: (error: unknown) => void;
}

export interface Jwks {
  /**
   * The public key with this ID, as PEM; undefined when the issuer has none that fits. Without an ID: the only key.
   * @throws {TidegateError} `unavailable` when the key is not known and the issuer can't be asked.
   */
  keyFor(keyId: string | undefined): Promise<string | undefined>;
}

/**
 * The keys that an issuer publishes, for one algorithm.
 *
 * Known keys need no fetch and survive an outage of the issuer for as long as it lasts. An unknown key ID fetches them,
 * at most once in `cooldownMs`; whoever asks meanwhile waits for the same answer.
 */
export function createJwks(uri: string, algorithm: KeyAlgorithm, options: JwksOptions = {}): Jwks {
  const { cooldownMs = 5000, maxAgeMs = 600_000, timeoutMs = 5000, bytesMax = 262_144, onError } = options;
  let keys: ReadonlyMap<string | undefined, string> = new Map();
  let reachable = true;
  let fetchedAtMs = Number.NEGATIVE_INFINITY;
  let inFlight: Promise<void> | undefined;

  async function refetch(): Promise<void> {
    try {
      keys = usableKeys(await fetchKeys(uri, timeoutMs, bytesMax), algorithm);
      reachable = true;
    } catch (error) {
      reachable = false;
      onError?.(error);
    } finally {
      inFlight = undefined;
    }
  }

  function refresh(whenOlderThanMs: number): Promise<void> | undefined {
    if (inFlight === undefined && performance.now() - fetchedAtMs >= whenOlderThanMs) {
      fetchedAtMs = performance.now();
      inFlight = refetch();
    }
    return inFlight;
  }

  return {
    async keyFor(keyId) {
      const known = keys.get(keyId);
      if (known !== undefined) {
        void refresh(reachable ? maxAgeMs : cooldownMs);
        return known;
      }
      await refresh(cooldownMs);
      const key = keys.get(keyId);
      if (key === undefined && !reachable) {
        throw new TidegateError("unavailable", "The issuer's keys can't be fetched at the moment.");
      }
      return key;
    },
  };
}

async function fetchKeys(uri: string, timeoutMs: number, bytesMax: number): Promise<JsonWebKey[]> {
  const response = await fetch(uri, {
    headers: { accept: "application/json" },
    redirect: "error",
    signal: AbortSignal.timeout(timeoutMs),
  });
  if (!response.ok) {
    await response.body?.cancel();
    throw new Error(`${uri} answered ${response.status}`);
  }
  const { keys } = JSON.parse(await readText(response, bytesMax)) as { keys?: unknown };
  if (!Array.isArray(keys)) throw new Error(`${uri} is not a key set`);
  return keys.filter((key): key is JsonWebKey => typeof key === "object" && key !== null);
}

async function readText(response: Response, bytesMax: number): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of response.body ?? []) {
    bytes += chunk.length;
    if (bytes > bytesMax) throw new Error(`the key set is larger than ${bytesMax} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

/** By key ID, and under `undefined` the only key when there is just one. */
function usableKeys(jwks: JsonWebKey[], algorithm: KeyAlgorithm): Map<string | undefined, string> {
  const usable = jwks
    .map((jwk) => ({ keyId: jwk["kid"], pem: toPem(jwk, algorithm) }))
    .filter((key): key is { keyId: unknown; pem: string } => key.pem !== undefined);
  if (usable.length === 0) throw new Error(`the key set has no key for ${algorithm}`);
  const keys = new Map<string | undefined, string>();
  for (const { keyId, pem } of usable) if (typeof keyId === "string") keys.set(keyId, pem);
  const [only, another] = usable;
  if (only !== undefined && another === undefined) keys.set(undefined, only.pem);
  return keys;
}

function toPem(jwk: JsonWebKey, algorithm: KeyAlgorithm): string | undefined {
  if (jwk["use"] === "enc" || (jwk["alg"] !== undefined && jwk["alg"] !== algorithm)) return undefined;
  try {
    const key = createPublicKey({ key: jwk, format: "jwk" });
    return fits[algorithm](key) ? key.export({ type: "spki", format: "pem" }).toString() : undefined;
  } catch {
    return undefined; // a kind of key that this runtime does not know, beside others that it does
  }
}

/** What kind of key an algorithm takes. A key of another kind is never tried. */
const fits: Record<KeyAlgorithm, (key: KeyObject) => boolean> = {
  RS256: ({ asymmetricKeyType, asymmetricKeyDetails }) =>
    asymmetricKeyType === "rsa" && (asymmetricKeyDetails?.modulusLength ?? 0) >= 2048,
  ES256: ({ asymmetricKeyType, asymmetricKeyDetails }) =>
    asymmetricKeyType === "ec" && asymmetricKeyDetails?.namedCurve === "prime256v1",
  EdDSA: ({ asymmetricKeyType }) => asymmetricKeyType === "ed25519",
};
