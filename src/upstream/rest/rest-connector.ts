import type { EntityConfig, UpstreamConfig } from "../../platform/config/schema.ts";
import { withValueAt } from "../../platform/json-text.ts";
import { UpstreamError, type Call, type Connector, type CreateCall, type UpdateCall } from "../connector.ts";
import { judge, type Operation } from "../disposition.ts";
import type { HttpAnswer } from "../http-client.ts";
import { absenceHeader, conditionHeader, keyHeader } from "../http/headers.ts";
import { openSession } from "../http/session.ts";
import { excerptOf } from "../redact.ts";
import { retryAfterMs } from "../retry-after.ts";
import { createdRecord, knownRecord, recordsCarrying } from "./answer.ts";
import { firstPage, pageOf } from "./pages.ts";
import { urlsOf, type EntityUrls } from "./urls.ts";

interface Entity extends EntityConfig {
  urls: EntityUrls;
}

interface Outgoing {
  method: string;
  path: string;
  headers?: string[];
  body?: string;
}

/** A connector for any upstream that holds JSON records at {path}/{id}, by configuration alone. */
export function openRestConnector(config: UpstreamConfig): Connector {
  const session = openSession(config);
  const entities = new Map<string, Entity>(
    Object.entries(config.entities).map(([name, entity]) => [
      name,
      { ...entity, urls: urlsOf(config.baseUrl, entity) },
    ]),
  );
  const { origin } = new URL(config.baseUrl);

  function entityOf({ entity: name }: Call): Entity {
    const entity = entities.get(name);
    if (!entity) throw new Error(`the upstream has no entity ${name}`);
    return entity;
  }

  async function send(operation: Operation, call: Call, outgoing: Outgoing): Promise<HttpAnswer> {
    const answer = await session.send(call, outgoing);
    if (answer.status < 300 || (operation === "read" && saysGone(answer.status))) return answer;
    throw failureOf(answer, operation, config);
  }

  /** Unless configured otherwise: behind a proxy that lies, a 404 proves nothing. */
  function saysGone(status: number): boolean {
    return (status === 404 || status === 410) && config.statuses[status] === undefined;
  }

  return {
    async create(call) {
      const entity = entityOf(call);
      return createdRecord(await send("create", call, creation(entity, call)), entity, call.id);
    },
    async update(call) {
      const entity = entityOf(call);
      return knownRecord(await send("update", call, change(entity, call)), entity, call.id);
    },
    async delete(call) {
      const { urls, delete: operation } = entityOf(call);
      const key = keyHeader(operation, call.idempotencyKey);
      const condition = conditionHeader(operation, call.version);
      await send("delete", call, {
        method: operation.method,
        path: urls.item(call.id),
        headers: [...key, ...condition],
      });
    },
    async read(call) {
      const entity = entityOf(call);
      const answer = await send("read", call, { method: "GET", path: entity.urls.item(call.id) });
      if (saysGone(answer.status)) return undefined;
      const record = knownRecord(answer, entity, call.id);
      if (record?.body === undefined)
        throw new UpstreamError("a read was answered without a record", unreadable);
      return record;
    },
    async lookup(call) {
      const entity = entityOf(call);
      const path = entity.urls.search(call.tempId);
      if (path === undefined || entity.reference === undefined) {
        throw new Error(`${call.entity} can't be looked up: it needs reference and lookup`);
      }
      const answer = await send("lookup", call, { method: "GET", path });
      return recordsCarrying(answer, entity, call.tempId);
    },
    async list(call) {
      const entity = entityOf(call);
      const path = call.after ?? firstPage(entity.urls.collection, entity.list, call.since);
      const answer = await send("list", call, { method: "GET", path });
      return pageOf(answer, entity, { url: new URL(path, origin), isFirst: call.after === undefined });
    },
    close: () => session.close(),
  };
}

const unreadable = { certainty: "ambiguous", disposition: "park" } as const;

function creation({ urls, id, create }: Entity, call: CreateCall): Outgoing {
  const headers = [...keyHeader(create, call.idempotencyKey), ...absenceHeader(create)];
  if (create.method === "PUT") {
    return { method: "PUT", path: urls.item(call.id ?? ""), headers, body: call.body };
  }
  const choosesId = create.class === "client-id" && call.id !== undefined;
  const body = choosesId ? withValueAt(call.body, id, JSON.stringify(call.id)) : call.body;
  return { method: "POST", path: urls.collection, headers, body };
}

function change({ urls, update }: Entity, call: UpdateCall): Outgoing {
  return {
    method: update.method,
    path: urls.item(call.id),
    headers: [...keyHeader(update, call.idempotencyKey), ...conditionHeader(update, call.version)],
    body: update.method === "PUT" ? call.body : call.patch,
  };
}

function failureOf(answer: HttpAnswer, operation: Operation, { statuses }: UpstreamConfig): UpstreamError {
  const { status, headers, body } = answer;
  return new UpstreamError(`the upstream answered ${status}`, {
    ...judge(status, operation, statuses),
    status,
    retryAfterMs: retryAfterMs(headers, Date.now()),
    excerpt: excerptOf(body),
  });
}
