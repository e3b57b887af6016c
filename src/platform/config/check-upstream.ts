import { isHttpUrl } from "./check-auth.ts";
import { checkODataHeaders } from "./check-odata.ts";
import { checkEntity } from "./check-entity.ts";
import { checkHttp, type Surroundings } from "./check-http.ts";
import { applyModule } from "./check-module.ts";
import type { Path, Report } from "./report.ts";
import type { Config, TenantConfig } from "./schema.ts";
import type { UpstreamConfig } from "./upstream-schema.ts";

/** What the schema can't say about a tenant's upstreams and their entities. */
export function checkUpstreams(config: Config, report: Report, surroundings: Surroundings): void {
  for (const [tenantId, tenant] of mapsIn(config.tenants)) {
    const path = ["tenants", tenantId, "upstreams"];
    checkPrimary(tenant, path, report);
    for (const [upstreamId, upstream] of mapsIn(tenant.upstreams))
      checkUpstream(upstream, [...path, upstreamId], report, surroundings);
  }
}

/** The entries that are maps, as the schema wants them all to be; the others were reported by it. */
function mapsIn<Value extends object>(map: Record<string, Value> | undefined): [string, Value][] {
  return Object.entries(map ?? {}).filter(([, value]) => typeof value === "object" && value !== null);
}

function checkPrimary({ upstreams }: TenantConfig, path: Path, report: Report): void {
  const ids = mapsIn(upstreams).map(([id]) => id);
  if (ids.length === 0 || !ids.every((id) => report.sound([...path, id], "role"))) return;
  const primaries = ids.filter((id) => upstreams[id]?.role === "primary");
  if (primaries.length === 0) report.problem(path, "one of the upstreams must have `role: primary`");
  for (const id of primaries.slice(1))
    report.problem([...path, id, "role"], `a tenant has one primary, and \`${primaries[0]}\` is it already`);
}

function checkUpstream(
  upstream: UpstreamConfig,
  path: Path,
  report: Report,
  surroundings: Surroundings,
): void {
  const isKnown = !("module" in upstream) || applyModule(upstream, path, report, surroundings.file);
  checkConnector(upstream, path, report);
  checkHttp(upstream, path, report, surroundings);
  if ("baseUrl" in upstream && report.sound(path, "baseUrl"))
    checkBaseUrl(upstream.baseUrl, [...path, "baseUrl"], report);
  if (report.sound(path, "retry") && upstream.retry.baseMs > upstream.retry.capMs)
    report.problem([...path, "retry"], "`baseMs` must not exceed `capMs`");
  if ("errors" in upstream && "kind" in upstream && upstream.kind !== "rest")
    report.problem([...path, "errors"], "is for kind rest");
  const entities = mapsIn(upstream.entities);
  const entityNames = entities.map(([name]) => name);
  for (const [name, entity] of isKnown ? entities : [])
    checkEntity(entity, { path: [...path, "entities", name], entityNames, upstream, report });
}

/** A key that is accepted and not acted on would be a lie. */
function checkConnector(upstream: UpstreamConfig, path: Path, report: Report): void {
  const isModule = "module" in upstream;
  if (isModule && "kind" in upstream)
    report.problem([...path, "module"], "stands instead of `kind`, and that is there too");
  if (!isModule && !("kind" in upstream)) report.problem(path, "needs `kind` or `module`");
  if (!isModule && !("baseUrl" in upstream)) report.problem([...path, "baseUrl"], "is missing");
  if (!isModule && "settings" in upstream)
    report.problem([...path, "settings"], "is for `module`, and there is none");
  if (isModule && !("baseUrl" in upstream))
    for (const key of ofHttp.filter((each) => each in upstream))
      report.problem([...path, key], "is for calls by HTTP, and there is no `baseUrl`");
  if (upstream.role !== "shadow" && "follow" in upstream)
    report.problem([...path, "follow"], "is for shadows, and this is not one");
  if (upstream.kind === "odata" && report.sound(path, "headers"))
    checkODataHeaders(upstream, [...path, "headers"], report);
  if ("poll" in upstream && report.sound(path, "poll")) checkPoll(upstream, [...path, "poll"], report);
  if ("events" in upstream && report.sound(path, "events"))
    checkEvents(upstream, [...path, "events"], report);
}

const ofHttp = ["auth", "tls", "proxy", "sign", "actorHeader", "headers"] as const;

function checkEvents({ role, events, entities }: UpstreamConfig, path: Path, report: Report): void {
  if (role === "shadow") return report.problem(path, "is for the primary: a shadow has nothing to tell");
  for (const [name, entity] of Object.entries(events?.entities ?? {}))
    if (!Object.hasOwn(entities, entity))
      report.problem([...path, "entities", name], `there is no entity \`${entity}\` in this upstream`);
}

function checkPoll({ role, entities }: UpstreamConfig, path: Path, report: Report): void {
  if (role === "shadow") return report.problem(path, "is for the primary: a shadow has nothing to tell");
  if (!mapsIn(entities).some(([, entity]) => "list" in entity))
    report.problem(path, "needs an entity with `list`: there is nothing to ask for otherwise");
}

function checkBaseUrl(baseUrl: string, path: Path, report: Report): void {
  if (!isHttpUrl(baseUrl)) return report.problem(path, "must be an absolute http or https URL");
  const { search, hash, username, password } = new URL(baseUrl);
  if (search !== "" || hash !== "") report.problem(path, "must have neither a query nor a fragment");
  if (username !== "" || password !== "") report.problem(path, "must not carry credentials; use `auth`");
}
