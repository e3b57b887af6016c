import { once } from "node:events";
import { request, type IncomingMessage } from "node:http";

import { answerParent } from "../child.ts";
import { createPhone } from "../phones.ts";

/** Readers of event streams. `open` connects them; `received` tells when each had which `n`, and closes them. */
export type ReadersRequest = { kind: "open"; url: string; readers: number } | { kind: "received" };
/** By `n`, the times on the machine's clock. */
export type Received = Record<number, number[]>;

let streams: IncomingMessage[] = [];
let received: Received = {};

answerParent(async (asked: ReadersRequest): Promise<Received | number> => {
  if (asked.kind === "open") {
    received = {};
    streams = await Promise.all(
      Array.from({ length: asked.readers }, async (_, n) => await open(asked.url, n)),
    );
    return streams.length;
  }
  for (const stream of streams) stream.destroy();
  return received;
});

async function open(url: string, number: number): Promise<IncomingMessage> {
  const { clientId, token } = createPhone(number, { batches: 0, mutationsPerBatch: 0 });
  const headers = { authorization: `Bearer ${token}` };
  const sent = request(`${url}/v1/changes/stream?clientId=${clientId}`, { headers, agent: false }).end();
  const [answer] = (await once(sent, "response")) as [IncomingMessage];
  if (answer.statusCode !== 200) throw new Error(`a stream was answered ${answer.statusCode}`);
  let rest = "";
  answer.on("error", () => undefined);
  answer.setEncoding("utf8").on("data", (chunk: string) => {
    const at = performance.timeOrigin + performance.now();
    const events = (rest + chunk).split("\n\n");
    rest = events.pop() ?? "";
    for (const event of events) {
      const n = /"n":(\d+)/.exec(event)?.[1];
      if (n !== undefined) (received[Number(n)] ??= []).push(at);
    }
  });
  return answer;
}
