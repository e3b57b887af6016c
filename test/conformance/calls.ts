import { randomUUID } from "node:crypto";

import { expect, onTestFinished } from "vitest";

import { valueAt, withValueAt } from "../../src/platform/json-text.ts";
import type { OperationClass } from "../../src/platform/config/operation-schema.ts";
import {
  UpstreamError,
  type Call,
  type Connector,
  type CreateCall,
  type UpstreamRecord,
} from "../../src/upstream/connector.ts";
import type { Kind, StartOptions, Subject } from "./kind.ts";
import { named } from "./named.ts";

/** A server and its connector for the test that asks. */
export async function started(kind: Kind, options: StartOptions = {}): Promise<Subject> {
  const subject = await kind.start(options);
  onTestFinished(() => subject[Symbol.asyncDispose]());
  return kind.names || kind.also ? named(subject, kind) : subject;
}

export async function failureOf(call: Promise<unknown>): Promise<UpstreamError> {
  const error: unknown = await call.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(UpstreamError);
  return error as UpstreamError;
}

/** The call succeeds, or is refused because what it asks for is so already. */
export async function doneOrConflict(call: Promise<unknown>): Promise<void> {
  const error: unknown = await call.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error === undefined) return;
  expect(error).toMatchObject({ certainty: "refused", disposition: "conflict" });
}

export const aRecord = (minutes: number | string = 45, note = '"lunch"'): string =>
  `{"minutes":${minutes},"note":${note}}`;

export const aTempId = (): string => `urn:uuid:${randomUUID()}`;

export function withReference({ can }: Kind, text: string, tempId: string): string {
  return can.reference === undefined ? text : withValueAt(text, can.reference, JSON.stringify(tempId));
}

const choosing: readonly OperationClass[] = ["upsert", "client-id", "conditional"];

/** A create as replay would make it for an entity of this class. */
export function creation(kind: Kind, createClass: OperationClass = "opaque", body = aRecord()): CreateCall {
  const call = { entity: kind.entity, body, idempotencyKey: randomUUID() };
  return choosing.includes(createClass) ? { ...call, id: "chosen-1" } : call;
}

/** The record as it stands, by its ID; the test fails where there is none. */
export async function readBack({ connector }: Subject, call: Call & { id: string }): Promise<UpstreamRecord> {
  const found = await connector.read(call);
  expect(found).toBeDefined();
  return found!;
}

/** One operation on a record that is there, with everything that it needs. */
export interface Operation {
  name: "create" | "update" | "delete" | "read" | "lookup" | "list";
  changes: boolean;
  run(subject: Subject, id: string, more?: Partial<Call>): Promise<unknown>;
}

export function operationsOf(kind: Kind): Operation[] {
  const { entity, can } = kind;
  const key = { entity, idempotencyKey: "0192f0c2-0001" };
  const of = (
    name: Operation["name"],
    changes: boolean,
    run: (connector: Connector, id: string, more: Partial<Call>) => Promise<unknown>,
  ): Operation => ({ name, changes, run: ({ connector }, id, more = {}) => run(connector, id, more) });
  const all = [
    of("create", true, (connector, _id, more) => connector.create({ ...key, body: aRecord(), ...more })),
    of("update", true, (connector, id, more) =>
      connector.update({ ...key, id, patch: '{"minutes":50}', body: aRecord(50), ...more }),
    ),
    of("delete", true, (connector, id, more) => connector.delete({ ...key, id, ...more })),
    of("read", false, (connector, id, more) => connector.read({ entity, id, ...more })),
    of("list", false, (connector, _id, more) => connector.list({ entity, ...more })),
    of("lookup", false, (connector, _id, more) => connector.lookup({ entity, tempId: aTempId(), ...more })),
  ];
  return all.filter(({ name }) => name !== "lookup" || can.reference !== undefined);
}

/** What a record says, whatever the connector's server has put beside it. */
export function saying(text: string | undefined): { minutes: unknown; note: unknown } {
  if (text === undefined) return { minutes: undefined, note: undefined };
  return { minutes: valueAt(text, "/minutes"), note: valueAt(text, "/note") };
}
