import type { EntityConfig, UpcastStep } from "../platform/config/entity-schema.ts";
import { isObject } from "../platform/json-text.ts";
import type { Evaluator } from "./mapping/evaluator.ts";
import { compileMapping, MappingError, type Mapping } from "./mapping/mapping.ts";

/** A mutation as far as its version matters. `data` and `base` are JSON text. */
export interface Versioned {
  op: "create" | "update" | "delete";
  schema?: string | number | null | undefined;
  data: string | undefined;
  base: string | undefined;
}

/** Brings a mutation to the entity's `schema`. @throws {UpcastError} */
export type Upcast = <M extends Versioned>(mutation: M) => Promise<M>;

/** A mutation that can't be brought to the entity's `schema`. Carries no data of it. */
export class UpcastError extends Error {
  /** Where the upcaster that could not take the data stands in the configuration; undefined when there is none for it. */
  readonly place: string | undefined;

  constructor(message: string, place?: string) {
    super(message);
    this.name = "UpcastError";
    this.place = place;
  }
}

interface Step extends UpcastStep {
  map: Mapping;
  place: string;
}

/**
 * Compiles an entity's `upcast`. A mutation of its present version is given back as it is, text for text; so is every
 * delete, whose data says nothing to the upstream, and all of an entity without `schema`.
 *
 * @param place the entity's, in the configuration.
 * @param took told each time that an upcaster took the data.
 */
export function compileUpcast(
  { schema, schemaDefault = schema, upcast = [] }: EntityConfig,
  { evaluator, place: entity, took }: { evaluator: Evaluator; place: string; took?: (place: string) => void },
): Upcast {
  const steps = new Map<number, Step>(
    upcast.map((step, index) => {
      const place = `${entity}.upcast[${index}].data`;
      return [step.from, { ...step, place, map: compileMapping(step.data, { evaluator, place }) }];
    }),
  );
  return async (mutation) => {
    if (schema === undefined || mutation.op === "delete") return mutation;
    let result = mutation;
    let version = versionOf(mutation.schema ?? schemaDefault);
    while (version !== schema) {
      const step = steps.get(version) ?? unreachable(version, schema);
      result = await taken(result, step);
      took?.(step.place);
      version = step.to;
    }
    return result;
  };
}

/** Some apps write it as a string. */
function versionOf(schema: string | number | undefined): number {
  const version = typeof schema === "string" && /^\d{1,15}$/.test(schema) ? Number(schema) : schema;
  if (typeof version === "number" && Number.isSafeInteger(version)) return version;
  throw new UpcastError("The mutation's schema is not the number of a version.");
}

function unreachable(version: number, schema: number): never {
  throw new UpcastError(
    version > schema
      ? `The mutation is of schema ${version}; the configuration knows those up to ${schema}.`
      : `No upcaster takes schema ${version}.`,
  );
}

async function taken<M extends Versioned>(mutation: M, step: Step): Promise<M> {
  const { data, base } = mutation;
  const variables = { op: JSON.stringify(mutation.op), data, base };
  try {
    return {
      ...mutation,
      data: await part(step, data, { ...variables, part: '"data"' }),
      base: await part(step, base, { ...variables, part: '"base"' }),
    };
  } catch (error) {
    if (!(error instanceof MappingError)) throw error;
    const { name, from, to, place } = step;
    const what = `The upcaster ${name} (${from} to ${to}) can't take the data: ${error.message}.`;
    throw new UpcastError(what, place);
  }
}

async function part(
  { map, place }: Step,
  text: string | undefined,
  variables: Record<string, string | undefined>,
): Promise<string | undefined> {
  if (text === undefined) return undefined;
  const mapped = await map(text, variables);
  if (!isObject(mapped)) throw new MappingError(place, "it gave something else than an object");
  return mapped;
}
