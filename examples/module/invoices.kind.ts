import { startFaultyProxy } from "tidegate/conformance/faulty-proxy";
import type { Kind } from "tidegate/conformance/kind";
import { openModule } from "tidegate/conformance/open-module";

import { startInvoiceService } from "./invoice-service.ts";

/** What the suite has to know of the connector and its system. Some settings are the tests' own. */
export const kindOf = (module: string, settings: (url: string) => object = () => ({})): Kind => ({
  entity: "invoice",
  names: { minutes: "amount", note: "memo" },
  also: { currency: '"NOK"' },
  can: {
    create: ["lookup"],
    update: ["conditional"],
    delete: ["conditional"],
    ids: [],
    reference: "/yourRef",
    pages: true,
    since: false,
    failures: ["retry", "conflict", "reject", "park", "systemic"],
    exact: { minutes: ["9007199254740993", "0.10"], note: ['""', String.raw`"\u0000 \ud800"`] },
    keyOrder: true,
    actor: true,
    requestId: true,
  },
  async start({ pageSize, ignoresFilters, timeoutMs = 10_000 }) {
    const service = await startInvoiceService({ pageSize, ignoresFilters });
    const proxy = await startFaultyProxy({
      target: service.url,
      answers: {
        retry: { status: 429 },
        conflict: { status: 412 },
        reject: { status: 422, body: '{"message":"no: kari@example.org, 90 12 34 56"}' },
        park: { status: 415 },
        systemic: { status: 401 },
      },
    });
    const connector = openModule({
      module,
      entities: ["invoice"],
      settings: { company: "17", ...settings(proxy.url) },
      baseUrl: proxy.url,
      timeoutMs,
      upstream: { actorHeader: "X-Acting-User" },
    });
    return {
      connector,
      server: {
        records: () => [...service.invoices.values()].map(({ text }) => text),
        seed: (texts) => texts.map((text) => service.add(text)),
        change: (id, patch) => service.change(id, patch),
        next: proxy.next,
        requests: () =>
          proxy.requests().map(({ headers }) => ({
            actor: headers["x-acting-user"] as string | undefined,
            requestId: headers["x-request-id"] as string | undefined,
          })),
        hanging: proxy.hanging,
        stop: proxy.stop,
      },
      async [Symbol.asyncDispose]() {
        await connector.close();
        await proxy.stop();
        await service.close();
      },
    };
  },
});
