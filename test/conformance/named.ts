import { slicesAt } from "../../src/platform/json-text.ts";
import type { Connector, UpstreamRecord } from "../../src/upstream/connector.ts";
import type { ConformanceServer, Kind, Subject } from "./kind.ts";

/** The subject as if its records had `minutes` and `note`, whatever the kind calls them. */
export function named(subject: Subject, { names, also = {} }: Pick<Kind, "names" | "also">): Subject {
  const there = new Map(Object.entries(names ?? {}));
  const back = new Map([...there].map(([ours, theirs]) => [theirs, ours]));
  const words: Words = {
    toTheirs: (text) => withNames(text, there),
    toWhole: (text) => withNames(text, there, also),
    toOurs: (text) => withNames(text, back),
  };
  return {
    connector: namedConnector(subject.connector, words),
    server: namedServer(subject.server, words),
    [Symbol.asyncDispose]: () => subject[Symbol.asyncDispose](),
  };
}

interface Words {
  toTheirs: (text: string) => string;
  /** A whole record, with what every record of the kind has to have. */
  toWhole: (text: string) => string;
  toOurs: (text: string) => string;
}

function namedConnector(connector: Connector, { toTheirs, toWhole, toOurs }: Words): Connector {
  const record = (found: UpstreamRecord): UpstreamRecord => ({
    ...found,
    body: found.body === undefined ? undefined : toOurs(found.body),
  });
  const orNone = (found: UpstreamRecord | undefined): UpstreamRecord | undefined => found && record(found);
  return {
    create: async (call) => orNone(await connector.create({ ...call, body: toWhole(call.body) })),
    update: async (call) =>
      orNone(await connector.update({ ...call, body: toWhole(call.body), patch: toTheirs(call.patch) })),
    delete: (call) => connector.delete(call),
    read: async (call) => orNone(await connector.read(call)),
    lookup: async (call) => (await connector.lookup(call)).map(record),
    async list(call) {
      const { records, next } = await connector.list(call);
      return { records: records.map(record), next };
    },
    close: () => connector.close(),
  };
}

function namedServer(server: ConformanceServer, { toTheirs, toWhole, toOurs }: Words): ConformanceServer {
  return {
    records: () => server.records().map(toOurs),
    seed: (texts) => server.seed(texts.map(toWhole)),
    change: (id, patch) => server.change(id, patch === null ? null : toTheirs(patch)),
    next: (fault) => server.next(fault),
    requests: () => server.requests(),
    hanging: () => server.hanging(),
    stop: () => server.stop(),
  };
}

function withNames(
  text: string,
  names: ReadonlyMap<string, string>,
  also: Readonly<Record<string, string>> = {},
): string {
  const members = slicesAt(text).map(({ key, start, end }) => [key, text.slice(start, end)] as const);
  const missing = Object.entries(also).filter(([name]) => !members.some(([key]) => key === name));
  const all = [...members, ...missing].map(
    ([key, value]) => `${JSON.stringify(names.get(key) ?? key)}:${value}`,
  );
  return `{${all.join(",")}}`;
}
