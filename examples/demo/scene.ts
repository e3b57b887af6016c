import { chmod, mkdir, mkdtemp, realpath, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { startGateway, type Gateway } from "./gateway.ts";
import { startLegacy, type Legacy } from "./legacy.ts";
import { startLossyNetwork, type LossyNetwork } from "./lossy-network.ts";
import { openPhone, type Phone } from "./phone.ts";
import { freePort, type Stage } from "./stage.ts";
import { userToken } from "./mint.ts";

/** Everything that takes part: phones ─ air ─ gateway ─ wire ─ legacy system. */
export interface Scene {
  kari: Phone;
  /** Another user of the same organisation, whose network is fine. */
  ola: Phone;
  air: LossyNetwork;
  gateway: Gateway;
  wire: LossyNetwork;
  legacy: Legacy;
}

export function gatewayLog(dir: string): string {
  return join(dir, "gateway.log");
}

export async function makeTempDir(stage: Stage): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), "tidegate-demo-"));
  stage.onClose(async () => {
    // Postgres does not run as root; then its data may lie elsewhere, behind a link.
    const data = await realpath(join(dir, "data", "postgres")).catch(() => undefined);
    for (const path of data ? [data, dir] : [dir])
      await rm(path, { recursive: true, force: true, maxRetries: 5 });
  });
  // Others may pass through it, but not look.
  await chmod(dir, 0o711);
  return dir;
}

export async function setScene(stage: Stage, dir: string): Promise<Scene> {
  const privately = join(dir, "private");
  await mkdir(privately, { mode: 0o700 });
  const legacyPort = await freePort();
  const wire = await openNetwork(stage, `http://127.0.0.1:${legacyPort}`);
  const [legacy, gateway] = await Promise.all([
    startLegacy(stage, {
      port: legacyPort,
      dbPath: join(privately, "legacy.json"),
      logPath: join(privately, "legacy.log"),
    }),
    startGateway(stage, { dir, logPath: gatewayLog(dir), legacyUrl: wire.url }),
  ]);
  const air = await openNetwork(stage, gateway.url);
  const phoneOf = (user: string, url: string): Phone => {
    const token = (): string => userToken(gateway.secrets, user);
    const phone = openPhone({ url, token, path: join(privately, `${user}.sqlite`) });
    stage.onClose(() => phone.close());
    return phone;
  };
  return { kari: phoneOf("kari", air.url), ola: phoneOf("ola", gateway.url), air, gateway, wire, legacy };
}

async function openNetwork(stage: Stage, target: string): Promise<LossyNetwork> {
  const network = await startLossyNetwork(target);
  stage.onClose(() => network.close());
  return network;
}
