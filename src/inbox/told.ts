import type { KnownMutation } from "./results.ts";

/** Told of the final outcomes by which a change was not made, when their client is about to be answered with them. */
export type OnTold = (tenantId: string, told: { clientId: string; mutationId: string }[]) => void;

export function refusedAmong(known: readonly KnownMutation[]): { clientId: string; mutationId: string }[] {
  return known
    .filter(({ status }) => status === "rejected" || status === "conflict")
    .map(({ id, clientId }) => ({ clientId, mutationId: id }));
}
