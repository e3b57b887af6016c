import { Ajv, type AnySchema, type Options } from "ajv";
import addFormats from "ajv-formats";
import type { FastifyServerOptions } from "fastify";

type SchemaController = NonNullable<FastifyServerOptions["schemaController"]>;
type Compilers = NonNullable<SchemaController["compilersFactory"]>;
type BuildValidator = NonNullable<Compilers["buildValidator"]>;
type RouteSchema = { schema: AnySchema; httpPart?: string };

const exact: Options = {
  strict: false,
  addUsedSchema: false,
  // They are all in openapi.yaml, whose linter judges them; a start need not.
  validateSchema: false,
  coerceTypes: false,
  removeAdditional: false,
};
/** What comes out of a URL is text: it takes the type and the defaults of its schema. */
const coercing: Options = { ...exact, coerceTypes: "array", useDefaults: true };

/**
 * Makes the validators of one server. Bodies are taken as they are: nothing coerced, nothing filled in, nothing dropped,
 * since dropping a field that nobody knows would lose data silently. Queries, path parameters and headers are coerced.
 *
 * One error ends a validation: collecting them all makes a bad body of 4 MiB costly.
 */
export function exactValidation(): BuildValidator {
  const bodies = addFormats.default(new Ajv(exact));
  const texts = addFormats.default(new Ajv(coercing));
  const known = new Set<AnySchema>();
  // Asked for by every plugin: an Ajv for each would be half of the time that a start takes.
  const build = (externalSchemas: Record<string, AnySchema>) => {
    for (const schema of Object.values(externalSchemas)) {
      if (known.has(schema)) continue;
      bodies.addSchema(schema);
      texts.addSchema(schema);
      known.add(schema);
    }
    return ({ schema, httpPart }: RouteSchema) => (httpPart === "body" ? bodies : texts).compile(schema);
  };
  // Fastify's type asks for what its own compiler package returns, of which it calls only this much.
  return build as unknown as BuildValidator;
}
