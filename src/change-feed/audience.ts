import { hash } from "node:crypto";

/** Whose position in the feed a row is: readers of a scope, or one client for its outcomes. */
export function scopeAudience(scope: string): string {
  return `s:${scope}`;
}

export function clientAudience(clientId: string): string {
  return `c:${clientId}`;
}

/** The audiences of one reader. */
export function audiencesOf({
  scopes,
  clientId,
}: {
  scopes: readonly string[];
  clientId: string | undefined;
}): string[] {
  const audiences = scopes.map(scopeAudience);
  return clientId === undefined ? audiences : [...audiences, clientAudience(clientId)];
}

/** 48 bits: two audiences that share a key cost a look in vain. */
const keyLength = 8;

/** The key under which readers wait for changes told to an audience. No scope and no ID can be read from it. */
export function hintKey(tenantId: string, audience: string): string {
  return hash("sha256", JSON.stringify([tenantId, audience]), "base64url").slice(0, keyLength);
}

/** The key of everybody in the tenant. */
export function tenantHintKey(tenantId: string): string {
  return hash("sha256", JSON.stringify([tenantId]), "base64url").slice(0, keyLength);
}

/** The keys that a reader of these audiences waits for. */
export function hintKeys(tenantId: string, audiences: readonly string[]): string[] {
  return [tenantHintKey(tenantId), ...audiences.map((audience) => hintKey(tenantId, audience))];
}
