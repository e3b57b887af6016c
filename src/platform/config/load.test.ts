import { describe, expect, test } from "vitest";

import {
  env,
  load,
  minimal,
  problemsOf,
  twoTenants,
  withActivity,
  withUpstream,
} from "../../../test/fixtures/configs.ts";
import { loadConfig } from "./load.ts";

describe("what loads", () => {
  test("the smallest configuration gets every default", () => {
    const { config, warnings } = load(minimal.join("\n"));
    expect(warnings).toEqual([]);
    expect(config.limits).toEqual({
      mutations: 500,
      bodyBytes: 4_194_304,
      mutationBytes: 262_144,
      depth: 64,
      keepAckedDays: 35,
    });
    expect(config.follow).toEqual({
      lookEveryMs: 5_000,
      commentEveryMs: 15_000,
      stalledMs: 30_000,
      streamsMax: 8_000,
    });
    expect(config.tenants["hlf"]?.auth).toMatchObject({ scopes: ["org", "user:{sub}"], roles: "roles" });
    expect(config.tenants["hlf"]?.upstreams["crm"]).toEqual({
      role: "primary",
      kind: "rest",
      baseUrl: "http://127.0.0.1:4010",
      timeoutMs: 10_000,
      concurrency: 16,
      retry: { baseMs: 1000, capMs: 900_000 },
      circuit: { failures: 5, cooldownMs: 10_000 },
      onPark: "hold-dependents",
      statuses: {},
      processingMs: 0,
      indexLagMs: 0,
      entities: {
        activity: {
          path: "/activities",
          id: "/id",
          create: { class: "opaque", method: "POST", enabled: true },
          update: { class: "opaque", method: "PATCH", enabled: true },
          delete: { class: "opaque", method: "DELETE", enabled: true },
          toUpstream: "$",
          fromUpstream: "$",
          scopes: ["org"],
          conflict: "reject",
        },
      },
    });
  });

  test("headers of keys and conditions are named by class and operation", () => {
    const { config } = load(
      withActivity(
        "version: { pointer: /version }",
        "create: { class: idempotency-key }",
        "update: { class: conditional }",
        "delete: { class: conditional, header: X-If }",
      ),
    );
    const activity = config.tenants["hlf"]?.upstreams["crm"]?.entities["activity"];
    expect(activity?.create.header).toBe("Idempotency-Key");
    expect(activity?.update.header).toBe("If-Match");
    expect(activity?.delete.header).toBe("X-If");
  });

  test("a file with every key loads, and what is not acted on yet is said with its line", () => {
    const { config, warnings } = load(everyKey);
    const crm = config.tenants["hlf"]?.upstreams["crm"];
    expect(crm?.statuses).toEqual({ 404: "park", 423: "retry" });
    expect(crm?.auth).toEqual({ type: "bearer", token: "token" });
    expect(crm?.entities["activity"]?.lookup).toBe("{path}?externalRef={tempId}");
    const entity = "tenants.hlf.upstreams.crm.entities.activity";
    expect(warnings.map((line) => line.replace(/: this version does not act on it yet.*/, ""))).toEqual([
      `tidegate.yaml:37:20 ${entity}.match: pairs records in a shadow only, and this is not one`,
      `tidegate.yaml:38:36 ${entity}.references["/mentor"]: the upstream has no such entity`,
      `tidegate.yaml:45:24 ${entity}.reconcile`,
    ]);
  });

  test("a shadow acts on `match`, and on `list` with it", () => {
    const shadow = `
      erp: { role: shadow, kind: rest, baseUrl: "http://erp", entities: { activity: { path: /a, id: /id, match: /no, list: {} } } }`;
    expect(load(minimal.join("\n") + shadow).warnings).toEqual([]);
  });

  test.each(["config/demo.yaml", "config/example.yaml"])("%s loads", (path) => {
    expect(Object.keys(loadConfig(path, env).config.tenants)).toHaveLength(1);
  });

  test("a map used twice by an alias gets the defaults of each of its places", () => {
    const { config } = load(withActivity("create: &repeatable { class: upsert }", "update: *repeatable"));
    const activity = config.tenants["hlf"]?.upstreams["crm"]?.entities["activity"];
    expect([activity?.create.method, activity?.update.method]).toEqual(["POST", "PATCH"]);
  });

  test("a name that every JavaScript object has is no entity", () => {
    const { config } = load(minimal.join("\n"));
    expect(config.tenants["toString"]).toBeUndefined();
    expect(config.tenants["hlf"]?.upstreams["crm"]?.entities["constructor"]).toBeUndefined();
  });

  test("two issuers that share a secret are doubted", () => {
    const two = twoTenants("", "").replace("id.hlf.example", "id.other.example");
    expect(load(two).warnings).toEqual([
      expect.stringMatching(/^tidegate.yaml:24:15 tenants.two.auth.secret: the same secret as tenant `hlf`/),
    ]);
  });

  test("tenants that share an issuer load when a claim tells them apart", () => {
    const two = twoTenants("match: { org: a }", "match: { org: b, region: x }");
    expect(problemsOf(two)).toEqual([]);
  });
});

describe("placeholders", () => {
  test("a value that looks like YAML stays one string", () => {
    const value = `", x: [1] } # ${"long enough ".repeat(3)}\n- *a`;
    const { config } = load(minimal.join("\n"), { HLF_JWT_SECRET: value });
    expect(config.tenants["hlf"]?.auth.secret).toBe(value);
  });

  test("a value that names another variable is not replaced again", () => {
    const value = "${CRM_TOKEN} is not looked up here";
    const { config } = load(minimal.join("\n"), { HLF_JWT_SECRET: value });
    expect(config.tenants["hlf"]?.auth.secret).toBe(value);
  });

  test("a number stays a string and is refused where a number belongs", () => {
    expect(problemsOf(withUpstream("concurrency: ${N}"), { N: "4" })).toEqual([
      "tidegate.yaml:12:22 tenants.hlf.upstreams.crm.concurrency: must be a whole number, not a string",
    ]);
  });

  test("several stand inside one string", () => {
    const { config } = load(withUpstream('headers: { X-From: "${A}/${B}!" }'), { A: "a", B: "b" });
    expect(config.tenants["hlf"]?.upstreams["crm"]?.headers).toEqual({ "X-From": "a/b!" });
  });

  test("a group-by in JSONata is not mistaken for one", () => {
    expect(problemsOf(withActivity("toUpstream: '${ kind: $sum(minutes) }'"))).toEqual([]);
    const step = "{ from: 1, to: 2, name: a, data: '${ kind: $sum(minutes) }' }";
    expect(problemsOf(withActivity("schema: 2", `upcast: [${step}]`))).toEqual([]);
  });

  test("those in comments are not needed", () => {
    expect(problemsOf(`# \${NOT_SET}\n${minimal.join("\n")}`)).toEqual([]);
  });

  test("a name that every JavaScript object has is no variable", () => {
    const text = minimal.join("\n").replace("HLF_JWT_SECRET", "toString");
    expect(problemsOf(text)).toEqual([
      expect.stringContaining("the environment variable toString is not set"),
    ]);
  });

  test("an empty variable counts as unset, and nothing further is said of its value", () => {
    expect(problemsOf(minimal.join("\n"), { HLF_JWT_SECRET: "" })).toEqual([
      "tidegate.yaml:7:15 tenants.hlf.auth.secret: the environment variable HLF_JWT_SECRET is not set, or empty",
    ]);
  });

  test("no message shows a variable's value", () => {
    const text = withUpstream(
      "onPark: ${CRM_TOKEN}",
      "actorHeader: ${CRM_TOKEN}",
      "auth: { type: '${CRM_TOKEN}' }",
    );
    const problems = problemsOf(text, { CRM_TOKEN: "not shown: hold-lane" });
    expect(problems).toHaveLength(3);
    expect(problems.join()).not.toContain("not shown");
  });
});

/** As the design shows it, with the entity that its activity refers to. */
const everyKey = `ops:                                   # who may use /ops; its own issuer or secret, never a tenant's
  auth: { issuer: ops, audience: tidegate-ops, algorithm: HS256, secret: \${OPS_JWT_SECRET} }   # claim \`role\`: viewer | operator | approver
tenants:
  hlf:
    auth:
      issuer: https://id.hlf.example   # issuer (plus an optional \`match: { claim: value }\`) decides the tenant; overlap is a configuration error
      audience: tidegate
      algorithm: HS256                 # with \`secret\`; or RS256 / ES256 / EdDSA with \`jwksUri\`; the token's own \`alg\` never decides
      secret: \${HLF_JWT_SECRET}
      scopes: [ "org", "user:{sub}", "group:{groups}" ]      # from claims; a list claim gives one scope for each element
      roles: roles                     # the claim that holds roles
    upstreams:
      crm:
        role: primary                  # or shadow
        kind: rest                     # or odata, or \`module: ./connectors/legacy-soap.ts\`
        baseUrl: http://127.0.0.1:4010
        auth: { type: bearer, token: \${CRM_TOKEN} }           # or basic, apiKey, oauth2ClientCredentials
        actorHeader: X-Acting-User
        timeoutMs: 10000
        concurrency: 16                # calls in flight
        requestsPerSecond: 50
        retry: { baseMs: 1000, capMs: 900000 }
        circuit: { failures: 5, cooldownMs: 10000 }
        onPark: hold-dependents        # or hold-lane
        statuses: { 404: park, 423: retry }                   # overrides of the disposition map
        poll: { everyMs: 60000 }       # also fetch the upstream's own changes
        entities:
          activity:
            path: /activities          # collection; an item is {path}/{id}
            id: /id
            version: { header: etag }  # or { pointer: /version }
            create: { class: idempotency-key, header: Idempotency-Key, keyTtlMs: 86400000 }
            update: { method: PATCH, class: conditional, header: If-Match }
            delete: { class: client-id }                      # 404 on a repeated delete is success
            reference: /externalRef    # where our temp ID is written (after mapping, on create and on every PUT), so that it can be looked up
            lookup: "{path}?externalRef={tempId}"
            match: /memberNo           # pairs records that existed in several upstreams before
            references: { /mentor: mentor }
            list: { since: updatedSince, page: page, size: pageSize, items: /items, updatedAt: /updatedAt }
            toUpstream: "$"            # JSONata, phone's data → upstream's body; default: unchanged
            fromUpstream: "$"          # JSONata, upstream's record → phone's data
            scopes: [ "org", "user:{/mentor}" ]
            write: { create: [ "org" ], update: [ "user:{/mentor}", "role:coordinator" ], delete: [ "role:coordinator" ], fields: { /approved: [ "role:coordinator" ] } }
            conflict: reject
            reconcile: { ignore: [ /updatedAt ], tolerate: { /minutes: { absolute: 0 } }, duplicateKey: [ /mentor, /date, /start ] }
`;
