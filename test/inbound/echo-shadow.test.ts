import { expect, test } from "vitest";

import { startGateway, tempId } from "../fixtures/gateway.ts";
import { startScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { linesOf, newPhone } from "../replay/phone.ts";
import { withShadow } from "../shadows/pair.ts";
import { storeOptions } from "../shadows/pair.ts";
import { stamps } from "./polled.ts";
import { newReader } from "./reader.ts";

test.each([false, true])(
  "a shadow (follow: %s) gets a client's change also if a poll saw it first, and what others change if it follows",
  { timeout: 60_000 },
  async (follow) => {
    await using primary = await startScriptedUpstream({ ...storeOptions, ...stamps });
    await using shadow = await startScriptedUpstream(storeOptions);
    shadow.seed("activities", ['{"id":900}']);
    const upstreams = withShadow(primary.url, shadow.url, {
      shadow: { follow },
      primary: { poll: { everyMs: 100, overlapMs: 1_000 } },
    }) as { crm: { entities: Record<string, object> } };
    for (const entity of Object.values(upstreams.crm.entities))
      Object.assign(entity, {
        reference: "/externalRef",
        list: { since: "since", page: "page", size: "size", updatedAt: "/updatedAt" },
      });
    await using gateway = await startGateway({ upstreams });
    const phone = newPhone(gateway);
    const reader = newReader(phone.api, phone.clientId);
    const gate = Promise.withResolvers<void>();
    primary.script({ method: "POST" }, async ({ apply, send }) => {
      const answer = apply();
      await gate.promise;
      send(answer);
    });
    phone.add({ op: "create", recordId: tempId(), data: { n: 1 } });
    await phone.send({ wait: 0 });
    await reader.until(() => reader.held.size === 1);
    gate.resolve();
    expect(linesOf(await phone.settled())).toEqual(["applied"]);
    const inShadow = (): unknown[] =>
      shadow.records("activities").map((text) => (JSON.parse(text) as { n?: number }).n);
    await expect.poll(inShadow, { timeout: 20_000 }).toEqual([undefined, 1]);
    const [id = ""] = [...reader.held.values()].map((change) => change.id);
    primary.change("activities", id, '{"n":2}');
    await reader.until(() => reader.held.get(`activity/${id}`)?.data?.["n"] === 2);
    if (follow) await expect.poll(inShadow, { timeout: 20_000 }).toEqual([undefined, 2]);
    else expect(inShadow()).toEqual([undefined, 1]);
  },
);
