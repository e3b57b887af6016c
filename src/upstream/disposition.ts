import type { Disposition, UpstreamError } from "./connector.ts";

export type Operation = "create" | "update" | "delete" | "read" | "lookup" | "list";

/** What a status above 299 means for a call. */
export interface Verdict {
  disposition: Disposition;
  certainty: Exclude<UpstreamError["certainty"], "not-sent">;
  systemic: boolean;
}

const retry: Verdict = { disposition: "retry", certainty: "refused", systemic: false };
const conflict: Verdict = { disposition: "conflict", certainty: "refused", systemic: false };
const reject: Verdict = { disposition: "reject", certainty: "refused", systemic: false };
const park: Verdict = { disposition: "park", certainty: "refused", systemic: false };
/** Our access or our configuration is wrong, whatever the record: every call of this upstream fails alike. */
const systemic: Verdict = { disposition: "retry", certainty: "refused", systemic: true };
/** A redirect after a POST often means "done, see there". */
const parkUnclear: Verdict = { disposition: "park", certainty: "ambiguous", systemic: false };
const retryUnclear: Verdict = { disposition: "retry", certainty: "ambiguous", systemic: false };

/** The documented statuses that mean the same for every operation. */
const byStatus: Readonly<Record<number, Verdict>> = {
  // The collection lives elsewhere (http instead of https, another host); redirects are never followed.
  301: systemic,
  307: systemic,
  308: systemic,
  400: reject,
  401: systemic,
  403: systemic,
  407: systemic,
  408: retry,
  409: conflict,
  412: conflict,
  413: reject,
  // 415, 405, 406 … blame the request's form, which is ours and not the client's: parked as unknown.
  422: reject,
  425: retry,
  429: retry,
};

/** A record that is gone: another's delete for a change, a wrong path for anything else. */
const whenGone: Readonly<Record<Operation, Verdict>> = {
  create: park,
  update: conflict,
  delete: conflict,
  read: park,
  lookup: park,
  list: park,
};

/**
 * Judges an answer that is not a success.
 *
 * @param overrides the configured `statuses`. One that says retry, conflict or reject also says that nothing was done;
 * `park` says nothing about that, so a 5xx stays ambiguous in the evidence.
 */
export function judge(
  status: number,
  operation: Operation,
  overrides: Readonly<Record<number, Disposition>> = {},
): Verdict {
  const usual = usualVerdict(status, operation);
  const disposition = overrides[status];
  if (disposition === undefined) return usual;
  const certainty = disposition === "park" ? usual.certainty : "refused";
  return { disposition, certainty, systemic: false };
}

function usualVerdict(status: number, operation: Operation): Verdict {
  const documented = byStatus[status];
  if (documented) return documented;
  if (status === 404 || status === 410) return whenGone[operation];
  if (status >= 500) return retryUnclear;
  return status < 400 ? parkUnclear : park;
}
