import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { crm } from "../fixtures/crm.ts";
import { startGateway, tempId, type TestGateway } from "../fixtures/gateway.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { newOperator } from "./operator.ts";
import { quiet } from "./parked.ts";
import { linesOf, newPhone, resultOf } from "./phone.ts";

/** The first backtracks for longer than anybody lives, given the note below; the second goes on without an end. */
const hostile = {
  "a regular expression": "$contains(note, /^(a+)+$/) ? $ : $",
  "a recursion": '($f := function($n) { $f($n + 1) }; note ~> /^a/ ? $f(0) : {"note": note})',
};
const note = `${"a".repeat(60)}!`;
const where = "upstreams.crm.entities.activity.toUpstream";

describe.each(Object.entries(hostile))("%s without an end", { timeout: 60_000 }, (_name, toUpstream) => {
  let upstream: ScriptedUpstream;
  let gateway: TestGateway;
  beforeAll(async () => {
    upstream = await startScriptedUpstream({ etags: true });
    gateway = await startGateway({
      queues: "postgres",
      upstreams: crm(upstream.url, { upstream: quiet, entity: { toUpstream } }),
      otherUpstreams: crm(upstream.url, { upstream: quiet, entity: { toUpstream: '{"note": note}' } }),
    });
  });
  afterAll(async () => {
    await gateway?.close();
    await upstream?.stop();
  });

  test("holds up neither other upstreams nor the API, and parks its mutation with the place and none of the data", async () => {
    const phone = newPhone(gateway);
    const stuck = phone.add({ op: "create", recordId: tempId(), data: { note } });
    const after = phone.add({ op: "create", recordId: tempId(), data: { note: "b" } });
    await phone.send({ headers: { prefer: "wait=0" } });

    const other = newPhone(gateway, { iss: "other", sub: "ola" });
    other.add({ op: "create", recordId: tempId(), data: { note } });
    expect(linesOf(await other.replay())).toEqual(["applied"]);
    expect((await fetch(`${gateway.url}/health/live`)).status).toBe(200);

    const results = await phone.settled();
    expect(resultOf(results, after).status).toBe("applied");
    const { status, problem } = resultOf(results, stuck);
    expect({ status, type: problem?.type }).toEqual({
      status: "parked",
      type: "urn:tidegate:problem:upstream-unexpected",
    });
    const took = /it took more than 5000 ms|JSONata D1012 \(line 1, column \d+, at "\w+" of the expression\)/;
    expect(problem?.detail.startsWith(`A mapping can't take the data: ${where}: `)).toBe(true);
    expect(problem?.detail).toMatch(took);
    expect(upstream.requests.filter(({ body }) => body.toString().includes(note))).toHaveLength(1);
    expect(JSON.stringify(problem) + gateway.log.join("\n")).not.toContain(note);
    await newOperator(gateway).command(stuck.id, { command: "reject" });
  });
});
