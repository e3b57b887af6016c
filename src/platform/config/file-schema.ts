import { Config } from "./schema.ts";

interface ObjectSchema {
  required?: string[];
  properties?: Record<string, object>;
}

/** The JSON Schema of the file as people write it: keys with a default may be left out. */
export function fileSchema(): object {
  const schema = JSON.parse(JSON.stringify(Config), (_key, value: unknown) =>
    withoutDefaulted(value),
  ) as object;
  return {
    $schema: "http://json-schema.org/draft-07/schema#",
    title: "Tidegate configuration",
    ...schema,
  };
}

function withoutDefaulted(schema: unknown): unknown {
  const { required, properties, ...rest } = (schema ?? {}) as ObjectSchema;
  if (!Array.isArray(required) || properties === undefined) return schema;
  const left = required.filter((key) => !("default" in (properties[key] ?? {})));
  return { ...rest, ...(left.length > 0 && { required: left }), properties };
}
