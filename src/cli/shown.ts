import type { Config, TenantConfig } from "../platform/config/schema.ts";
import { UpstreamError } from "../upstream/connector.ts";
import { MappingError } from "../upstream/mapping/mapping.ts";

/** What is looked at of a configuration. */
export interface Looked {
  tenants: Record<keyof Config["tenants"], Pick<TenantConfig, "upstreams">>;
}

/** What one look at an upstream has shown. Holds nothing of any record. */
export interface Finding {
  tenant: string;
  upstream: string;
  entity: string;
  what: "access" | "list" | "pages" | "since" | "id" | "version" | "fromUpstream" | "unknown id" | "lookup";
  result: "works" | "broken" | "unverified";
  detail: string;
}

export type Shown = Pick<Finding, "what" | "result" | "detail">;

export const works = (what: Shown["what"], detail = ""): Shown => ({ what, result: "works", detail });
export const broken = (what: Shown["what"], detail: string): Shown => ({ what, result: "broken", detail });
export const unverified = (what: Shown["what"], detail: string): Shown => ({
  what,
  result: "unverified",
  detail,
});

export type Attempt<T> = { value: T } | { error: UpstreamError | MappingError };

export async function attempt<T>(call: () => Promise<T>): Promise<Attempt<T>> {
  try {
    return { value: await call() };
  } catch (error) {
    if (error instanceof UpstreamError || error instanceof MappingError) return { error };
    throw error;
  }
}
