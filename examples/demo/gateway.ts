import { randomBytes } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { parseDocument } from "yaml";

import { freePort, startNode, stopNode, untilAnswering, type Stage } from "./stage.ts";
import type { Secrets } from "./mint.ts";

export interface Gateway {
  url: string;
  secrets: Secrets;
}

const root = fileURLToPath(new URL("../..", import.meta.url));
/** How long a call to the legacy system may take; a lost create is not sent again before this is over. */
const timeoutMs = 1_500;

/**
 * Starts the gateway as `npm start` does, in a process of its own, with config/demo.yaml in front of another address.
 * Without a database and Redis of its own in the environment, it brings an embedded Postgres for both.
 */
export async function startGateway(
  stage: Stage,
  { dir, logPath, legacyUrl }: { dir: string; logPath: string; legacyUrl: string },
): Promise<Gateway> {
  const configPath = join(dir, "demo.yaml");
  await writeFile(configPath, await configFor(legacyUrl));
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const secrets = { DEMO_JWT_SECRET: newSecret(), DEMO_OPS_SECRET: newSecret() };
  let ready = Promise.resolve();
  stage.onClose(async () => {
    // A server that is still making its database is let finish, so that it leaves nothing behind.
    await ready.catch(() => undefined);
    await stopNode(child);
  });
  const child = startNode(["src/main.ts"], {
    cwd: root,
    logPath,
    env: {
      ...withoutServers(process.env),
      ...secrets,
      PORT: String(port),
      HOST: "127.0.0.1",
      LOG_LEVEL: "info",
      TIDEGATE_CONFIG: configPath,
      TIDEGATE_DATA_DIR: join(dir, "data"),
      TIDEGATE_CURSOR_SECRET: newSecret(),
      TIDEGATE_FINGERPRINT_SECRET: newSecret(),
    },
  });
  ready = untilAnswering(child, `${url}/health/ready`);
  await ready;
  return { url, secrets };
}

async function configFor(legacyUrl: string): Promise<string> {
  const config = parseDocument(await readFile(join(root, "config/demo.yaml"), "utf8"));
  const legacy = ["tenants", "demo", "upstreams", "legacy"];
  config.setIn([...legacy, "baseUrl"], legacyUrl);
  config.setIn([...legacy, "timeoutMs"], timeoutMs);
  return config.toString();
}

/** The demo brings its own servers, and never touches anybody's database. */
function withoutServers(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const { DATABASE_URL: _database, MIGRATION_DATABASE_URL: _owner, REDIS_URL: _redis, ...rest } = env;
  const { TIDEGATE_ROLE: _role, ...others } = rest;
  return others;
}

function newSecret(): string {
  return randomBytes(32).toString("base64url");
}
