import { checkJsonata } from "./check-jsonata.ts";
import type { Path, Report } from "./report.ts";
import type { EntityConfig, UpcastStep } from "./entity-schema.ts";
import type { UpstreamConfig } from "./upstream-schema.ts";

interface VersionsAt {
  /** Of the entity. */
  path: Path;
  upstream: Pick<UpstreamConfig, "role">;
  report: Report;
}

const keys = ["schema", "schemaDefault", "upcast"] as const;

/** From every version that `upcast` takes, its steps have to lead to `schema`. */
export function checkVersions(entity: EntityConfig, { path, upstream, report }: VersionsAt): void {
  const given = keys.filter((key) => key in entity);
  if (given.length === 0 || !report.sound(path, ...given)) return;
  if (upstream.role === "shadow")
    return report.problem([...path, given[0] ?? ""], "is for the primary: a shadow follows what that took");
  const { schema, schemaDefault, upcast = [] } = entity;
  if (schema === undefined)
    return report.problem([...path, given[0] ?? ""], "needs `schema`: the version that this leads to");
  const taken = new Set(upcast.map(({ from }) => from));
  if (schemaDefault !== undefined && schemaDefault !== schema && !taken.has(schemaDefault))
    report.problem([...path, "schemaDefault"], `no step of \`upcast\` takes version ${schemaDefault}`);
  for (const [index, step] of upcast.entries())
    checkStep(step, { at: [...path, "upcast", index], schema, upcast, index, report });
}

function checkStep(
  { from, to, data }: UpcastStep,
  {
    at,
    schema,
    upcast,
    index,
    report,
  }: { at: Path; schema: number; upcast: UpcastStep[]; index: number; report: Report },
): void {
  checkJsonata(data, [...at, "data"], report);
  if (upcast.findIndex((other) => other.from === from) < index)
    report.problem([...at, "from"], `another step takes version ${from} already`);
  if (to <= from) report.problem([...at, "to"], `must be later than \`from\`, ${from}`);
  else if (to > schema) report.problem([...at, "to"], `is beyond \`schema\`, ${schema}`);
  else if (to !== schema && !upcast.some((other) => other.from === to))
    report.problem([...at, "to"], `no step leads from version ${to} to ${schema}`);
}
