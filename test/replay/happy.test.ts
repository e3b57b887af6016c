import { describe, expect, test } from "vitest";

import { startGateway, tempId } from "../fixtures/gateway.ts";
import { newOutbox } from "../fixtures/outbox.ts";
import { queueBackends } from "../fixtures/redis.ts";
import { startScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { crm } from "../fixtures/crm.ts";

describe.each(queueBackends())("on %s", (queues) => {
  test("a mentor, what refers to it and its update reach the upstream in order, with server IDs", async () => {
    await using upstream = await startScriptedUpstream();
    await using gateway = await startGateway({ queues, upstreams: crm(upstream.url) });
    const outbox = newOutbox();
    const [mentor, activity] = [tempId(), tempId()];
    outbox.add({ op: "create", entity: "mentor", recordId: mentor, data: { name: "Kari" } });
    outbox.add({ op: "create", recordId: activity, data: { mentor, minutes: 45 } });
    outbox.add({ op: "update", recordId: activity, data: { minutes: 50 } });
    const { status, body } = await gateway.as().upload(outbox.batch());
    expect(body.results.map((result: { status: string }) => result.status)).toEqual([
      "applied",
      "applied",
      "applied",
    ]);
    expect(status).toBe(200);
    const [mentorId, activityId] = body.idMappings.map((m: { serverId: string }) => m.serverId);
    expect(upstream.records("mentors").map(parse)).toEqual([{ id: Number(mentorId), name: "Kari" }]);
    expect(upstream.records("activities").map(parse)).toEqual([
      { id: Number(activityId), mentor: mentorId, minutes: 50 },
    ]);
  });
});

const parse = (text: string): unknown => JSON.parse(text);
