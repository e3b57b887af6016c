import type { Limits } from "../platform/config/schema.ts";
import type { ErrorCode } from "../platform/errors.ts";
import type { EntityConfig } from "../platform/config/entity-schema.ts";
import type { CreateConfig } from "../platform/config/operation-schema.ts";
import { tempUuid, uuidPattern } from "../platform/uuid.ts";
import type { JudgedMutation } from "../inbox/log.ts";
import { fingerprints, sentContent } from "../inbox/fingerprint.ts";
import type { Operation } from "../inbox/mutation.ts";
import type { MutationEnvelope } from "./envelope.ts";

export interface JudgeContext {
  entities: Record<string, EntityConfig>;
  limits: Pick<Limits, "mutationBytes" | "depth">;
  /** Newest first. */
  fingerprintSecrets: string[];
}

/** A mutation as it stands in the batch. */
export interface SentMutation {
  text: string;
  /** Its canonical content; undefined when it is nested too deeply. */
  content: string | undefined;
}

/** Judges one mutation by itself: fit for the log, or rejected with a problem. `envelope` is the same, parsed. */
export function judgeMutation(
  context: JudgeContext,
  envelope: MutationEnvelope,
  { text, content }: SentMutation,
): JudgedMutation {
  const { seq } = envelope;
  const id = envelope.id.toLowerCase();
  const tempId = createdTempUuid(envelope);
  const tooLarge = sizeProblem(context, text) ?? depthProblem(context, content);
  const fault = tooLarge ?? fieldProblem(context, envelope, tempId);
  return {
    seq,
    id,
    entity: configuredEntity(context, envelope.entity) ?? "",
    fingerprints: fingerprints(context.fingerprintSecrets, content ?? sentContent(text)),
    verdict: fault ? { rejected: { code: fault.code, detail: fault.detail } } : { text, tempId },
  };
}

function configuredEntity({ entities }: JudgeContext, entity: unknown): string | undefined {
  return typeof entity === "string" && Object.hasOwn(entities, entity) ? entity : undefined;
}

function createdTempUuid({ op, recordId }: MutationEnvelope): string | undefined {
  return op === "create" && typeof recordId === "string" ? tempUuid(recordId) : undefined;
}

interface Fault {
  code: ErrorCode;
  detail: string;
}

function sizeProblem({ limits }: JudgeContext, text: string): Fault | undefined {
  const bytes = text.length * 3 <= limits.mutationBytes ? 0 : Buffer.byteLength(text);
  if (bytes > limits.mutationBytes) {
    return {
      code: "mutation-too-large",
      detail: `The mutation has ${bytes} bytes of at most ${limits.mutationBytes}.`,
    };
  }
  return undefined;
}

function depthProblem({ limits }: JudgeContext, content: string | undefined): Fault | undefined {
  if (content !== undefined) return undefined;
  return { code: "mutation-too-large", detail: `The data is nested deeper than ${limits.depth} levels.` };
}

const operations = new Set<unknown>(["create", "update", "delete"]);

function fieldProblem(
  context: JudgeContext,
  envelope: MutationEnvelope,
  tempId: string | undefined,
): Fault | undefined {
  const { entity, op } = envelope;
  if (typeof entity !== "string") return invalid("entity", "must be a string");
  if (!operations.has(op)) return invalid("op", "must be create, update or delete");
  const config = context.entities[configuredEntity(context, entity) ?? ""];
  if (!config) return { code: "unknown-entity", detail: "No such entity is configured." };
  const operation = config[op as Operation];
  if (!operation.enabled)
    return { code: "unknown-entity", detail: `The entity does not allow ${String(op)}.` };
  if (op === "create" && tempId === undefined && !canChooseId(config.create)) return noTempId;
  return (tempId === undefined ? recordIdProblem(envelope) : undefined) ?? memberProblem(envelope);
}

/** Whether the upstream creates records under IDs that clients choose, and a repeat is recognised by the ID alone. */
function canChooseId({ class: ability, method }: CreateConfig): boolean {
  return ability === "client-id" || (method === "PUT" && (ability === "conditional" || ability === "upsert"));
}

const noTempId = invalid("recordId", "of a create must be a temp ID `urn:uuid:<uuid>`");

function recordIdProblem({ recordId }: MutationEnvelope): Fault | undefined {
  if (typeof recordId !== "string" || recordId === "" || recordId.length > 255) {
    return invalid("recordId", "must be a string of 1 to 255 characters");
  }
  // No path can carry a dot segment: the call would reach another resource.
  if (!recordId.isWellFormed() || hasControls(recordId) || recordId === "." || recordId === "..") {
    return invalid("recordId", "has characters no ID has");
  }
  return undefined;
}

/** Members that a serializer wrote as null count as absent. */
const isGiven = (value: unknown): boolean => value !== undefined && value !== null;
const versionPattern = /^\d{1,18}$/;
const uuid = new RegExp(uuidPattern);

function memberProblem(envelope: MutationEnvelope): Fault | undefined {
  const { op, data, base, baseVersion, dependsOn, occurredAt, schema } = envelope;
  if (op !== "delete" && !isRecord(data)) return invalid("data", "must be an object");
  if (op === "delete" && isGiven(data) && !isRecord(data)) {
    return invalid("data", "must be an object or absent");
  }
  if (isGiven(base) && !isRecord(base)) return invalid("base", "must be an object");
  if (isGiven(baseVersion) && !(typeof baseVersion === "string" && versionPattern.test(baseVersion))) {
    return invalid("baseVersion", "must be a version that this gateway gave, or null");
  }
  if (isGiven(dependsOn) && !isUuidList(dependsOn)) {
    return invalid("dependsOn", "must be an array of at most 100 mutation ids");
  }
  if (isGiven(occurredAt) && !isInstant(occurredAt)) {
    return invalid("occurredAt", "must be an RFC 3339 time");
  }
  if (isGiven(schema) && typeof schema !== "number" && typeof schema !== "string") {
    return invalid("schema", "must be a number or a string");
  }
  return undefined;
}

function isRecord(value: unknown): boolean {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isUuidList(value: unknown): boolean {
  return (
    Array.isArray(value) &&
    value.length <= 100 &&
    value.every((id: unknown) => typeof id === "string" && uuid.test(id))
  );
}

const instant = /^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d+)?)?([Zz]|[+-]\d\d:\d\d)$/;

function isInstant(value: unknown): boolean {
  return typeof value === "string" && instant.test(value) && !Number.isNaN(Date.parse(value));
}

function hasControls(value: string): boolean {
  for (let at = 0; at < value.length; at++) {
    const code = value.charCodeAt(at);
    if (code < 0x20 || code === 0x7f) return true;
  }
  return false;
}

function invalid(field: string, what: string): Fault {
  return { code: "invalid-mutation", detail: `${field} ${what}.` };
}
