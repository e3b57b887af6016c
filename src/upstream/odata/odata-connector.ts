import type { EntityConfig, UpstreamConfig } from "../../platform/config/schema.ts";
import { pointerKeys, valueAt, withValueAt } from "../../platform/json-text.ts";
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
import { collectionOf, errorExcerpt, recordOf, unusable } from "./answer.ts";
import { keyPredicate, keyValue, stringLiteral } from "./keys.ts";

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
/** Few enough that an answer stays small; a service may give fewer. */
const paged = ["prefer", "odata.maxpagesize=100"];
const lookupPagesMax = 10;

/** A connector for an OData 4.0 service: entity sets, key predicates, ETags, server-driven paging. */
export function openODataConnector(config: UpstreamConfig): Connector {
  const session = openSession(config);
  const { origin, pathname } = new URL(config.baseUrl);
  const root = pathname.replace(/\/+$/, "");

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

  const pathOf = ({ path }: EntityConfig): string => root + encodeURI(path);
  const itemOf = (entity: EntityConfig, id: string): string =>
    pathOf(entity) + keyPredicate(id, entity.keyType ?? "string");
  const pageAt = async (operation: Operation, call: Call, path: string): Promise<UpstreamPage> => {
    const answer = await send(operation, call, { method: "GET", path, headers: paged });
    const { records, next, context } = collectionOf(answer, entityOf(call));
    const asked = new URL(path, origin);
    return { records, next: next === undefined ? undefined : linked(next, asked, context, answer) };
  };

  return {
    async create(call) {
      const entity = entityOf(call);
      const { create } = entity;
      const headers = [...representation, ...keyHeader(create, call.idempotencyKey), ...absence(entity)];
      const isPut = create.method === "PUT";
      const path = isPut ? itemOf(entity, call.id ?? "") : pathOf(entity);
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
      if (record?.body === undefined) throw unusable("a read was answered without a record", answer);
      return record;
    },
    async lookup(call) {
      const entity = entityOf(call);
      const { reference } = entity;
      if (reference === undefined) throw new Error(`${call.entity} can't be looked up: it needs reference`);
      const filter = `${propertyOf(reference)} eq ${stringLiteral(call.tempId)}`;
      const carries = ({ body = "{}" }: UpstreamRecord): boolean =>
        String(valueAt(body, reference)).toLowerCase() === call.tempId.toLowerCase();
      const ours: UpstreamRecord[] = [];
      let path: string | undefined = `${pathOf(entity)}?$filter=${encodeURIComponent(filter)}`;
      for (let pages = 0; path !== undefined; pages++) {
        if (pages === lookupPagesMax) throw new UpstreamError("the search has no end", endless);
        const page: UpstreamPage = await pageAt("lookup", call, path);
        ours.push(...page.records.filter(carries));
        path = page.next;
      }
      return ours;
    },
    list: async (call) => await pageAt("list", call, call.after ?? firstPage(entityOf(call), call.since)),
    close: () => session.close(),
  };

  function firstPage(entity: EntityConfig, since: Date | undefined): string {
    const property = entity.list?.since;
    if (property === undefined || !since) return pathOf(entity);
    return `${pathOf(entity)}?$filter=${encodeURIComponent(`${property} ge ${since.toISOString()}`)}`;
  }
}

const endless = { certainty: "ambiguous", disposition: "park" } as const;

function propertyOf(pointer: string): string {
  return pointerKeys(pointer).join("/");
}

function bodyOf(entity: EntityConfig, { body, id }: CreateCall): string {
  const choosesId =
    id !== undefined && (entity.create.class === "client-id" || entity.create.method === "PUT");
  return choosesId ? withValueAt(body, entity.id, keyValue(id, entity.keyType ?? "string")) : body;
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

/** Relative links count from the context's URL, or else from the request's. Our token goes to nobody else. */
function linked(link: string, asked: URL, context: string | undefined, answer: HttpAnswer): string {
  const stated = context !== undefined && URL.canParse(context, asked.href) ? new URL(context, asked) : asked;
  const base = stated.origin === asked.origin ? stated : asked;
  const next = URL.canParse(link, base.href) ? new URL(link, base) : undefined;
  if (next?.origin !== asked.origin) throw unusable("the list goes on at another origin", answer);
  return next.pathname + next.search;
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
