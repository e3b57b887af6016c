import { Ajv } from "ajv";
import { Type } from "typebox";

import type { Abilities, ConnectorModule, Settings } from "../../connector-module.ts";
import { patterns } from "./patterns.ts";
import { closed } from "./schema-parts.ts";
import { OperationClass } from "./operation-schema.ts";

const operation = {
  class: Type.Enum(OperationClass.enum),
  keyTtlMs: Type.Optional(Type.Integer({ minimum: 1 })),
};
const pointer = Type.String({ pattern: patterns.jsonPointer.pattern });

const abilities = Type.Object(
  {
    create: Type.Optional(Type.Object({ ...operation, choosesId: Type.Optional(Type.Boolean()) }, closed)),
    update: Type.Optional(
      Type.Object({ ...operation, sends: Type.Optional(Type.Enum(["change", "record"])) }, closed),
    ),
    delete: Type.Optional(Type.Object(operation, closed)),
    reference: Type.Optional(pointer),
    lookup: Type.Optional(Type.Boolean()),
    list: Type.Optional(
      Type.Union([
        Type.Boolean(),
        Type.Object({ since: Type.Optional(Type.Boolean()), updatedAt: Type.Optional(pointer) }, closed),
      ]),
    ),
  },
  closed,
);

const ajv = new Ajv();
const isAbilities = ajv.compile<Abilities>(abilities);

/** The connector's module in what a file exports; undefined when there is none. */
export function moduleIn(exports: Readonly<Record<string, unknown>>): ConnectorModule | undefined {
  const found = exports["default"] ?? exports;
  const { open, entities } = (found ?? {}) as Partial<ConnectorModule>;
  const isModule =
    typeof open === "function" && (typeof entities === "object" || typeof entities === "function");
  return isModule && entities !== null ? (found as ConnectorModule) : undefined;
}

/** What a module says that it can do, for each entity. @throws what the module itself throws. */
export function abilitiesOf({ entities }: ConnectorModule, settings: Settings): Record<string, unknown> {
  const given: unknown = typeof entities === "function" ? entities(settings) : entities;
  if (typeof given !== "object" || given === null) throw new TypeError("`entities` gives no map");
  return given as Record<string, unknown>;
}

/** What is wrong with one entity's abilities; undefined when nothing is. */
export function faultIn(entity: unknown): string | undefined {
  if (!isAbilities(entity)) return ajv.errorsText(isAbilities.errors, { dataVar: "it" });
  if (entity.lookup && entity.reference === undefined) return "`lookup` needs `reference`";
  if (entity.create?.class === "lookup" && !entity.lookup) return "a create of class lookup needs `lookup`";
  if (entity.create?.class === "conditional" && !entity.create.choosesId && !entity.lookup)
    return "a create of class conditional needs `choosesId` or `lookup`";
  if (entity.create?.class === "upsert" && !entity.create.choosesId && entity.reference === undefined)
    return "a create of class upsert needs `choosesId` or `reference`";
  for (const name of ["create", "update", "delete"] as const)
    if (entity[name]?.keyTtlMs !== undefined && entity[name].class !== "idempotency-key")
      return `\`keyTtlMs\` of ${name} is for class idempotency-key`;
  return undefined;
}
