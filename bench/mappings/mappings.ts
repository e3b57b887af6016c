import { startChild, type Child } from "../child.ts";
import type { MappingsOptions } from "../options.ts";
import { measureTurns, openTidegate, rates, type Contender, type Turns } from "../replay/replay.ts";
import type { Postgres } from "../servers.ts";
import { spreadOf, type Spread } from "../stats.ts";
import type { AloneRequest, AloneView } from "./alone.ts";
import { mappingKinds } from "./kinds.ts";

export interface MappingsResult {
  contender: string;
  /** For one mutation that is mapped and nothing else; and what of it the process's own thread was busy for. */
  aloneMicros: Spread;
  mainMicros: Spread;
  mutationsPerSecond: Spread;
  /** Of a mutation's time in the replay, by the medians, what is there only with the mapping. */
  shareOfReplay: number;
}

interface Parts {
  postgres: Postgres;
  cpuProfDir: string | undefined;
  say: (line: string) => void;
}

/** Measures what it costs that a mutation's data is mapped: by itself, and in a replay. */
export async function measureMappings(parts: Parts, options: MappingsOptions): Promise<MappingsResult[]> {
  const alone = await measureAlone(options);
  parts.say("mappings, alone: done");
  const turns = await measureInReplay(parts, options);
  parts.say("mappings, in a replay: done");
  const none = rates(turns.get("none") ?? []).median;
  return mappingKinds.map(({ name }) => {
    const views = alone.get(name) ?? [];
    const mutationsPerSecond = rates(turns.get(name) ?? []);
    return {
      contender: name,
      aloneMicros: spreadOf(views.map(({ micros }) => micros)),
      mainMicros: spreadOf(views.map(({ mainMicros }) => mainMicros)),
      mutationsPerSecond,
      shareOfReplay: 1 - mutationsPerSecond.median / none,
    };
  });
}

/** In turn, each round beginning with another one, each turn in a process of its own. */
async function measureAlone({
  rounds,
  alone: mutations,
  concurrency,
}: MappingsOptions): Promise<Map<string, AloneView[]>> {
  const views = new Map<string, AloneView[]>(mappingKinds.map(({ name }) => [name, []]));
  for (let round = 0; round < rounds; round++) {
    for (const index of mappingKinds.keys()) {
      const kind = mappingKinds[(index + round) % mappingKinds.length];
      if (!kind) continue;
      const child = startChild("mappings/alone.ts");
      const request: AloneRequest = { entity: kind.entity, mutations, concurrency };
      views.get(kind.name)?.push(await child.ask<AloneView>(request));
      await child.stop();
    }
  }
  return views;
}

async function measureInReplay(parts: Parts, options: MappingsOptions): Promise<Turns> {
  const upstream = startChild("replay/upstream.ts");
  const contenders: Contender[] = [];
  try {
    const upstreamUrl = await upstream.ask<string>({ kind: "listen" });
    for (const kind of mappingKinds)
      contenders.push(await openKind(kind, parts, { ...options, upstream, upstreamUrl }));
    return await measureTurns(upstream, contenders, options, options.latencyMs);
  } finally {
    for (const contender of contenders) await contender.stop();
    await upstream.stop();
  }
}

async function openKind(
  { name, entity }: (typeof mappingKinds)[number],
  { postgres, cpuProfDir }: Parts,
  shared: MappingsOptions & { upstream: Child; upstreamUrl: string },
): Promise<Contender> {
  return await openTidegate({ name, redisUrl: undefined, workers: 1 }, shared, {
    databaseUrl: await postgres.createGatewayDatabase(),
    redisUrl: undefined,
    upstreamUrl: shared.upstreamUrl,
    upstreamConcurrency: shared.concurrency,
    cpuProfDir,
    activity: entity,
  });
}
