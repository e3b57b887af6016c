import type { EntityConfig } from "../../platform/config/entity-schema.ts";
import type { UpstreamConfig } from "../../platform/config/upstream-schema.ts";
import { valueAt, withValueAt } from "../../platform/json-text.ts";
import {
  UpstreamError,
  type Call,
  type Connector,
  type CreateCall,
  type UpdateCall,
  type UpstreamPage,
  type UpstreamRecord,
} from "../connector.ts";
import { judge, type Operation } from "../disposition.ts";
import type { HttpAnswer } from "../http-client.ts";
import { absenceHeader, conditionHeader, keyHeader } from "../http/headers.ts";
import { openSession, type SessionRequest } from "../http/session.ts";
import { retryAfterMs } from "../retry-after.ts";
import { changedIn, errorExcerpt, isEmptyCollection, recordOf, recordsOf, unusable } from "./answer.ts";
import { keyPredicate, keyTypeOf, keyValue } from "./keys.ts";
import { changesPlace, linked, toPath } from "./links.ts";
import { filterOfReference, firstPage, setOf } from "./queries.ts";

// Numbers stay numbers: with IEEE754Compatible=true 64-bit ones would come as texts, and reading text loses nothing.
const own = [
  "accept",
  "application/json;odata.metadata=minimal",
  "odata-version",
  "4.0",
  "odata-maxversion",
  "4.0",
];
const representation = ["prefer", "return=representation"];
/** A service may give fewer. */
const pageSize = 100;
const lookupPagesMax = 10;
const emptyPagesMax = 20;

/** A connector for an OData 4.0 service: entity sets, key predicates, ETags, server-driven paging. */
export function openODataConnector(config: UpstreamConfig): Connector {
  const session = openSession(config);
  const { origin } = new URL(config.baseUrl);

  function entityOf({ entity: name }: Call): EntityConfig {
    const entity = config.entities[name];
    if (!entity) throw new Error(`the upstream has no entity ${name}`);
    return entity;
  }

  async function send(operation: Operation, call: Call, outgoing: SessionRequest): Promise<HttpAnswer> {
    const headers = [...own, ...(outgoing.headers ?? [])];
    const answer = await session.send(call, { ...outgoing, headers });
    if (answer.status < 300 || (operation === "read" && saysGone(answer.status))) return answer;
    throw failureOf(answer, operation, config);
  }

  function saysGone(status: number): boolean {
    return (status === 404 || status === 410) && config.statuses[status] === undefined;
  }

  const itemOf = (entity: EntityConfig, id: string): string =>
    setOf(config, entity) + keyPredicate(id, keyTypeOf(entity));

  async function pageAt(
    operation: Operation,
    call: Call,
    place: string,
    tracks = false,
  ): Promise<UpstreamPage> {
    const entity = entityOf(call);
    const { isChanges, path } = toPath(place);
    const preferred = `odata.maxpagesize=${entity.list?.pageSize ?? pageSize}`;
    const headers = ["prefer", tracks ? `${preferred},odata.track-changes` : preferred];
    const answer = await send(operation, call, { method: "GET", path, headers });
    const { records, changed, links } = isChanges
      ? { records: [], ...changedIn(answer, entity) }
      : { changed: undefined, ...recordsOf(answer, entity) };
    const pathOf = (link: string | undefined): string | undefined =>
      link === undefined ? undefined : linked(link, new URL(path, origin), links.context, answer);
    const [next, delta] = [pathOf(links.next), entity.list?.changes ? pathOf(links.delta) : undefined];
    return {
      records,
      next: isChanges && next !== undefined ? changesPlace(next) : next,
      ...(changed && { changed }),
      ...(delta !== undefined && { changes: changesPlace(delta) }),
    };
  }

  return {
    async create(call) {
      const entity = entityOf(call);
      const { create } = entity;
      const headers = [...representation, ...keyHeader(create, call.idempotencyKey), ...absence(entity)];
      const isPut = create.method === "PUT";
      const path = isPut ? itemOf(entity, call.id ?? "") : setOf(config, entity);
      const body = bodyOf(entity, call);
      const answer = await send("create", call, { method: create.method, path, headers, body });
      return recordOf(answer, entity, isPut ? call.id : undefined) ?? chosen(entity, call);
    },
    async update(call) {
      const entity = entityOf(call);
      const answer = await send("update", call, change(entity, call, itemOf(entity, call.id)));
      const record = recordOf(answer, entity, call.id);
      return record?.body === undefined && record?.version === undefined ? undefined : record;
    },
    async delete(call) {
      const entity = entityOf(call);
      const { delete: operation } = entity;
      const key = keyHeader(operation, call.idempotencyKey);
      const headers = [...key, ...conditionHeader(operation, call.version)];
      await send("delete", call, { method: "DELETE", path: itemOf(entity, call.id), headers });
    },
    async read(call) {
      const entity = entityOf(call);
      const answer = await send("read", call, { method: "GET", path: itemOf(entity, call.id) });
      if (saysGone(answer.status)) return undefined;
      const record = recordOf(answer, entity, call.id);
      if (record?.body !== undefined) return record;
      if (isEmptyCollection(answer)) return undefined;
      throw unusable("a read was answered without the record", answer);
    },
    async lookup(call) {
      const entity = entityOf(call);
      const { reference } = entity;
      if (reference === undefined) throw new Error(`${call.entity} can't be looked up: it needs reference`);
      const carries = ({ body = "{}" }: UpstreamRecord): boolean =>
        String(valueAt(body, reference)).toLowerCase() === call.tempId.toLowerCase();
      const ours: UpstreamRecord[] = [];
      let place = filterOfReference(config, entity, call.tempId);
      for (let pages = 0; place !== undefined; pages++) {
        if (pages === lookupPagesMax) throw new UpstreamError("the search has no end", endless);
        const page = await pageAt("lookup", call, place);
        ours.push(...page.records.filter(carries));
        place = page.next;
      }
      return ours;
    },
    async list(call) {
      const entity = entityOf(call);
      // What has changed of a part is not asked for: a delta link would be of that part.
      let tracks = call.after === undefined && call.since === undefined && entity.list?.changes === true;
      let place = call.after ?? firstPage(config, entity, call.since);
      for (let emptyPages = 0; ; emptyPages++) {
        const page = await pageAt("list", call, place, tracks);
        // Filtering services give pages without records that are not the last.
        if (page.records.length + (page.changed?.length ?? 0) > 0 || page.next === undefined) return page;
        if (emptyPages === emptyPagesMax)
          throw new UpstreamError("the list gives empty pages without end", endless);
        place = page.next;
        tracks = false;
      }
    },
    close: () => session.close(),
  };
}

const endless = { certainty: "ambiguous", disposition: "park" } as const;

function bodyOf(entity: EntityConfig, { body, id }: CreateCall): string {
  const choosesId =
    id !== undefined && (entity.create.class === "client-id" || entity.create.method === "PUT");
  return choosesId ? withValueAt(body, entity.id, keyValue(id, keyTypeOf(entity))) : body;
}

/** A PUT makes what is not there and replaces what is; only an upsert means both. */
function absence({ create }: EntityConfig): string[] {
  if (create.method === "PUT" && create.class === "client-id") return ["if-none-match", "*"];
  return absenceHeader(create);
}

function chosen({ create }: EntityConfig, { id }: CreateCall): UpstreamRecord | undefined {
  return id !== undefined && create.class === "client-id"
    ? { id, version: undefined, body: undefined }
    : undefined;
}

/** Without a condition OData creates what an update does not find: the change of a deleted record would bring it back. */
function change({ update }: EntityConfig, call: UpdateCall, path: string): SessionRequest {
  const condition = conditionHeader(update, call.version);
  const exists = update.class === "upsert" ? [] : ["if-match", "*"];
  const headers = [
    ...representation,
    ...keyHeader(update, call.idempotencyKey),
    ...(condition.length > 0 ? condition : exists),
  ];
  return { method: update.method, path, headers, body: update.method === "PUT" ? call.body : call.patch };
}

function failureOf(answer: HttpAnswer, operation: Operation, { statuses }: UpstreamConfig): UpstreamError {
  const { status, headers, body } = answer;
  // The protocol's word for a request that the service can't handle at all: nothing was done, nor will it ever be.
  const unsupported = status === 501 && statuses[501] === undefined;
  return new UpstreamError(`the upstream answered ${status}`, {
    ...(unsupported ? unsupportedVerdict : judge(status, operation, statuses)),
    status,
    retryAfterMs: retryAfterMs(headers, Date.now()),
    excerpt: errorExcerpt(body),
  });
}

const unsupportedVerdict = { disposition: "park", certainty: "refused" } as const;
