import { Ajv, type DefinedError, type ErrorObject } from "ajv";

import { didYouMean } from "./did-you-mean.ts";
import { fileSchema } from "./file-schema.ts";
import { wordsOf } from "./patterns.ts";
import type { Finding, Path } from "./report.ts";
import type { YamlFile } from "./yaml-file.ts";

const ajv = new Ajv({ allErrors: true, useDefaults: true, discriminator: true, verbose: true });
const validate = ajv.compile(fileSchema());

export interface Verdict {
  problems: Finding[];
  /** Paths whose values do not follow the schema; an unknown key breaks nothing. */
  broken: Path[];
}

/** Checks the file's content against the schema and fills in the defaults, in place. */
export function validateAgainstSchema(file: YamlFile): Verdict {
  const unset = file.problems.map(({ path }) => path.join("\n"));
  const verdict: Verdict = { problems: [], broken: file.problems.map(({ path }) => path) };
  if (validate(file.value)) return verdict;
  for (const error of withoutEchoes(validate.errors ?? [])) {
    const path = pathOf(error, file.value);
    if (unset.includes(path.join("\n"))) continue;
    const aboutKey = error.keyword === "additionalProperties" || error.keyword === "propertyNames";
    const position = aboutKey ? file.keyPositionOf(path) : file.positionOf(path);
    verdict.problems.push({
      ...position,
      path,
      message: messageOf(error as DefinedError, file.sourceOf(path)),
    });
    if (!aboutKey) verdict.broken.push(path);
  }
  return verdict;
}

/** Leaves out what ajv says a second time: the branches below a failed `anyOf`, and why a key's name is bad. */
function withoutEchoes(errors: ErrorObject[]): ErrorObject[] {
  const unions = errors.filter(({ keyword }) => keyword === "anyOf");
  return errors.filter(
    (error) =>
      error.propertyName === undefined &&
      !unions.some(
        (union) =>
          error.schemaPath.startsWith(`${union.schemaPath}/`) &&
          error.instancePath.startsWith(union.instancePath),
      ),
  );
}

function pathOf(error: ErrorObject, root: unknown): Path {
  const keys = error.instancePath
    .split("/")
    .slice(1)
    .map((key) => key.replaceAll("~1", "/").replaceAll("~0", "~"));
  const params = error.params as Record<string, string | undefined>;
  const key =
    params["missingProperty"] ?? params["additionalProperty"] ?? params["propertyName"] ?? params["tag"];
  return withIndexes(key === undefined ? keys : [...keys, key], root);
}

function withIndexes(keys: string[], root: unknown): Path {
  let holder = root;
  return keys.map((key) => {
    const step = Array.isArray(holder) ? Number(key) : key;
    holder = (holder as Record<string | number, unknown> | undefined)?.[step];
    return step;
  });
}

function messageOf(error: DefinedError | DiscriminatorError, source: string): string {
  switch (error.keyword) {
    case "additionalProperties":
      return `unknown key${didYouMean(error.params.additionalProperty, keysOf(error.parentSchema))}`;
    case "propertyNames":
      return `the key must be ${wordsOf(patternOfNames(error.parentSchema))}`;
    case "required":
      return "is missing";
    case "type":
      return `must be ${nounOf(error.params.type)}, not ${kindOf(error.data)}`;
    case "enum":
      return mustBeOneOf(error.params.allowedValues as string[], source);
    case "discriminator":
      return mustBeOneOf(tagsOf(error.parentSchema), source);
    case "pattern":
      return `must be ${wordsOf(error.params.pattern)}`;
    case "anyOf":
      return `must be ${formsOf(error.parentSchema).join(" or ")}`;
    case "minLength":
    case "minItems":
    case "minProperties":
      return "must not be empty";
    default:
      return error.message ?? "is not valid";
  }
}

type DiscriminatorError = ErrorObject<"discriminator", Record<string, unknown>>;

/** The parts of a schema that messages are made of. */
interface SchemaParts {
  [keyword: string]: unknown;
  properties?: Record<string, { const?: string }>;
  propertyNames?: { pattern?: string };
  anyOf?: SchemaParts[];
  oneOf?: SchemaParts[];
}

function keysOf(schema: SchemaParts | undefined): string[] {
  return Object.keys(schema?.properties ?? {});
}

function patternOfNames(schema: SchemaParts | undefined): string {
  return schema?.propertyNames?.pattern ?? "";
}

function tagsOf(schema: SchemaParts | undefined): string[] {
  const branches = schema?.oneOf ?? [];
  return branches.flatMap(({ properties }) => properties?.["type"]?.const ?? []);
}

function formsOf(schema: SchemaParts | undefined): string[] {
  const forms = schema?.anyOf ?? [];
  return forms.map((form) => `{ ${keysOf(form).join(", ")} }`);
}

function mustBeOneOf(allowed: string[], source: string): string {
  const given = source.replaceAll(/["']/g, "");
  return `must be one of ${allowed.join(", ")}${didYouMean(given, allowed)}`;
}

function nounOf(type: string): string {
  return (
    { object: "a map", array: "a list", integer: "a whole number", boolean: "true or false" }[type] ??
    `a ${type}`
  );
}

function kindOf(value: unknown): string {
  if (value === null) return "empty";
  if (Array.isArray(value)) return "a list";
  return typeof value === "object" ? "a map" : `a ${typeof value}`;
}
