import { startGateway, type TestGateway } from "../fixtures/gateway.ts";
import { onlyPrimary, startSystems, withShadow, type Pair } from "./pair.ts";

/** A primary in use, and a shadow that it does not have yet. */
export interface LaterPair extends Pair {
  /** Starts another gateway beside the first one, which knows of the shadow. */
  addShadow: (role?: "all" | "api") => Promise<TestGateway>;
}

export async function startLater(
  queues: "postgres" | "redis",
  config: Parameters<typeof withShadow>[2],
  ofShadow: Parameters<typeof startSystems>[0] = {},
): Promise<LaterPair> {
  const [primary, shadow] = await startSystems(ofShadow);
  const gateway = await startGateway({ queues, upstreams: onlyPrimary(primary.url, config) });
  const { redisUrl } = gateway.environment;
  let later: TestGateway | undefined;
  return {
    gateway,
    primary,
    shadow,
    async addShadow(role = "all") {
      later = await startGateway({
        queues,
        database: gateway.database,
        role,
        upstreams: withShadow(primary.url, shadow.url, config),
        ...(redisUrl !== undefined && { redisUrl }),
      });
      return later;
    },
    async [Symbol.asyncDispose]() {
      await later?.close();
      await gateway.close();
      await primary.stop();
      await shadow.stop();
    },
  };
}
