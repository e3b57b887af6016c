import { collectDefaultMetrics, Registry } from "prom-client";

/**
 * Makes a registry with the process's own metrics (CPU, memory, event loop, GC). Every part of the gateway registers
 * its gauges and counters here (`registers: [registry]`), never in prom-client's global one: several gateways live in
 * one process in the tests.
 *
 * Labels hold nothing that grows with use or belongs to a person: no IDs, no raw URLs, no scopes.
 */
export function createMetrics(): Registry {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  return registry;
}
