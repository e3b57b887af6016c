import type { Connector, ConnectorModule, Context } from "tidegate/connector";

import sound from "../../../examples/module/connectors/invoices.ts";

type Break = (connector: Connector, context: Context, url: string) => Partial<Connector>;

/** What authors do, by a name for each. */
export const breaks: Record<string, Break> = {
  nothing: () => ({}),
  "sends again by itself": (own) => ({
    create: (call) => own.create(call).catch(async () => await own.create(call)),
  }),
  "adopts what the search gives": (own) => ({
    lookup: async (call) => (await own.list!(call)).records,
  }),
  "takes a conflict for done": (own) => ({
    update: async (call) => await own.update(call).catch(() => undefined),
  }),
  "forgets the version": (own) => ({ update: ({ version: _version, ...call }) => own.update(call) }),
  "holds the line after it was told to stop": (_connector, _context, url) => ({
    async create({ body }) {
      const answer = await fetch(`${url}companies/17/invoices`, { method: "POST", body });
      return { id: answer.headers.get("x-number") ?? "", body: await answer.text() };
    },
  }),
  "leaves out a record between pages": (own) => ({
    async list(call) {
      const { records, next } = await own.list!(call);
      return { records, next: next?.replace(/\d+$/, (from) => String(Number(from) + 1)) };
    },
  }),
  "reads one page": (own) => ({
    list: async (call) => ({ records: (await own.list!(call)).records }),
  }),
  "calls every failure unsent": (own, { failure }) => ({
    create: (call) => own.create(call).catch(() => Promise.reject(failure.notSent("no answer"))),
  }),
  "calls every failure a refusal": (own, { failure }) => ({
    create: (call) => own.create(call).catch(() => Promise.reject(failure.refused("reject", "no"))),
  }),
  "believes any success": (own) => ({
    create: (call) =>
      own.create(call).catch((error: { status?: number }) => {
        if (error.status === 200) return undefined;
        throw error;
      }),
  }),
  "rounds numbers": (own) => ({
    create: (call) => own.create({ ...call, body: JSON.stringify(JSON.parse(call.body)) }),
  }),
};

export default {
  ...sound,
  open(settings, context) {
    const connector: Connector = sound.open(settings, context);
    return {
      ...connector,
      ...breaks[settings["breaks"] as string]?.(connector, context, settings["url"] as string),
    };
  },
} satisfies ConnectorModule;
