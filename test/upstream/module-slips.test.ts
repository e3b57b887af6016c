import { resolve } from "node:path";

import { expect, test } from "vitest";

import { startInvoiceService } from "../../examples/module/invoice-service.ts";
import { startGateway, tempId, type TestGateway } from "../fixtures/gateway.ts";
import { newPhone, type Result } from "../replay/phone.ts";

const module = resolve("test/fixtures/connectors/slips.ts");

function opened(baseUrl: string, slip: string, invoice: object = {}): Promise<TestGateway> {
  const system = {
    role: "primary",
    module,
    settings: { company: "17", slip },
    baseUrl,
    timeoutMs: 1000,
    retry: { baseMs: 10, capMs: 50 },
    circuit: { cooldownMs: 50 },
    entities: { invoice },
  };
  return startGateway({ upstreams: { system } });
}

async function uploaded(gateway: TestGateway): Promise<Result[]> {
  const phone = newPhone(gateway);
  phone.add({ op: "create", entity: "invoice", recordId: tempId(), data: { amount: 45 } });
  phone.add({ op: "create", entity: "invoice", recordId: tempId(), data: { amount: 46 } });
  await phone.send();
  return await phone.settled();
}

test.for(["throws", "gives", "hangs"] as const)(
  "a connector slips (%s) after the record was made: it is found, and made once",
  async (slip) => {
    const service = await startInvoiceService();
    await using gateway = await opened(service.url, slip);
    expect((await uploaded(gateway)).map(({ status }) => status)).toEqual(["applied", "applied"]);
    const texts = [...service.invoices.values()].map(({ text }) => JSON.parse(text) as object);
    expect(texts).toMatchObject([{ amount: 45 }, { amount: 46 }]);
    await service.close();
  },
);

test("where the operator has taken the promise back, a person is asked, and the rest goes on", async () => {
  const service = await startInvoiceService();
  await using gateway = await opened(service.url, "gives", { create: { class: "opaque" } });
  expect((await uploaded(gateway)).map(({ status }) => status)).toEqual(["parked", "applied"]);
  expect(service.invoices.size).toBe(2);
  await service.close();
});
