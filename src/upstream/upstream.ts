import type { Logger } from "pino";

import type { EntityConfig } from "../platform/config/entity-schema.ts";
import type { UpstreamConfig } from "../platform/config/upstream-schema.ts";
import { TidegateError } from "../platform/errors.ts";
import { withValueAt } from "../platform/json-text.ts";
import { createCircuit, type Admission, type CircuitState, type Passage } from "./circuit.ts";
import {
  BreakerOpen,
  UpstreamError,
  type Call,
  type Connector,
  type ListCall,
  type UpstreamPage,
  type UpstreamRecord,
} from "./connector.ts";
import { createLimiter } from "./limiter.ts";
import { openEvaluator, type Evaluator } from "./mapping/evaluator.ts";
import { createFailingMappings, type FailingMappings } from "./mapping/failing.ts";
import { compileMapping, MappingError, type Mapping } from "./mapping/mapping.ts";
import { toObserved, type ObservedPage, type ObservedRecord } from "./observed.ts";
import { openModuleConnector } from "./module/open-module.ts";
import { openODataConnector } from "./odata/odata-connector.ts";
import { openRestConnector } from "./rest/rest-connector.ts";
import { sendsRecord } from "./sends-record.ts";
import { usable } from "./usable.ts";
import { compileUpcast, type Upcast, type Versioned } from "./upcast.ts";

/**
 * One upstream as replay sees it: records in the phone's shape, calls within the upstream's limits, a breaker in front.
 *
 * Every operation waits for a place (not counted in the call's deadline; `signal` ends the wait), asks the breaker, and
 * makes one call. Besides what it resolves with, it throws:
 * - {UpstreamError} for a call that failed; `not-sent` with `retryAfterMs` when the breaker is open.
 * - {MappingError} when the data can't be mapped to the upstream's shape; nothing was sent.
 */
export interface Upstream {
  readonly id: string;
  readonly config: UpstreamConfig;
  entity(name: string): EntityConfig | undefined;
  /** undefined when the upstream took the record and did not say which it is. */
  create(call: CreateRecord): Promise<UpstreamAnswer | undefined>;
  /** undefined when the upstream took the change and told neither the record's state nor its version. */
  update(call: UpdateRecord): Promise<UpstreamAnswer | undefined>;
  remove(call: RemoveRecord): Promise<void>;
  /** undefined when there is no such record. A record that can't be mapped throws the {MappingError}. */
  read(call: ReadRecord): Promise<UpstreamAnswer | undefined>;
  /** The records that carry our reference: none, the one, or (then a person decides) several. */
  lookup(call: LookupRecord): Promise<UpstreamAnswer[]>;
  /** One page of the records that the upstream holds, in its own shape. */
  list(call: ListCall): Promise<UpstreamPage>;
  /** One of these again; undefined when it is gone. */
  readHeld(call: ReadRecord): Promise<UpstreamRecord | undefined>;
  /** The record as others may have left it; undefined when there is none. */
  observe(call: ReadRecord): Promise<ObservedRecord | undefined>;
  /** One page of the records that the upstream holds, or of those that have changed. */
  observePage(call: ListCall): Promise<ObservedPage>;
  /** The record in the upstream's own shape, as a create would send it. @throws {MappingError} */
  toBody(entity: string, data: string): Promise<string>;
  /** The mutation in the entity's `schema`. @throws {UpcastError} when it can't be brought there. */
  upcast<M extends Versioned>(entity: string, mutation: M): Promise<M>;
  /** Notes that a mutation's data could not be mapped; see `FailingMappings`. */
  mappingFailed: FailingMappings["failed"];
  circuitState(): CircuitState;
  /** The calls that the breaker would let in at the moment. */
  admits(): Admission;
  /** Opens the breaker, for failures of the whole that only the engine can tell. */
  trip(): void;
  inFlight(): number;
  waiting(): number;
  close(): Promise<void>;
}

/** A record as the upstream answered it. */
export interface UpstreamAnswer {
  /** The upstream's own ID and version. */
  id: string;
  version: string | undefined;
  /** The record in the phone's shape; undefined when the answer had none, or it could not be mapped. */
  data: string | undefined;
  /** Why `data` is missing although there was a record. The effect took place all the same. */
  unreadable?: MappingError;
}

export interface CreateRecord extends Call {
  /** In the phone's shape, references already substituted, as JSON text. */
  data: string;
  /** Written at the entity's `reference`. */
  tempId?: string | undefined;
  /** The ID that we choose (`client-id`, and creates by PUT). */
  id?: string | undefined;
  idempotencyKey: string;
}

export interface UpdateRecord extends Call {
  id: string;
  /** The change as a JSON Merge Patch, in the phone's shape. */
  patch: string;
  /** The whole record after the change, in the phone's shape. */
  data: string;
  /** Written at the entity's `reference` where the whole record is sent. */
  tempId?: string | undefined;
  version?: string | undefined;
  idempotencyKey: string;
}

export interface RemoveRecord extends Call {
  id: string;
  version?: string | undefined;
  idempotencyKey: string;
}

export interface ReadRecord extends Call {
  id: string;
}

export interface LookupRecord extends Call {
  tempId: string;
}

interface Entity {
  config: EntityConfig;
  toUpstream: Mapping;
  fromUpstream: Mapping;
  upcast: Upcast;
}

/**
 * Opens an upstream. Nothing is connected before the first call.
 * @throws {TidegateError} `config-invalid` when a mapping can't be compiled or the kind is not known.
 */
export function openUpstream(id: string, config: UpstreamConfig, { log }: { log: Logger }): Upstream {
  const evaluator = openEvaluator();
  const failing = createFailingMappings();
  const entities = compileEntities(id, config, { evaluator, took: (place) => failing.took(place) });
  const connector = openConnector(id, config, { log });
  const circuit = createCircuit({
    ...config.circuit,
    rampMax: config.concurrency,
    onChange: (state) => log.warn({ upstream: id, circuit: state }, "the upstream's breaker changed"),
  });
  const limiter = createLimiter({
    inFlightMax: () => Math.min(config.concurrency, circuit.inFlightMax()),
    requestsPerSecond: config.requestsPerSecond,
  });

  async function guarded<C extends Call, T>(call: C, work: (call: C) => Promise<T>): Promise<T> {
    if (circuit.retryAfterMs() > 0) throw breakerOpen(circuit.retryAfterMs());
    const release = await placeFor(call);
    try {
      const passage = circuit.enter();
      if (!passage) throw breakerOpen(circuit.retryAfterMs());
      return await passed(passage, call, work);
    } finally {
      release();
    }
  }

  async function placeFor({ signal }: Call): Promise<() => void> {
    try {
      return await limiter.acquire(signal);
    } catch (cause) {
      throw new UpstreamError("stopped while waiting for a place", { ...notSent, cause });
    }
  }

  function entityOf(name: string): Entity {
    const entity = entities.get(name);
    if (!entity) throw new Error(`the upstream ${id} has no entity ${name}`);
    return entity;
  }

  return {
    id,
    config,
    entity: (name) => entities.get(name)?.config,
    async create({ data, tempId, ...call }) {
      const entity = entityOf(call.entity);
      const body = withReference(await entity.toUpstream(data), entity.config, tempId);
      const record = await guarded({ ...call, body }, (c) => connector.create(c));
      return record && (await toAnswer(record, entity));
    },
    async update({ data, tempId, ...call }) {
      const entity = entityOf(call.entity);
      const whole = sendsRecord(entity.config.update);
      const body = whole ? withReference(await entity.toUpstream(data), entity.config, tempId) : data;
      const patch = whole ? call.patch : await entity.toUpstream(call.patch);
      const record = await guarded({ ...call, body, patch }, (c) => connector.update(c));
      return record && (await toAnswer(record, entity));
    },
    remove: (call) => guarded(call, (c) => connector.delete(c)),
    async read(call) {
      const entity = entityOf(call.entity);
      const record = await guarded(call, (c) => connector.read(c));
      const answer = record && (await toAnswer(record, entity));
      if (answer?.unreadable) throw answer.unreadable;
      return answer;
    },
    async lookup(call) {
      const entity = entityOf(call.entity);
      const records = await guarded(call, (c) => connector.lookup(c));
      return await Promise.all(records.map((record) => toAnswer(record, entity)));
    },
    async list(call) {
      const page = await guarded(call, (c) => connector.list(c));
      page.records.forEach(usable);
      return page;
    },
    readHeld: (call) => guarded(call, (c) => connector.read(c)),
    async observe(call) {
      const record = await guarded(call, (c) => connector.read(c));
      return record && (await observed(record, entityOf(call.entity)));
    },
    async observePage(call) {
      const entity = entityOf(call.entity);
      const { records, changed = [], next, changes } = await guarded(call, (c) => connector.list(c));
      const all = await Promise.all(records.map((record) => observed(record, entity)));
      return { records: all, changed, next, changes };
    },
    toBody: (entity, data) => entityOf(entity).toUpstream(data),
    upcast: async (entity, mutation) => (await entities.get(entity)?.upcast(mutation)) ?? mutation,
    mappingFailed: (place, of) => failing.failed(place, of),
    circuitState: () => circuit.state(),
    admits: () => circuit.admits(),
    trip: () => circuit.trip(),
    inFlight: () => limiter.inFlight(),
    waiting: () => limiter.waiting(),
    async close() {
      await Promise.all([connector.close(), evaluator.close()]);
    },
  };
}

const notSent = { certainty: "not-sent", disposition: "retry" } as const;

function breakerOpen(retryAfterMs: number): UpstreamError {
  return new BreakerOpen("the upstream's breaker is open", { ...notSent, retryAfterMs });
}

/** Makes the call and tells the breaker what it says about the upstream. What the caller stopped says nothing. */
async function passed<C extends Call, T>(
  passage: Passage,
  call: C,
  work: (call: C) => Promise<T>,
): Promise<T> {
  let stopped = false;
  const mayStart = (): void => {
    stopped = true;
    call.mayStart?.();
    stopped = false;
  };
  try {
    const result = await work({ ...call, mayStart });
    passage.succeeded();
    return result;
  } catch (error) {
    if (stopped || call.signal?.aborted || !(error instanceof UpstreamError)) passage.abandoned();
    else if (error.systemic || error.disposition === "retry") passage.failed(error.retryAfterMs);
    else passage.succeeded();
    throw error;
  }
}

function withReference(body: string, { reference }: EntityConfig, tempId: string | undefined): string {
  if (reference === undefined || tempId === undefined) return body;
  return withValueAt(body, reference, JSON.stringify(tempId));
}

async function toAnswer(record: UpstreamRecord, entity: Entity): Promise<UpstreamAnswer> {
  return await mapped(usable(record), entity);
}

/** A record that can't be mapped is answered without data: that it exists must not be lost. */
async function mapped(
  { id, version, body }: UpstreamRecord,
  { fromUpstream }: Entity,
): Promise<UpstreamAnswer> {
  if (body === undefined) return { id, version, data: undefined };
  try {
    return { id, version, data: await fromUpstream(body) };
  } catch (error) {
    if (!(error instanceof MappingError)) throw error;
    return { id, version, data: undefined, unreadable: error };
  }
}

/** Who observes passes over a record that can't be kept: one of them must not keep the others from being seen. */
async function observed(record: UpstreamRecord, entity: Entity): Promise<ObservedRecord> {
  return toObserved(await mapped(record, entity), record, entity.config);
}

function compileEntities(
  id: string,
  { entities }: UpstreamConfig,
  options: { evaluator: Evaluator; took: (place: string) => void },
): Map<string, Entity> {
  const compiled = new Map<string, Entity>();
  for (const [name, config] of Object.entries(entities)) {
    const place = `upstreams.${id}.entities.${name}`;
    const compile = (key: "toUpstream" | "fromUpstream"): Mapping =>
      compileMapping(config[key], { ...options, place: `${place}.${key}` });
    try {
      compiled.set(name, {
        config,
        toUpstream: compile("toUpstream"),
        fromUpstream: compile("fromUpstream"),
        upcast: compileUpcast(config, { ...options, place }),
      });
    } catch (error) {
      throw new TidegateError("config-invalid", (error as Error).message);
    }
  }
  return compiled;
}

function openConnector(id: string, config: UpstreamConfig, { log }: { log: Logger }): Connector {
  if (config.module !== undefined) return openModuleConnector(id, config, { log });
  if (config.kind === "odata") return openODataConnector(config);
  return openRestConnector(config);
}
