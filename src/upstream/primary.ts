import type { TenantConfig } from "../platform/config/schema.ts";
import type { UpstreamConfig } from "../platform/config/upstream-schema.ts";

/** The tenant's one primary; the configuration is checked to have it. */
export function primaryOf({ upstreams }: Pick<TenantConfig, "upstreams">): {
  id: string;
  upstream: UpstreamConfig;
} {
  for (const [id, upstream] of Object.entries(upstreams))
    if (upstream.role === "primary") return { id, upstream };
  throw new Error("a tenant without a primary passed the check of the configuration");
}

/** The tenant's shadows. */
export function shadowsOf({ upstreams }: Pick<TenantConfig, "upstreams">): {
  id: string;
  upstream: UpstreamConfig;
}[] {
  return Object.entries(upstreams)
    .filter(([, upstream]) => upstream.role === "shadow")
    .map(([id, upstream]) => ({ id, upstream }));
}

/** The entities whose records are listed, since the primary is polled for others' changes. */
export function polledEntities({ poll, entities }: UpstreamConfig): string[] {
  if (!poll) return [];
  return Object.entries(entities).flatMap(([name, { list }]) => (list ? [name] : []));
}
