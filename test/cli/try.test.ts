import { describe, expect, test } from "vitest";

import { startScriptedUpstream } from "../fixtures/scripted-upstream.ts";
import { aFile, cliEnv, configOf, runCli } from "./run-cli.ts";

const entity = {
  toUpstream: '{"Minutes": minutes}',
  version: { header: "etag" },
  create: { class: "idempotency-key" },
  update: { class: "conditional" },
  schema: 2,
  upcast: [{ from: 1, to: 2, name: "hours are minutes", data: '{"minutes": hours * 60}' }],
};
const headers = { "X-Api-Key": "written in the file", "X-Source": "tidegate" };

describe("try", { timeout: 180_000 }, () => {
  test("shows the mapped request with its headers, without secrets, and sends it to nobody", async () => {
    await using upstream = await startScriptedUpstream();
    const file = await configOf(`${upstream.url}/api`, entity, { headers, actorHeader: "X-User" });
    const { code, out } = await runCli(
      ["try", "--tenant", "ours", "--entity", "activity", "--schema", "1", "--data", "-", "--config", file],
      { env: cliEnv, input: '{"hours": 2}' },
    );
    expect(code).toBe(0);
    const [request, ...lines] = out.trim().split("\n");
    expect(request).toBe(`POST ${upstream.url}/api/activities`);
    expect(lines.at(-1)).toBe('{"Minutes":120}');
    expect(lines).toEqual(
      expect.arrayContaining([
        `host: ${new URL(upstream.url).host}`,
        "authorization: …",
        expect.stringMatching(/^idempotency-key: [0-9a-f-]{36}$/i),
        expect.stringMatching(/^x-user: ACTING-USER$/i),
      ]),
    );
    for (const secret of [cliEnv.CLI_TOKEN, headers["X-Api-Key"]]) expect(out).not.toContain(secret);
    expect(upstream.requests).toEqual([]);
  });

  test("shows updates with their condition, and deletes", async () => {
    const file = await configOf("https://crm.example/api", entity);
    const data = await aFile('{"minutes": 5}');
    const base = ["try", "--tenant", "ours", "--entity", "activity", "--config", file];
    const update = await runCli([...base, "--op", "update", "--data", data], { env: cliEnv });
    expect(update.out).toContain("PATCH https://crm.example/api/activities/SERVER-ID\n");
    expect(update.out).toMatch(/if-match: "VERSION"/i);
    expect(update.out.trim().split("\n").at(-1)).toBe('{"Minutes":5}');
    const remove = await runCli([...base, "--op", "delete"], { env: cliEnv });
    expect([remove.code, remove.out.split("\n")[0]]).toEqual([
      0,
      "DELETE https://crm.example/api/activities/SERVER-ID",
    ]);
  });

  test("what can't be built is exit code 1, and says why without the data", async () => {
    const file = await configOf("https://crm.example", { ...entity, toUpstream: '{"Minutes": minutes * 2}' });
    const base = ["try", "--tenant", "ours", "--config", file, "--data", "-", "--entity"];
    const input = '{"minutes": "a secret"}';
    const unmapped = await runCli([...base, "activity"], { env: cliEnv, input });
    expect([unmapped.code, unmapped.out]).toEqual([
      1,
      expect.stringMatching(/^not sent: upstreams\.crm\.entities\.activity\.toUpstream: JSONata T2001/),
    ]);
    const unknown = await runCli([...base, "mentor"], { env: cliEnv, input });
    expect([unknown.code, unknown.err]).toEqual([1, "invalid-request: --entity must be one of activity\n"]);
    const broken = await runCli([...base, "activity"], { env: cliEnv, input: '{"a secret' });
    expect([broken.code, broken.err]).toEqual([1, "invalid-request: --data is not JSON\n"]);
  });

  test.each([
    ["number", "delete", "DELETE", "(4711)"],
    ["guid", "create", "PUT", "(00000000-0000-4000-8000-000000000001)"],
    ["string", "update", "PATCH", "('SERVER-ID')"],
  ])("shows OData's requests: by a %s key a %s", async (keyType, op, method, key) => {
    const own = { create: { class: "client-id", method: "PUT" }, update: { class: "conditional" } };
    const service = { path: "/Activities", id: "/Id", keyType, ...own };
    const file = await configOf("https://erp.example/v4", service, { kind: "odata" });
    const args = ["--tenant", "ours", "--entity", "activity", "--config", file, "--op", op];
    const { code, out } = await runCli(["try", ...args], { env: cliEnv });
    expect([code, out.split("\n")[0]]).toEqual([0, `${method} https://erp.example/v4/Activities${key}`]);
    expect(out).toContain("odata-maxversion: 4.0\n");
    if (op === "create") expect(out).toContain("if-none-match: *\n");
    if (op === "update") expect(out).toContain('if-match: "VERSION"\n');
  });
});
