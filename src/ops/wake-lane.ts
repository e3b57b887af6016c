import type { FastifyBaseLogger } from "fastify";

import type { Wake } from "../replay/wake.ts";
import type { Given } from "./give-command.ts";

type WakeFor = (tenantId: string, given: Given, log: FastifyBaseLogger) => Promise<{ commandId: string }>;

/** Wakes the lane of a command. It is due; that nobody hears of it at once costs some seconds. */
export function wakerOf({ wake, wakeShadow }: { wake: Wake; wakeShadow: Wake | undefined }): WakeFor {
  return async (tenantId, { commandId, laneId, isShadows }, log) => {
    const waked = isShadows ? wakeShadow : wake;
    await waked?.now(tenantId, laneId).catch((error: unknown) => {
      log.warn({ tenantId, laneId, err: error }, "a lane could not be woken; the sweeper will");
    });
    return { commandId };
  };
}
