import { randomBytes, randomUUID } from "node:crypto";

import { pino } from "pino";

import type { EntityConfig } from "../platform/config/entity-schema.ts";
import type { UpstreamConfig } from "../platform/config/upstream-schema.ts";
import { UpstreamError, type UpstreamPage } from "../upstream/connector.ts";
import { filterOfReference } from "../upstream/odata/queries.ts";
import { urlsOf } from "../upstream/rest/urls.ts";
import { openUpstream, type Upstream } from "../upstream/upstream.ts";
import { pagesOf } from "./probe-list.ts";
import {
  attempt,
  broken,
  unverified,
  works,
  type Attempt,
  type Finding,
  type Looked,
  type Shown,
} from "./shown.ts";

const log = pino({ level: "silent" });

/** Asks every upstream of the configuration, entity by entity, by its own connector. Only reads. */
export async function probeConfig({ tenants }: Looked): Promise<Finding[]> {
  const findings: Finding[] = [];
  for (const [tenant, { upstreams }] of Object.entries(tenants))
    for (const [id, config] of Object.entries(upstreams))
      for (const found of await probeUpstream(id, config)) findings.push({ tenant, upstream: id, ...found });
  return findings;
}

async function probeUpstream(
  id: string,
  config: UpstreamConfig,
): Promise<Omit<Finding, "tenant" | "upstream">[]> {
  // Each call speaks for itself: no breaker stops the next.
  const circuit = { ...config.circuit, failures: 1_000_000 };
  const upstream = openUpstream(id, { ...config, circuit }, { log });
  try {
    const findings: Omit<Finding, "tenant" | "upstream">[] = [];
    for (const [entity, entityConfig] of Object.entries(config.entities)) {
      const probed = await probeEntity(upstream, entity, entityConfig);
      findings.push(...probed.map((found) => ({ entity, ...found })));
    }
    return findings;
  } finally {
    await upstream.close();
  }
}

async function probeEntity(upstream: Upstream, entity: string, config: EntityConfig): Promise<Shown[]> {
  const listed = await attempt(() => upstream.list({ entity }));
  const [first] = "value" in listed ? listed.value.records : [];
  const unknown = await attempt(() => upstream.observe({ entity, id: unknownIdOf(config, first?.id) }));
  const shown: Shown[] = [accessOf([listed, unknown])];
  shown.push(...listOf(listed, config));
  if ("value" in listed) shown.push(...(await pagesOf(upstream, { entity, config, first: listed.value })));
  shown.push(...(await recordOf(upstream, { entity, config, id: first?.id })), unknownOf(unknown));
  if (config.lookup !== undefined) shown.push(await lookupOf(upstream, entity, config));
  return shown;
}

/** Where the form of IDs is configured, it is asked for in that form, also of an empty list. */
function unknownIdOf({ keyType }: EntityConfig, id: string | undefined): string {
  return unknownIdLike(keyType === "number" ? "0" : id);
}

/** Of the same form as one that exists: to an ID of another form some servers answer 400. */
function unknownIdLike(id = ""): string {
  const place = id.split("/");
  const own = place.pop()!;
  if (/^\d+$/.test(own)) return [...place, "2147483646"].join("/");
  const isHex = /^[0-9a-f]{12,64}$/.test(own);
  return [...place, isHex ? randomBytes(32).toString("hex").slice(0, own.length) : randomUUID()].join("/");
}

/** Whether the upstream was reached, and took us for who we are. */
function accessOf(attempts: Attempt<unknown>[]): Shown {
  const errors = attempts.flatMap((one) =>
    "error" in one && one.error instanceof UpstreamError ? [one.error] : [],
  );
  const refused = errors.find(({ systemic, status }) => systemic || status === 401 || status === 403);
  if (refused) return broken("access", refused.message);
  const unreached = errors.find(({ status }) => status === undefined);
  if (unreached && errors.length === attempts.length) return broken("access", unreached.message);
  return works("access");
}

function listOf(listed: Attempt<UpstreamPage>, { list, id }: EntityConfig): Shown[] {
  if ("error" in listed) {
    const { message } = listed.error;
    if (message.includes("has no ID")) return [broken("id", `a listed record has no ID at ${id}`)];
    return [
      list === undefined
        ? unverified("list", `${message}; \`list\` is not configured`)
        : broken("list", message),
    ];
  }
  const count = listed.value.records.length;
  if (count === 0) return [works("list", "empty"), unverified("id", "there is no record to look at")];
  return [works("list", `${count} on the first page`), works("id", id)];
}

/** What a record that the list has shown looks like when it is read. */
async function recordOf(
  upstream: Upstream,
  { entity, config, id }: { entity: string; config: EntityConfig; id: string | undefined },
): Promise<Shown[]> {
  const wanted: Shown["what"][] = config.version ? ["version", "fromUpstream"] : ["fromUpstream"];
  if (id === undefined) return wanted.map((what) => unverified(what, "there is no record to look at"));
  const held = await attempt(() => upstream.readHeld({ entity, id }));
  if ("error" in held)
    return wanted.map((what) => unverified(what, `a listed record can't be read: ${held.error.message}`));
  if (!held.value) return wanted.map((what) => broken(what, "a listed record is not found by its ID"));
  const shown: Shown[] = [];
  if (config.version) {
    const where = "header" in config.version ? `header ${config.version.header}` : config.version.pointer;
    shown.push(versionAt(where, held.value.version, { config, kind: upstream.config.kind }));
  }
  const read = await attempt(() => upstream.read({ entity, id }));
  shown.push("error" in read ? broken("fromUpstream", read.error.message) : works("fromUpstream"));
  return shown;
}

function versionAt(
  where: string,
  version: string | undefined,
  { config, kind }: { config: EntityConfig; kind: UpstreamConfig["kind"] },
): Shown {
  if (!version) return broken("version", `a record has none at ${where}`);
  const isAsked = [config.update, config.delete].some((operation) => operation.class === "conditional");
  // OData's are meant to be compared, and are written so all the same.
  if (!isAsked || !version.startsWith("W/") || kind === "odata") return works("version", where);
  return unverified(
    "version",
    `${where} is weak (W/), as frameworks make it of an answer's bytes: many such servers don't look at If-Match, and ` +
      "changes of others are overwritten unseen. A change with a wrong If-Match has to be answered 412",
  );
}

function unknownOf(unknown: Attempt<unknown>): Shown {
  if ("error" in unknown) return unverified("unknown id", unknown.error.message);
  return unknown.value === undefined
    ? works("unknown id", "answered as none")
    : broken("unknown id", "an ID that nobody has was answered with a record");
}

async function lookupOf(upstream: Upstream, entity: string, config: EntityConfig): Promise<Shown> {
  const tempId = `urn:uuid:${randomUUID()}`;
  const found = await attempt(() => upstream.lookup({ entity, tempId }));
  if ("error" in found) return broken("lookup", found.error.message);
  if (found.value.length > 0) return broken("lookup", "a reference that nobody has was found");
  // A module's answers count only where they carry our reference, and others' alone are an error.
  if (upstream.config.module !== undefined) return works("lookup", "an unknown reference finds nothing");
  const path = searchOf(upstream, config, tempId);
  if (path === undefined)
    return unverified("lookup", "whether unknown references are filtered out is not known");
  // What the connector leaves out, since it does not carry our reference.
  const raw = await searchedAsList(upstream, { entity, config, path });
  if ("error" in raw) return unverified("lookup", raw.error.message);
  const strangers = raw.value.records.length;
  if (strangers === 0) return works("lookup", "an unknown reference finds nothing");
  const isFollowed = upstream.config.kind === "odata";
  return unverified(
    "lookup",
    `the filter is ignored: an unknown reference is answered with ${strangers} other records. They are told apart by ` +
      `the reference, but only while the answer is ${isFollowed ? "ten pages at most" : "a single page"}`,
  );
}

/** Where the search begins, as a place in a list. */
function searchOf({ config }: Upstream, entity: EntityConfig, tempId: string): string | undefined {
  if (config.kind === "odata") return filterOfReference(config, entity, tempId);
  return config.kind === "rest" ? urlsOf(config.baseUrl, entity).search(tempId) : undefined;
}

/** The answer to a search, read as a list. */
async function searchedAsList(
  { id, config: upstream }: Upstream,
  { entity, config, path }: { entity: string; config: EntityConfig; path: string },
): Promise<Attempt<UpstreamPage>> {
  const { found } = config;
  if (found?.single) return { value: { records: [], next: undefined } };
  const { list: _, ...rest } = config;
  const list = found ?? config.list;
  const searching = openUpstream(
    id,
    { ...upstream, entities: { [entity]: list ? { ...rest, list } : rest } },
    { log },
  );
  try {
    return await attempt(() => searching.list({ entity, after: path }));
  } finally {
    await searching.close();
  }
}
