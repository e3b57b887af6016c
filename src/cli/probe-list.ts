import type { EntityConfig } from "../platform/config/entity-schema.ts";
import type { UpstreamPage } from "../upstream/connector.ts";
import type { Upstream } from "../upstream/upstream.ts";
import { attempt, broken, unverified, works, type Attempt, type Shown } from "./shown.ts";

interface Listed {
  entity: string;
  config: EntityConfig;
  first: UpstreamPage;
}

/** What the list's further pages show, and its answer to "changed since". */
export async function pagesOf(upstream: Upstream, listed: Listed): Promise<Shown[]> {
  return [...(await secondPageOf(upstream, listed)), ...(await sinceOf(upstream, listed))];
}

/** A server that ignores which page it is asked for, or gives the last one for ever, never comes to an end. */
async function secondPageOf(upstream: Upstream, { entity, first }: Listed): Promise<Shown[]> {
  if (first.next === undefined || first.records.length === 0) return [];
  const second = await attempt(() => upstream.list({ entity, after: first.next }));
  if ("error" in second) return [broken("pages", second.error.message)];
  const seen = new Set(first.records.map(({ id }) => id));
  const again = second.value.records.filter(({ id }) => seen.has(id)).length;
  if (again === 0) return [works("pages")];
  return [
    broken(
      "pages",
      `${again} records of the first page are on the second one too: the parameter is ignored, the page behind the last ` +
        "one is not empty, or the list has no order",
    ),
  ];
}

/** Everything has changed since 1970, nothing since tomorrow. */
async function sinceOf(upstream: Upstream, { entity, config, first }: Listed): Promise<Shown[]> {
  if (config.list?.since === undefined || upstream.config.module !== undefined) return [];
  const ask = (since: Date): Promise<Attempt<UpstreamPage>> =>
    attempt(() => upstream.list({ entity, since }));
  const [ever, never] = [await ask(new Date(0)), await ask(new Date(Date.now() + 86_400_000))];
  for (const asked of [ever, never]) if ("error" in asked) return [broken("since", asked.error.message)];
  const [all, none] = [ever, never].map((asked) => ("value" in asked ? asked.value.records.length : 0));
  if (all === 0 && first.records.length > 0)
    return [
      broken("since", "nothing has changed since 1970, and yet there are records: changes are not found"),
    ];
  if (none !== 0)
    return [
      unverified(
        "since",
        `${none} records have changed since tomorrow: it may be ignored, and all is read each time`,
      ),
    ];
  return first.records.length > 0 ? [works("since")] : [unverified("since", "there is no record to look at")];
}
