import { Counter, type Registry } from "prom-client";

/** Makes what counts, by tenant, the losses that clients report. */
export function createLossCounter(
  registry: Registry,
  tenantIds: readonly string[],
): (tenantId: string) => void {
  const losses = new Counter({
    name: "tidegate_client_losses_total",
    help: "Reports of clients that mutations of theirs are lost for ever (lostThrough).",
    labelNames: ["tenant"],
    registers: [registry],
  });
  // A series that begins at 1 has not increased: the first loss would alarm nobody.
  for (const tenant of tenantIds) losses.inc({ tenant }, 0);
  return (tenant) => losses.inc({ tenant });
}
