import { Ajv, type AnySchema, type Options } from "ajv";
import addFormats from "ajv-formats";
import type { FastifyServerOptions } from "fastify";

type SchemaController = NonNullable<FastifyServerOptions["schemaController"]>;
type BuildValidator = NonNullable<NonNullable<SchemaController["compilersFactory"]>["buildValidator"]>;
type RouteSchema = { schema: AnySchema; httpPart?: string };

const exact: Options = { strict: false, addUsedSchema: false, coerceTypes: false, removeAdditional: false };
/** What comes out of a URL is text: it takes the type and the defaults of its schema. */
const coercing: Options = { ...exact, coerceTypes: "array", useDefaults: true };

/**
 * Bodies are taken as they are: nothing coerced, nothing filled in, nothing dropped, since dropping a field that
 * nobody knows would lose data silently. Queries, path parameters and headers are coerced.
 *
 * One error ends a validation: collecting them all makes a bad body of 4 MiB costly.
 */
export const exactValidation: SchemaController = {
  // Fastify's type asks for what its own compiler package returns, of which it calls only this much.
  compilersFactory: { buildValidator: buildValidator as unknown as BuildValidator },
};

function buildValidator(externalSchemas: Record<string, AnySchema>) {
  const bodies = withSchemas(new Ajv(exact), externalSchemas);
  const texts = withSchemas(new Ajv(coercing), externalSchemas);
  return ({ schema, httpPart }: RouteSchema) => (httpPart === "body" ? bodies : texts).compile(schema);
}

function withSchemas(ajv: Ajv, externalSchemas: Record<string, AnySchema>): Ajv {
  addFormats.default(ajv);
  for (const schema of Object.values(externalSchemas)) ajv.addSchema(schema);
  return ajv;
}
