import { performance } from "node:perf_hooks";

import type { EntityConfig } from "../../src/platform/config/entity-schema.ts";
import { openEvaluator } from "../../src/upstream/mapping/evaluator.ts";
import { compileMapping } from "../../src/upstream/mapping/mapping.ts";
import { compileUpcast, type Versioned } from "../../src/upstream/upcast.ts";
import { answerParent } from "../child.ts";
import { createPhone } from "../phones.ts";
import type { MappingKind } from "./kinds.ts";

export interface AloneRequest {
  entity: MappingKind["entity"];
  mutations: number;
  concurrency: number;
}

export interface AloneView {
  /** For one mutation, from the phone's data to the upstream's and back. */
  micros: number;
  /** Of these, those in which the process's own thread was busy. */
  mainMicros: number;
}

/** Maps the data of mutations, and nothing else. */
answerParent(async ({ entity, mutations, concurrency }: AloneRequest): Promise<AloneView> => {
  const evaluator = openEvaluator();
  const compile = (expression = "$") => compileMapping(expression, { evaluator, place: "bench" });
  const toUpstream = compile(entity.toUpstream);
  const fromUpstream = compile(entity.fromUpstream);
  const upcast = compileUpcast(entity as EntityConfig, { evaluator, place: "bench" });
  const map = async (mutation: Versioned): Promise<string> => {
    const { data = "{}" } = await upcast(mutation);
    return await fromUpstream(await toUpstream(data));
  };
  const sent: Versioned[] = createPhone(1, { batches: 1, mutationsPerBatch: mutations })
    .batches.flatMap((batch) => batch.mutations)
    .map(({ op, data }) => ({ op, data: JSON.stringify(data), base: undefined }));
  // The thread is up and the code is warm before the time is taken, as in a process that has run for a while.
  await inLanes(sent.slice(0, 1_000), concurrency, map);
  const before = performance.eventLoopUtilization();
  const startedAt = performance.now();
  await inLanes(sent, concurrency, map);
  const ms = performance.now() - startedAt;
  const { active } = performance.eventLoopUtilization(before);
  await evaluator.close();
  return { micros: (ms * 1_000) / sent.length, mainMicros: (active * 1_000) / sent.length };
});

async function inLanes<T>(items: T[], lanes: number, work: (item: T) => Promise<unknown>): Promise<void> {
  const left = items.values();
  await Promise.all(
    Array.from({ length: lanes }, async () => {
      for (const item of left) await work(item);
    }),
  );
}
