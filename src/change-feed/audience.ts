/** Whose position in the feed a row is: readers of a scope, or one client for its outcomes. */
export function scopeAudience(scope: string): string {
  return `s:${scope}`;
}

export function clientAudience(clientId: string): string {
  return `c:${clientId}`;
}
