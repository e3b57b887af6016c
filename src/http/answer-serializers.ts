import compilerFactory from "@fastify/fast-json-stringify-compiler";
import type { FastifyServerOptions } from "fastify";

type SchemaController = NonNullable<FastifyServerOptions["schemaController"]>;
type BuildSerializer = NonNullable<NonNullable<SchemaController["compilersFactory"]>["buildSerializer"]>;
type Serializer = ReturnType<ReturnType<BuildSerializer>>;

/**
 * Makes the serializers of one server. A schema is compiled once, not for each answer of each route that has it: there are
 * more than a hundred that are a problem. What a schema refers to by name is the same in the whole server.
 */
export function answerSerializers(): BuildSerializer {
  const factory = compilerFactory();
  const compiled = new Map<unknown, Serializer>();
  return (externalSchemas, options) => {
    const compile = factory(externalSchemas, options);
    return (route) => {
      const serializer = compiled.get(route.schema) ?? compile(route);
      compiled.set(route.schema, serializer);
      return serializer;
    };
  };
}
