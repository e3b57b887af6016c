import { Client } from "undici";

import { answerParent } from "../child.ts";
import { createPhone, type Phone } from "../phones.ts";

/** The load generator: phones that upload, each one batch after the other, over so many connections. */
export interface LoadRequest {
  url: string;
  connections: number;
  mutationsPerBatch: number;
  batches: number;
  turnMsMax: number;
}

export interface LoadAnswer {
  /** How many were acknowledged. */
  mutations: number;
  elapsedMs: number;
  latenciesMs: number[];
}

const batchesPerPhone = 4;
let phones = 0;

answerParent(async (request: LoadRequest): Promise<LoadAnswer> => {
  const uploads = Array.from({ length: Math.ceil(request.batches / batchesPerPhone) }, () =>
    toUploads(createPhone(++phones, { ...request, batches: batchesPerPhone })),
  );
  const clients = Array.from({ length: request.connections }, () => new Client(request.url));
  const latenciesMs: number[] = [];
  const startedAt = performance.now();
  const uploadAll = async (client: Client): Promise<void> => {
    for (let phone = uploads.pop(); phone; phone = uploads.pop()) {
      for (const upload of phone) {
        const sentAt = performance.now();
        if (sentAt - startedAt > request.turnMsMax) return;
        await send(client, upload);
        latenciesMs.push(performance.now() - sentAt);
      }
    }
  };
  await Promise.all(clients.map(uploadAll));
  const elapsedMs = performance.now() - startedAt;
  await Promise.all(clients.map((client) => client.close()));
  return { mutations: latenciesMs.length * request.mutationsPerBatch, elapsedMs, latenciesMs };
});

interface Upload {
  headers: string[];
  body: Buffer;
}

/** Made before the clock starts. */
function toUploads({ token, batches }: Phone): Upload[] {
  const headers = ["authorization", `Bearer ${token}`, "content-type", "application/json"];
  return batches.map((batch) => ({ headers, body: Buffer.from(JSON.stringify(batch)) }));
}

async function send(client: Client, { headers, body }: Upload): Promise<void> {
  const answer = await client.request({ method: "POST", path: "/v1/batches", headers, body });
  const text = await answer.body.text();
  if (answer.statusCode >= 300) throw new Error(`answered ${answer.statusCode}: ${text}`);
}
