import type { Config } from "../platform/config/schema.ts";
import { TidegateError } from "../platform/errors.ts";
import { shadowsOf } from "../upstream/primary.ts";

/** The tenant's name once it is known to be one. @throws {TidegateError} `not-found`. */
export function knownTenant({ tenants }: Config, tenant: string): string {
  if (!Object.hasOwn(tenants, tenant)) throw new TidegateError("not-found", "There is no such tenant.");
  return tenant;
}

/** The tenant's name and the shadow's. @throws {TidegateError} `not-found`. */
export function knownShadow(
  config: Config,
  { tenant, upstream }: { tenant: string; upstream: string },
): { tenantId: string; upstreamId: string } {
  const tenantId = knownTenant(config, tenant);
  const isKnown = shadowsOf(config.tenants[tenantId]!).some(({ id }) => id === upstream);
  if (!isKnown) throw new TidegateError("not-found", "The tenant has no such shadow.");
  return { tenantId, upstreamId: upstream };
}
