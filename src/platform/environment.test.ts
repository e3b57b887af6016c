import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { expect, onTestFinished, test } from "vitest";

import { loadConfig } from "./config/load.ts";
import { demoSecrets } from "./demo-secrets.ts";
import { prepareEnvironment, readEnvironment } from "./environment.ts";

const secret = (letter: string) => letter.repeat(32);
const secrets = { TIDEGATE_CURSOR_SECRET: secret("c"), TIDEGATE_FINGERPRINT_SECRET: secret("f") };

function problemsOf(env: NodeJS.ProcessEnv): string[] {
  try {
    readEnvironment(env);
  } catch (error) {
    expect(error).toMatchObject({ code: "config-invalid" });
    return (error as Error).message.split("\n");
  }
  return [];
}

function emptyDataDir(): string {
  const folder = mkdtempSync(join(tmpdir(), "tidegate-"));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  return join(folder, "data");
}

test("without settings everything has its documented default, and empty ones count as unset", () => {
  const defaults = {
    port: 8080,
    host: "127.0.0.1",
    databaseUrl: undefined,
    migrationDatabaseUrl: undefined,
    redisUrl: undefined,
    configPath: "config/demo.yaml",
    dataDir: ".tidegate",
    role: "all",
    logLevel: "info",
    cursorSecrets: [secret("c")],
    fingerprintSecrets: [secret("f")],
    isDemo: true,
  };
  expect(readEnvironment({ ...secrets })).toEqual(defaults);
  const empty = {
    PORT: "",
    HOST: "",
    DATABASE_URL: "",
    REDIS_URL: "",
    TIDEGATE_CONFIG: "",
    TIDEGATE_ROLE: "",
  };
  expect(readEnvironment({ ...secrets, ...empty })).toEqual(defaults);
});

test("what is set is taken, secrets newest first", () => {
  const environment = readEnvironment({
    ...secrets,
    PORT: "9000",
    HOST: "0.0.0.0",
    DATABASE_URL: "postgres://u:p@db/tidegate",
    MIGRATION_DATABASE_URL: "postgresql://owner@db/tidegate",
    REDIS_URL: "rediss://cache",
    TIDEGATE_CONFIG: "/etc/tidegate.yaml",
    TIDEGATE_ROLE: "worker",
    LOG_LEVEL: "debug",
    TIDEGATE_CURSOR_SECRET: ` ${secret("n")}, ${secret("o")},`,
  });
  expect(environment).toMatchObject({ port: 9000, role: "worker", logLevel: "debug", isDemo: false });
  expect(environment.databaseUrl).toBe("postgres://u:p@db/tidegate");
  expect(environment.cursorSecrets).toEqual([secret("n"), secret("o")]);
});

test("all problems are told at once, and no value that could be a secret", () => {
  const problems = problemsOf({
    PORT: "70000",
    DATABASE_URL: "mysql://u:hidden@db",
    REDIS_URL: "hidden",
    TIDEGATE_ROLE: "boss",
    TIDEGATE_CURSOR_SECRET: "hidden",
  });
  expect(problems.toSorted()).toEqual([
    expect.stringMatching(/^DATABASE_URL must be a URL/),
    "PORT must be a whole number from 0 to 65535",
    expect.stringMatching(/^REDIS_URL must be a URL/),
    expect.stringMatching(/^TIDEGATE_CURSOR_SECRET is too short/),
    expect.stringMatching(/^TIDEGATE_FINGERPRINT_SECRET is missing/),
    "TIDEGATE_ROLE must be one of all, api, worker",
  ]);
  expect(problems.join()).not.toContain("hidden");
});

test.each(["-1", "65536", "8080.5", "http", "1e9", "0x1F90", "true", " ", "NaN"])(
  "the port %s is refused",
  (PORT) => {
    expect(problemsOf({ ...secrets, PORT })).toHaveLength(1);
  },
);

test.each(["short", ",", `${secret("a")},short`])("the secrets %s are refused", (value) => {
  expect(problemsOf({ ...secrets, TIDEGATE_CURSOR_SECRET: value })).toHaveLength(1);
});

test("the demo starts without any settings, and its tokens still work after a restart", () => {
  const processEnv = { TIDEGATE_DATA_DIR: emptyDataDir() };
  const first = prepareEnvironment(processEnv);
  const second = prepareEnvironment(processEnv);
  expect(first.environment.isDemo).toBe(true);
  expect(second).toEqual(first);
  const { config } = loadConfig(first.environment.configPath, first.env);
  expect(config.tenants["demo"]?.auth.secret).toBe(first.env["DEMO_JWT_SECRET"]);
  expect(processEnv).not.toHaveProperty("TIDEGATE_CURSOR_SECRET");
});

test("with a configuration of one's own, a missing secret stops the start and none is generated", () => {
  const dataDir = emptyDataDir();
  expect(() =>
    prepareEnvironment({ TIDEGATE_CONFIG: "config/demo.yaml", TIDEGATE_DATA_DIR: dataDir }),
  ).toThrow(/TIDEGATE_CURSOR_SECRET is missing/);
  expect(() => statSync(dataDir)).toThrow("ENOENT");
});

test("generated secrets differ, are for the owner's eyes only, and a later name joins them", () => {
  const dataDir = emptyDataDir();
  const first = demoSecrets(dataDir, ["A_SECRET", "B_SECRET"], { B_SECRET: "", HOME: "/" });
  const second = demoSecrets(dataDir, ["A_SECRET", "B_SECRET", "C_TOKEN"], {});
  const path = join(dataDir, "demo-secrets.json");
  expect(statSync(path).mode & 0o777).toBe(0o600);
  expect(new Set([second["A_SECRET"], second["B_SECRET"], second["C_TOKEN"]]).size).toBe(3);
  expect(second).toMatchObject({ A_SECRET: first["A_SECRET"], B_SECRET: first["B_SECRET"] });
  expect(first["HOME"]).toBe("/");
  expect(JSON.parse(readFileSync(path, "utf8"))).toEqual(second);
});

test("a secret that is set wins over a generated one, which stays for later", () => {
  const dataDir = emptyDataDir();
  const generated = demoSecrets(dataDir, ["A_SECRET"], {});
  expect(demoSecrets(dataDir, ["A_SECRET"], { A_SECRET: "mine" })).toEqual({ A_SECRET: "mine" });
  expect(demoSecrets(dataDir, ["A_SECRET"], {})).toEqual(generated);
});

test("a damaged file of secrets is named, and its content is not", () => {
  const dataDir = emptyDataDir();
  demoSecrets(dataDir, ["A_SECRET"], {});
  writeFileSync(join(dataDir, "demo-secrets.json"), '{ "A_SECRET": "hidden');
  expect(() => demoSecrets(dataDir, ["A_SECRET"], {})).toThrow(/demo-secrets.json is damaged(?!.*hidden)/);
});
