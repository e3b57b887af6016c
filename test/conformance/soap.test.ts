import { fileURLToPath } from "node:url";

import { startLegacyService } from "../../examples/soap/legacy-service.ts";
import { membersOf, toObjectText, Digits } from "../../examples/soap/connectors/json.ts";
import { describeConnector } from "./connector.ts";
import { startFaultyProxy, type ProxyAnswer } from "./faulty-proxy.ts";
import type { Kind } from "./kind.ts";
import { openModule } from "./open-module.ts";

const module = fileURLToPath(new URL("../../examples/soap/connectors/activities.ts", import.meta.url));
const user = { user: "gateway", password: "s<e>cret & more" };

const soap: Kind = {
  entity: "activity",
  can: {
    create: ["lookup"],
    update: ["conditional"],
    delete: ["conditional"],
    ids: [],
    reference: "/externalRef",
    pages: true,
    since: true,
    failures: ["retry", "conflict", "reject", "park", "systemic"],
    exact: {
      minutes: ["9007199254740993", "0.10", "-0", "12345678901234567890.123456789"],
      note: [
        '"æ 𝄞 \\" \\\\"',
        '""',
        '"  "',
        String.raw`" a\r\n\tb "`,
        '"<b>&amp;</b> ]]>"',
        '"null"',
        "null",
      ],
    },
    keyOrder: false,
    actor: true,
    requestId: true,
  },
  async start({ timeoutMs = 10_000, pageSize, ignoresFilters, ignoresPages }) {
    const service = await startLegacyService({ ...user, pageSize, ignoresFilters, ignoresPages });
    const proxy = await startFaultyProxy({ target: service.url, answers });
    const connector = openModule({
      module,
      entities: ["activity"],
      settings: user,
      baseUrl: proxy.url,
      timeoutMs,
      upstream: { actorHeader: "X-Acting-User" },
    });
    return {
      connector,
      server: {
        records: () => [...service.activities.values()].map(toText),
        seed: (texts) => texts.map((text) => service.seed(toFields(text))),
        change: (id, patch) => service.change(id, patch === null ? null : toFields(patch)),
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
};

/** The service's columns are texts; what is a number is known by its name. */
function toFields(text: string): Record<string, string | null> {
  const members = [...membersOf(text)].map(([name, value]) => [
    name,
    value instanceof Digits ? value.text : (value as string | null),
  ]);
  return Object.fromEntries(members) as Record<string, string | null>;
}

function toText(fields: Record<string, string | null>): string {
  const members = Object.entries(fields).map(
    ([name, value]) => [name, name === "minutes" && value !== null ? value : JSON.stringify(value)] as const,
  );
  return toObjectText(members);
}

const answers = {
  retry: fault("soap:Client", "BUSY"),
  conflict: fault("soap:Client", "STALE"),
  reject: fault("soap:Client", "INVALID"),
  park: fault("soap:Client", "NEW_IN_THIS_RELEASE"),
  systemic: fault("soap:Client", "DENIED"),
};

function fault(faultcode: string, code: string): ProxyAnswer {
  const body =
    '<?xml version="1.0"?><soap:Envelope xmlns:soap="http://schemas.xmlsoap.org/soap/envelope/"><soap:Body><soap:Fault>' +
    `<faultcode>${faultcode}</faultcode><faultstring>no: kari@example.org, 90 12 34 56</faultstring>` +
    `<detail><code>${code}</code></detail></soap:Fault></soap:Body></soap:Envelope>`;
  return { status: 500, headers: { "content-type": "text/xml; charset=utf-8" }, body };
}

describeConnector("SOAP, against a legacy service", soap);
