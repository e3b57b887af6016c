import { UpstreamError } from "../upstream/connector.ts";
import type { Untaken } from "../upstream/mapping/failing.ts";
import type { Slice } from "./slice.ts";

/**
 * What is to be done about data that a mapping can't take when it takes nobody's: as with a wrong password, the breaker
 * opens and the mutation waits, where it would park one after another. Undefined when it may be this data's fault alone.
 */
export function failingMapping(
  { upstream, log }: Slice,
  { place, message }: { place: string; message: string },
  of: Untaken,
): UpstreamError | undefined {
  if (!upstream.mappingFailed(place, of)) return undefined;
  if (upstream.admits().calls > 0) {
    log.error(
      { mapping: place },
      "a mapping takes nobody's data: the upstream's breaker opens until it does",
    );
    upstream.trip();
  }
  return new UpstreamError(`A mapping takes nobody's data: ${message}`, {
    certainty: "not-sent",
    disposition: "retry",
    systemic: true,
  });
}
