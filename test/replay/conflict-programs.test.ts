import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { randomOf } from "../faults/random.ts";
import { startGateway } from "../fixtures/gateway.ts";
import { startScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { stamps } from "../inbound/polled.ts";
import { storeOptions } from "./capabilities.ts";
import { kinds, openViews, play, type Stage } from "./conflict-program.ts";
import { entityName, policies, policyEntities } from "./policies.ts";

interface Entities {
  crm: { entities: Record<string, object> };
}

/** `CONFLICT_PROGRAMS=20` plays more of them. */
const seeds = Array.from({ length: Number(process.env["CONFLICT_PROGRAMS"] ?? 3) }, (_, n) => n + 1);

async function openStage({ polls }: { polls: boolean }): Promise<Stage> {
  const upstream = await startScriptedUpstream({ ...storeOptions, ...(polls && stamps) });
  const { crm } = policyEntities(
    upstream.url,
    polls ? { poll: { everyMs: 100, overlapMs: 1_000 } } : {},
  ) as Entities;
  // What is sent as a whole, to an upstream without versions.
  const whole = policies.map((policy) => {
    const entity = crm.entities[entityName(policy, "upsert")];
    const update = { class: "upsert", method: "PUT" };
    return [`${policy}-whole`, { ...entity, path: `/${policy}-whole`, update }] as const;
  });
  const names = policies.flatMap((policy) => kinds.map((kind) => `${policy}-${kind}`));
  const list = { since: "since", page: "page", size: "size", updatedAt: "/updatedAt" };
  const entities = Object.entries({ ...crm.entities, ...Object.fromEntries(whole) })
    .filter(([name]) => names.includes(name))
    .map(([name, entity]) => [name, { ...entity, ...(polls && { list }) }] as const);
  const gateway = await startGateway({
    upstreams: { crm: { ...crm, entities: Object.fromEntries(entities) } },
  });
  await gateway.another("worker");
  return {
    upstream,
    gateway,
    async asked(entity) {
      if (!polls) return;
      const isList = ({ method, path }: { method: string; path: string }): boolean =>
        method === "GET" && path.startsWith(`/${entity}?`);
      // The first of them may have begun before.
      await upstream.received(isList, upstream.requests.filter(isList).length + 2);
    },
  };
}

describe.each([
  ["nobody asks the upstream for changes", false],
  ["the upstream is asked for changes all the time", true],
])("%s", (_, polls) => {
  let stage: Stage;
  let views: ReturnType<typeof openViews>;
  beforeAll(async () => {
    stage = await openStage({ polls });
    views = openViews(stage);
  });
  afterAll(async () => {
    await stage?.gateway.close();
    await stage?.upstream.stop();
  });

  test.each(policies.flatMap((policy) => kinds.map((kind) => [policy, kind] as const)))(
    "%s, %s: of three phones and a clerk nobody's change of a field disappears unseen",
    { timeout: 120_000 },
    async (policy, kind) => {
      const found = await Promise.all(
        seeds.map(
          async (seed) => await play(stage, views, randomOf(seed, `${policy}-${kind}`), [policy, kind]),
        ),
      );
      expect(
        found.flatMap(({ faults: all }, index) => all.map((fault) => `seed ${seeds[index]}: ${fault}`)),
      ).toEqual([]);
      // Else nothing was tried.
      const outcomes = found.flatMap(({ statuses }) => statuses);
      expect(outcomes).toContain("applied");
      if (policy !== "client-wins") expect(outcomes).toContain("conflict");
    },
  );
});
