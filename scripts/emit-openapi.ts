import { buildApp } from "../src/app.ts";
import { loadConfig } from "../src/platform/config/load.ts";
import { openDatabase } from "../src/platform/db.ts";
import { createHints } from "../src/platform/hints.ts";
import { createLogger } from "../src/platform/logger.ts";
import { createMetrics } from "../src/platform/metrics.ts";
import { plainCodec } from "../src/platform/payload-codec.ts";
import { openapiYaml } from "../src/http/openapi.ts";
import { emitFile } from "./emitted-file.ts";

/** The routes' schemas need no database: nothing is connected before a first query. */
const secret = "only for this script, which signs nothing";
const { config } = loadConfig("config/demo.yaml", {
  DEMO_JWT_SECRET: `${secret} a`,
  DEMO_OPS_SECRET: `${secret} b`,
});
const app = await buildApp({
  role: "api",
  config,
  db: openDatabase("postgres://127.0.0.1/none", { poolMax: 1, onError: () => undefined }),
  codec: plainCodec,
  hints: createHints(),
  wakeShadow: undefined,
  wakeInbound: Object.assign(() => undefined, { now: () => Promise.resolve() }),
  wake: Object.assign(() => undefined, { now: () => Promise.resolve() }),
  queues: [],
  metrics: createMetrics(),
  log: createLogger("silent"),
  cursorSecrets: [secret],
  fingerprintSecrets: [secret],
  onTold: () => undefined,
  installation: { epoch: () => "", assertServed: () => undefined },
  stopping: new AbortController().signal,
});
await app.ready();
emitFile("openapi.yaml", openapiYaml(app), { command: "npm run openapi" });
await app.close();
