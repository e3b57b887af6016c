/**
 * The seconds of `Prefer: wait=N` (RFC 7240), at most `maxSeconds`; undefined when the header does not ask for it in a
 * way that can be understood, which the RFC says to ignore.
 */
export function preferredWaitSeconds(
  header: string | string[] | undefined,
  maxSeconds: number,
): number | undefined {
  for (const preference of [header ?? []].flat().join(",").split(",")) {
    const found = /^\s*wait\s*=\s*"?(\d{1,9})"?\s*(;.*)?$/i.exec(preference)?.[1];
    if (found !== undefined) return Math.min(Number(found), maxSeconds);
  }
  return undefined;
}
