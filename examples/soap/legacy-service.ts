import { readFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";

import { listen } from "soap";

/** An activity as the service holds it: texts, and null where a field was cleared. */
export type Activity = Record<string, string | null>;

export interface ServiceOptions {
  port?: number;
  user: string;
  password: string;
  /** Records in one page; without it everything comes at once. */
  pageSize?: number | undefined;
  /** It takes no notice of the page, or the reference, that it is asked for. */
  ignoresPages?: boolean | undefined;
  ignoresFilters?: boolean | undefined;
}

export interface LegacyService {
  url: string;
  /** By ID, oldest first. */
  activities: Map<string, Activity>;
  /** As somebody does who works there. */
  seed: (activity: Activity) => string;
  change: (id: string, fields: Activity | null) => void;
  close: () => Promise<void>;
}

const ownFields = ["id", "version", "changedAt"];

/**
 * A legacy system that speaks SOAP: records with IDs and versions of its own, behind the server of the npm package `soap`.
 * Where it is not called by `activities.wsdl`, it answers with a fault.
 */
export async function startLegacyService(options: ServiceOptions): Promise<LegacyService> {
  const { port = 0, user, password, pageSize = Infinity, ignoresPages, ignoresFilters } = options;
  const activities = new Map<string, Activity>();
  let count = 0;

  function seed(fields: Activity): string {
    const id = `A-${++count}`;
    activities.set(id, { id, version: "1", changedAt: now(), ...withoutOwn(fields) });
    return id;
  }

  function change(id: string, fields: Activity | null): void {
    const held = activities.get(id);
    if (fields === null || !held) return void activities.delete(id);
    const version = String(Number(held["version"]) + 1);
    activities.set(id, { ...held, ...withoutOwn(fields), version, changedAt: now() });
  }

  function found({ id, version }: { id: string; version?: string }): Activity {
    const held = activities.get(id);
    if (!held) throw fault("NOT_FOUND", "There is no such activity.");
    if (version !== undefined && version !== held["version"]) throw fault("STALE", "It has changed since.");
    return held;
  }

  function page(all: Activity[], asked: string | undefined): object {
    if (ignoresPages) return { activity: all };
    const from = Number(asked ?? 0);
    const to = from + pageSize;
    return { activity: all.slice(from, to), ...(to < all.length && { nextPage: String(to) }) };
  }

  const operations = {
    CreateActivity: ({ activity }: { activity: Activity }) => ({
      activity: activities.get(seed(checked(activity))),
    }),
    UpdateActivity(asked: { id: string; version?: string; activity: Activity | null }) {
      found(asked);
      change(asked.id, checked(asked.activity ?? {}));
      return { activity: activities.get(asked.id) };
    },
    DeleteActivity(asked: { id: string; version?: string }) {
      found(asked);
      change(asked.id, null);
      return {};
    },
    GetActivity: ({ id }: { id: string }) => ({ activity: activities.get(id) }),
    FindActivities: ({ externalRef, page: asked }: { externalRef: string; page?: string }) =>
      page(
        [...activities.values()].filter((held) => ignoresFilters || held["externalRef"] === externalRef),
        asked,
      ),
    ListActivities: (asked: { since?: string; page?: string } | null) =>
      page(
        [...activities.values()].filter(({ changedAt }) => (changedAt ?? "") >= (asked?.since ?? "")),
        asked?.page,
      ),
  };

  const server = createServer((_request, response) => void response.writeHead(404).end());
  await new Promise<void>((resolve) => {
    server.listen(port, "127.0.0.1", resolve);
  });
  await serve(server, operations, ({ Username: name, Password: word }) => name === user && word === password);
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/activities`,
    activities,
    seed,
    change,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

interface UsernameToken {
  Username?: string;
  Password?: string;
}

async function serve(
  server: Server,
  operations: object,
  isKnown: (token: UsernameToken) => boolean,
): Promise<void> {
  const soap = await new Promise<ReturnType<typeof listen>>((resolve, reject) => {
    const opened = listen(server, {
      path: "/activities",
      services: { Activities: { ActivitiesPort: operations as never } },
      xml: readFileSync(new URL("./activities.wsdl", import.meta.url), "utf8"),
      handleNilAsNull: true,
      suppressStack: true,
      // Numbers stay texts: it is an old system, with columns as wide as they were typed.
      ...({ customDeserializer: { decimal: (text: string) => text } } as object),
      callback: (error: unknown) => (error ? reject(error) : resolve(opened)),
    });
  });
  const { options } = (soap as unknown as { wsdl: { options: { preserveWhitespace?: boolean } } }).wsdl;
  options.preserveWhitespace = true;
  soap.authenticate = (security: { UsernameToken?: UsernameToken } | undefined) =>
    isKnown(security?.UsernameToken ?? {});
}

/** What its clerks' rules say. */
function checked(activity: Activity): Activity {
  if (Number(activity["minutes"]) < 0) throw fault("INVALID", "Minutes can't be negative.");
  return activity;
}

function withoutOwn(activity: Activity): Activity {
  return Object.fromEntries(Object.entries(activity).filter(([name]) => !ownFields.includes(name)));
}

function fault(code: string, faultstring: string): object {
  const faultcode = "soap:Client";
  return { Fault: { faultcode, faultstring, detail: { code }, statusCode: 500 } };
}

function now(): string {
  return new Date().toISOString();
}
