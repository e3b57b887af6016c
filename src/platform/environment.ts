import envSchema from "env-schema";
import { Type } from "typebox";

import { demoSecrets } from "./demo-secrets.ts";
import { readConfigFile } from "./config/load.ts";
import { variablesOf } from "./config/placeholders.ts";
import { TidegateError } from "./errors.ts";

export interface Environment {
  /** 0 takes any free port. */
  port: number;
  host: string;
  /** Without it, an embedded Postgres is started under `dataDir`. */
  databaseUrl: string | undefined;
  /** The owner of the schema, for migrations; the service's own role may not change it. */
  migrationDatabaseUrl: string | undefined;
  /** Without it, the queues are kept in Postgres. */
  redisUrl: string | undefined;
  configPath: string;
  dataDir: string;
  role: "all" | "api" | "worker";
  logLevel: "fatal" | "error" | "warn" | "info" | "debug" | "trace" | "silent";
  /** Newest first: the first signs, all of them verify. */
  cursorSecrets: string[];
  fingerprintSecrets: string[];
  /** No configuration was named: the demo's is used, with secrets generated for it. */
  isDemo: boolean;
}

// Text, since a number would take "0x1F90", " " and "true" for ports.
const portPattern =
  "^(0|[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$";

type Variables = Type.Static<typeof Variables>;
const Variables = Type.Object({
  PORT: Type.String({ default: "8080", pattern: portPattern }),
  HOST: Type.String({ default: "127.0.0.1" }),
  DATABASE_URL: Type.Optional(Type.String({ pattern: "^postgres(ql)?://" })),
  MIGRATION_DATABASE_URL: Type.Optional(Type.String({ pattern: "^postgres(ql)?://" })),
  REDIS_URL: Type.Optional(Type.String({ pattern: "^rediss?://" })),
  TIDEGATE_CONFIG: Type.String({ default: "config/demo.yaml" }),
  TIDEGATE_DATA_DIR: Type.String({ default: ".tidegate" }),
  TIDEGATE_ROLE: Type.Enum(["all", "api", "worker"], { default: "all" }),
  LOG_LEVEL: Type.Enum(["fatal", "error", "warn", "info", "debug", "trace", "silent"], { default: "info" }),
  TIDEGATE_CURSOR_SECRET: Type.String(),
  TIDEGATE_FINGERPRINT_SECRET: Type.String(),
});

const secretLengthMin = 32;
const ownSecrets = ["TIDEGATE_CURSOR_SECRET", "TIDEGATE_FINGERPRINT_SECRET"] as const;

/**
 * Reads the environment; empty variables count as unset.
 *
 * @throws {TidegateError} `config-invalid` with every problem at once, a line for each. No line shows a value that
 * could hold a password. The gateway does not start.
 */
export function readEnvironment(env: NodeJS.ProcessEnv): Environment {
  const set = withoutEmpty(env);
  const problems = [...schemaProblems(set), ...ownSecrets.flatMap((name) => secretProblems(name, set[name]))];
  if (problems.length > 0) throw new TidegateError("config-invalid", problems.join("\n"));
  const variables = envSchema<Variables>({ schema: Variables, data: set, env: false });
  return {
    port: Number(variables.PORT),
    host: variables.HOST,
    databaseUrl: variables.DATABASE_URL,
    migrationDatabaseUrl: variables.MIGRATION_DATABASE_URL,
    redisUrl: variables.REDIS_URL,
    configPath: variables.TIDEGATE_CONFIG,
    dataDir: variables.TIDEGATE_DATA_DIR,
    role: variables.TIDEGATE_ROLE,
    logLevel: variables.LOG_LEVEL,
    cursorSecrets: splitSecrets(variables.TIDEGATE_CURSOR_SECRET),
    fingerprintSecrets: splitSecrets(variables.TIDEGATE_FINGERPRINT_SECRET),
    isDemo: set["TIDEGATE_CONFIG"] === undefined,
  };
}

/**
 * Reads the environment, and for the demo adds what it does not set: the gateway's own secrets and those the demo's
 * configuration names (`…_SECRET`, `…_TOKEN`), the same ones at every start.
 *
 * @returns the environment, and `env` with the added secrets, which the configuration takes its `${VAR}`s from
 * @throws {TidegateError} `config-invalid`, see {@link readEnvironment}
 */
export function prepareEnvironment(processEnv: NodeJS.ProcessEnv): {
  environment: Environment;
  env: NodeJS.ProcessEnv;
} {
  const env = isDemo(processEnv) ? withDemoSecrets(processEnv) : processEnv;
  return { environment: readEnvironment(env), env };
}

function isDemo(env: NodeJS.ProcessEnv): boolean {
  return withoutEmpty(env)["TIDEGATE_CONFIG"] === undefined;
}

function withDemoSecrets(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const { TIDEGATE_CONFIG, TIDEGATE_DATA_DIR } = Variables.properties;
  const dataDir = withoutEmpty(env)["TIDEGATE_DATA_DIR"] ?? defaultOf(TIDEGATE_DATA_DIR);
  const named = variablesOf(readConfigFile(defaultOf(TIDEGATE_CONFIG)));
  return demoSecrets(dataDir, [...ownSecrets, ...named.filter((name) => /_(SECRET|TOKEN)$/.test(name))], env);
}

function defaultOf(schema: object): string {
  return (schema as { default: string }).default;
}

function withoutEmpty(env: NodeJS.ProcessEnv): Record<string, string> {
  return Object.fromEntries(
    Object.entries(env).filter(
      (entry): entry is [string, string] => entry[1] !== undefined && entry[1] !== "",
    ),
  );
}

interface EnvError {
  keyword: string;
  instancePath: string;
  message?: string;
  params: { missingProperty?: string; allowedValues?: string[]; pattern?: string };
}

function schemaProblems(env: Record<string, string>): string[] {
  try {
    envSchema({ schema: Variables, data: env, env: false });
    return [];
  } catch (error) {
    const { errors } = error as { errors?: EnvError[] };
    if (errors === undefined) throw error;
    return errors.map(toProblem);
  }
}

function toProblem({ keyword, instancePath, message, params }: EnvError): string {
  if (keyword === "required") return `${params.missingProperty} is missing: set it to ${secretForm}`;
  const name = instancePath.slice(1);
  if (keyword === "enum") return `${name} must be one of ${params.allowedValues?.join(", ")}`;
  if (name === "PORT") return "PORT must be a whole number from 0 to 65535";
  if (keyword === "pattern") return `${name} must be a URL that begins like ${params.pattern?.slice(1)}`;
  return `${name} ${message}`;
}

const secretForm = `at least ${secretLengthMin} random characters; several separated by commas, the newest first`;

function secretProblems(name: string, value: string | undefined): string[] {
  if (value === undefined) return [];
  const secrets = splitSecrets(value);
  const fit = secrets.length > 0 && secrets.every(({ length }) => length >= secretLengthMin);
  return fit ? [] : [`${name} is too short: it must be ${secretForm}`];
}

function splitSecrets(value: string): string[] {
  return value
    .split(",")
    .map((secret) => secret.trim())
    .filter((secret) => secret !== "");
}
