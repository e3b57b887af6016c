import { randomUUID } from "node:crypto";
import { describe, expect, test, vi } from "vitest";

import { crm } from "../fixtures/crm.ts";
import { startGateway, tempId } from "../fixtures/gateway.ts";
import { queueBackends } from "../fixtures/redis.ts";
import { faults } from "../fixtures/scripted-faults.ts";
import { startScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { linesOf, newPhone } from "./phone.ts";

describe.each(queueBackends())("on %s", { timeout: 60_000 }, (queues) => {
  test("an API without a worker accepts, a worker without an API replays, and both stop cleanly", async () => {
    await using upstream = await startScriptedUpstream();
    await using api = await startGateway({ queues, role: "api", upstreams: crm(upstream.url) });
    const phone = newPhone(api);
    phone.add({ op: "create", recordId: tempId(), data: {} });
    const { status, body } = await phone.send({ wait: 1 });
    expect([status, linesOf(body.results)]).toEqual([202, ["pending"]]);
    expect(upstream.requests).toEqual([]);
    const worker = await api.another("worker");
    expect((await fetch(`${worker.url}/v1/capabilities`)).status).toBe(404);
    expect((await fetch(`${worker.url}/health/ready`)).status).toBe(200);
    expect(linesOf(await phone.settled())).toEqual(["applied"]);
  });

  test("the acting user and the request's ID reach the upstream with every call", async () => {
    await using upstream = await startScriptedUpstream();
    const actor = { actorHeader: "X-Acting-User" };
    await using gateway = await startGateway({ queues, upstreams: crm(upstream.url, { upstream: actor }) });
    const phone = newPhone(gateway, { sub: "ola nordmann" });
    upstream.script({ method: "POST" }, faults.status(503));
    const recordId = tempId();
    phone.add({ op: "create", recordId, data: {} });
    phone.add({ op: "update", recordId, data: { minutes: 1 } });
    const requestId = randomUUID();
    await phone.replay({ headers: { "x-request-id": requestId } });
    expect(upstream.requests.map(({ method }) => method)).toEqual(["POST", "POST", "PATCH"]);
    for (const { headers } of upstream.requests) {
      expect(headers).toMatchObject({ "x-acting-user": "ola%20nordmann", "x-request-id": requestId });
    }
  });

  test("metrics tell what was settled, what failed, how long calls take, and what waits", async () => {
    await using upstream = await startScriptedUpstream();
    await using gateway = await startGateway({ queues, upstreams: crm(upstream.url) });
    const phone = newPhone(gateway);
    upstream.script(
      { method: "POST" },
      faults.status(503),
      faults.status(422),
      faults.status(418),
      ({ apply, send }) => send(apply()),
      faults.status(429, { headers: { "retry-after": "60" } }),
    );
    for (let n = 0; n < 5; n++)
      phone.add({ op: "create", recordId: tempId(), data: { secret: "Kari Nordmann" } });
    await phone.send({ wait: 0 });
    const read = async (): Promise<string> => await (await fetch(`${gateway.url}/metrics`)).text();
    const labels = 'tenant="ours",upstream="crm"';
    await vi.waitFor(
      async () => {
        const text = await read();
        for (const line of [
          `tidegate_mutations_settled_total{${labels},status="rejected"} 1`,
          `tidegate_mutations_settled_total{${labels},status="parked"} 1`,
          `tidegate_mutations_settled_total{${labels},status="applied"} 1`,
          `tidegate_attempts_failed_total{${labels},disposition="retry"} 2`,
          `tidegate_attempts_failed_total{${labels},disposition="reject"} 1`,
          `tidegate_attempts_failed_total{${labels},disposition="park"} 1`,
          `tidegate_upstream_call_duration_seconds_count{${labels},operation="create",result="failed"} 4`,
          `tidegate_upstream_call_duration_seconds_count{${labels},operation="create",result="answered"} 1`,
          `tidegate_mutations_parked{${labels}} 1`,
          'tidegate_lanes_due{tenant="ours"} 0',
        ]) {
          expect(text).toContain(line);
        }
        expect(text).toMatch(/tidegate_oldest_head_age_seconds\{tenant="ours"\} (?!0\n)\d/);
      },
      { timeout: 15_000, interval: 250 },
    );
    // Neither there nor in the log is anything of what the mutations say.
    expect(await read()).not.toContain("Nordmann");
    expect(gateway.log.join("\n")).not.toContain("Nordmann");
  });
});
