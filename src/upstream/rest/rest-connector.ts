import type { UpstreamConfig } from "../../platform/config/upstream-schema.ts";
import { withValueAt } from "../../platform/json-text.ts";
import {
  UpstreamError,
  type Call,
  type Connector,
  type CreateCall,
  type DeleteCall,
  type UpdateCall,
} from "../connector.ts";
import { judge, type Operation } from "../disposition.ts";
import type { HttpAnswer } from "../http-client.ts";
import { absenceHeader, conditionHeader, keyHeader } from "../http/headers.ts";
import { openSession } from "../http/session.ts";
import { excerptOf } from "../redact.ts";
import { retryAfterMs } from "../retry-after.ts";
import { sendsRecord } from "../sends-record.ts";
import {
  createdRecord,
  knownRecord,
  recordsCarrying,
  refusePage,
  unusable,
  type PlacedEntity,
} from "./answer.ts";
import { bodyOf, conditionalPath, noBody, withVersion } from "./bodies.ts";
import { judgedByBody } from "./errors.ts";
import { firstPage, pageOf } from "./pages.ts";
import { urlsOf } from "./urls.ts";

interface Outgoing {
  method: string;
  path: string;
  headers?: string[];
  body?: string | undefined;
}

/** A connector for any upstream that holds JSON records at URLs, by configuration alone. */
export function openRestConnector(config: UpstreamConfig): Connector {
  const session = openSession(config);
  const entities = new Map<string, PlacedEntity>(
    Object.entries(config.entities).map(([name, entity]) => [
      name,
      { ...entity, urls: urlsOf(config.baseUrl, entity) },
    ]),
  );
  const { origin } = new URL(config.baseUrl);

  function entityOf({ entity: name }: Call): PlacedEntity {
    const entity = entities.get(name);
    if (!entity) throw new Error(`the upstream has no entity ${name}`);
    return entity;
  }

  async function send(operation: Operation, call: Call, outgoing: Outgoing): Promise<HttpAnswer> {
    const answer = judgedByBody(await session.send(call, outgoing), config.errors);
    if (answer.status < 300 || mayBeNone(operation, call, answer.status)) return answer;
    throw failureOf(answer, operation, config);
  }

  function mayBeNone(operation: Operation, call: Call, status: number): boolean {
    if (operation === "lookup") return status === entityOf(call).found?.noneStatus;
    return operation === "read" && saysGone(status);
  }

  /** Unless configured otherwise: behind a proxy that lies, a 404 proves nothing. */
  function saysGone(status: number): boolean {
    return (status === 404 || status === 410) && config.statuses[status] === undefined;
  }

  return {
    async create(call) {
      const entity = entityOf(call);
      const answer = await send("create", call, creation(entity, call));
      return createdRecord(answer, entity, { sent: call.body, chosenId: call.id });
    },
    async update(call) {
      const entity = entityOf(call);
      return knownRecord(
        await send("update", call, change(entity, call)),
        entity,
        call.id,
        entity.update.answer,
      );
    },
    async delete(call) {
      refusePage(await send("delete", call, removal(entityOf(call), call)));
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
      let path = call.after ?? firstPage(entity.urls.list, entity.list, call.since);
      for (let emptyPages = 0; ; emptyPages++) {
        const answer = await send("list", call, { method: "GET", path });
        const isFirst = call.after === undefined && emptyPages === 0;
        const page = pageOf(answer, entity, { url: new URL(path, origin), isFirst });
        // Filtering servers give pages without records that are not the last.
        if (page.records.length > 0 || page.next === undefined) return page;
        if (emptyPages === emptyPagesMax)
          throw unusable("the list gives empty pages without end", "park", answer);
        path = page.next;
      }
    },
    close: () => session.close(),
  };
}

const unreadable = { certainty: "ambiguous", disposition: "park" } as const;

const emptyPagesMax = 20;

function creation(entity: PlacedEntity, call: CreateCall): Outgoing {
  const { urls, id, create } = entity;
  const choosesId = create.method === "POST" && create.class === "client-id" && call.id !== undefined;
  const record = choosesId ? withValueAt(call.body, id, JSON.stringify(call.id)) : call.body;
  const { contentType, body } = bodyOf(entity, create, record);
  return {
    method: create.method,
    path: urls.creation(call.body, call.id),
    headers: [...contentType, ...keyHeader(create, call.idempotencyKey), ...absenceHeader(create)],
    body,
  };
}

function change(entity: PlacedEntity, call: UpdateCall): Outgoing {
  const { urls, update } = entity;
  const record = sendsRecord(update) ? call.body : call.patch;
  urls.refuseMove(call.id, record);
  const { contentType, body } = bodyOf(entity, update, withVersion(record, entity, update, call.version));
  return {
    method: update.method,
    path: conditionalPath(urls.change(call.id), update, call.version),
    headers: [
      ...contentType,
      ...keyHeader(update, call.idempotencyKey),
      ...conditionHeader(update, call.version),
    ],
    body,
  };
}

function removal(entity: PlacedEntity, call: DeleteCall): Outgoing {
  const { urls, delete: operation } = entity;
  const fixed = operation.body === undefined ? undefined : JSON.stringify(operation.body);
  const record = withVersion(fixed, entity, operation, call.version);
  const { contentType, body } = record === undefined ? noBody : bodyOf(entity, operation, record);
  return {
    method: operation.method,
    path: conditionalPath(urls.removal(call.id), operation, call.version),
    headers: [
      ...contentType,
      ...keyHeader(operation, call.idempotencyKey),
      ...conditionHeader(operation, call.version),
    ],
    body,
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
