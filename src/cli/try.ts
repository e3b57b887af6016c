import { readFileSync } from "node:fs";

import { pino } from "pino";

import { loadConfig, readConfigFile } from "../platform/config/load.ts";
import { hidingVariables } from "../platform/config/placeholders.ts";
import type { Config } from "../platform/config/schema.ts";
import type { UpstreamConfig } from "../platform/config/upstream-schema.ts";
import { TidegateError } from "../platform/errors.ts";
import { UpstreamError } from "../upstream/connector.ts";
import { openEvaluator } from "../upstream/mapping/evaluator.ts";
import { MappingError } from "../upstream/mapping/mapping.ts";
import { primaryOf } from "../upstream/primary.ts";
import { sendsRecord } from "../upstream/sends-record.ts";
import { compileUpcast, UpcastError } from "../upstream/upcast.ts";
import { openUpstream, type Upstream } from "../upstream/upstream.ts";
import { startCapture, type Captured } from "./capture.ts";

export interface Sample {
  tenant?: string;
  entity?: string;
  /** By default the primary. */
  upstream?: string;
  op?: string;
  /** A file, or - for what comes in. */
  data?: string;
  schema?: string;
}

interface TryOptions {
  env: NodeJS.ProcessEnv;
  sample: Sample;
  write: (text: string) => void;
}

/** A mutation as it is made of a sample. */
interface SampleMutation {
  entity: string;
  op: "create" | "update" | "delete";
  schema: string | undefined;
  data: string;
  base: undefined;
}

/**
 * Shows what the upstream would be sent for a sample mutation: built by the connector itself, and sent to nobody but a
 * server of this process. Gives the exit code, 1 when it could not be built.
 *
 * @throws {TidegateError} `config-invalid`, `invalid-request`
 */
export async function tryMutation(file: string, { env, sample, write }: TryOptions): Promise<number> {
  const { config } = loadConfig(file, env);
  const { id, upstream, primary } = upstreamOf(config, sample);
  const mutation = mutationOf(sample, upstream);
  if (upstream.baseUrl === "") throw invalid(`${id} has no baseUrl: what its module sends is not seen here`);
  await using capture = await startCapture();
  const opened = openUpstream(id, redirected(upstream, capture.origin), { log: pino({ level: "silent" }) });
  let failure: string | undefined;
  try {
    await call(opened, await upcastBy(primary, mutation));
  } catch (error) {
    failure = failureOf(error, capture.requests.length);
  } finally {
    await opened.close();
  }
  const hide = hidingVariables(readConfigFile(file), env);
  const origin = new URL(upstream.baseUrl).origin;
  const update = upstream.entities[mutation.entity]?.update;
  if (mutation.op === "update" && update && sendsRecord(update))
    write(`# A ${update.method} carries the whole record; here that is the change alone.\n`);
  for (const request of capture.requests) write(hide(toText(request, { origin, config: upstream })));
  if (failure !== undefined) write(`not sent: ${failure}\n`);
  return failure === undefined ? 0 : 1;
}

function upstreamOf(config: Config, { tenant = "", upstream: named }: Sample) {
  const found = Object.hasOwn(config.tenants, tenant) ? config.tenants[tenant] : undefined;
  if (!found) throw invalid(`--tenant must be one of ${Object.keys(config.tenants).join(", ")}`);
  const id = named ?? primaryOf(found).id;
  const upstream = Object.hasOwn(found.upstreams, id) ? found.upstreams[id] : undefined;
  if (!upstream) throw invalid(`--upstream must be one of ${Object.keys(found.upstreams).join(", ")}`);
  return { id, upstream, primary: primaryOf(found).upstream };
}

function mutationOf(sample: Sample, { entities }: UpstreamConfig): SampleMutation {
  const { entity = "", op = "create", schema } = sample;
  if (!Object.hasOwn(entities, entity))
    throw invalid(`--entity must be one of ${Object.keys(entities).join(", ")}`);
  if (op !== "create" && op !== "update" && op !== "delete")
    throw invalid("--op must be create, update or delete");
  return { entity, op, schema, data: dataOf(sample), base: undefined };
}

function dataOf({ data: file }: Sample): string {
  if (file === undefined) return "{}";
  try {
    const text = readFileSync(file === "-" ? 0 : file, "utf8");
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return text.trim();
  } catch (cause) {
    // A parser's message quotes the data.
    const { code } = cause as NodeJS.ErrnoException;
    throw invalid(code === undefined ? "--data is not JSON" : `--data can't be read (${code})`);
  }
  throw invalid("--data must be a JSON object");
}

/** The versions are the primary's, also of what goes to a shadow. */
async function upcastBy({ entities }: UpstreamConfig, mutation: SampleMutation): Promise<SampleMutation> {
  const entity = entities[mutation.entity];
  if (!entity) return mutation;
  const evaluator = openEvaluator();
  try {
    return await compileUpcast(entity, { evaluator, place: `entities.${mutation.entity}` })(mutation);
  } finally {
    await evaluator.close();
  }
}

function invalid(detail: string): TidegateError {
  return new TidegateError("invalid-request", detail);
}

/** The same upstream, on this machine. No token is fetched for it. */
function redirected(config: UpstreamConfig, origin: string): UpstreamConfig {
  const path = new URL(config.baseUrl).pathname.replace(/\/+$/, "");
  const local = { ...config, baseUrl: origin + path };
  delete local.tls;
  delete local.proxy;
  if (config.auth?.type === "oauth2ClientCredentials") local.auth = { type: "bearer", token: "fetched" };
  return local;
}

/** By the entity's `keyType`; an ID that is no key of its type is not sent. */
const exampleIds = { string: "SERVER-ID", number: "4711", guid: "00000000-0000-4000-8000-000000000003" };
const exampleUuid = "00000000-0000-4000-8000-000000000001";
const exampleTempId = `urn:uuid:${exampleUuid}`;
const exampleKey = "00000000-0000-4000-8000-000000000002";

async function call(upstream: Upstream, { entity, op, data }: SampleMutation): Promise<void> {
  const { create, keyType = "string" } = upstream.config.entities[entity]!;
  const shared = { entity, actor: "ACTING-USER", requestId: "REQUEST-ID", idempotencyKey: exampleKey };
  const existing = { ...shared, id: exampleIds[keyType], version: '"VERSION"' };
  if (op === "create") {
    const choosesId = create.class === "client-id" || create.method === "PUT";
    const id = keyType === "number" ? exampleIds.number : exampleUuid;
    await upstream.create({ ...shared, data, tempId: exampleTempId, ...(choosesId && { id }) });
  } else if (op === "update")
    await upstream.update({ ...existing, patch: data, data, tempId: exampleTempId });
  else await upstream.remove(existing);
}

/** What was built is shown all the same when the answer, which is nobody's, was not to the connector's liking. */
function failureOf(error: unknown, requests: number): string | undefined {
  const isKnown =
    error instanceof MappingError || error instanceof UpcastError || error instanceof UpstreamError;
  if (!isKnown) throw error;
  return requests > 0 ? undefined : error.message;
}

/** Every other header may hold a secret: configured ones, signatures, who we are. */
const shownHeaders =
  /^(accept|accept-encoding|content-type|content-length|host|idempotency-key|if-(none-)?match|x-request-id|odata-.*|prefer)$/i;

function toText(
  { method, path, headers, body }: Captured,
  { origin, config }: { origin: string; config: UpstreamConfig },
): string {
  const operations = Object.values(config.entities).flatMap((entity) => [
    entity.create,
    entity.update,
    entity.delete,
  ]);
  const ours = [config.actorHeader, ...operations.map(({ header }) => header)].map((name) =>
    name?.toLowerCase(),
  );
  const lines = headers
    .filter(([name]) => !/^(connection|keep-alive)$/i.test(name))
    .map(([name, value]) => {
      if (name.toLowerCase() === "host") return `${name}: ${new URL(origin).host}`;
      const isShown = shownHeaders.test(name) || ours.includes(name.toLowerCase());
      return `${name}: ${isShown ? value : "…"}`;
    });
  return `${[`${method} ${origin}${path}`, ...lines, "", body].join("\n").trimEnd()}\n`;
}
