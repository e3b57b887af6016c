import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";

export interface Invoice {
  revision: number;
  /** JSON text: an object of texts and numbers. */
  text: string;
}

export interface ServiceOptions {
  pageSize?: number | undefined;
  ignoresFilters?: boolean | undefined;
}

export interface InvoiceService {
  /** Where the company's invoices are found below `/companies/17/invoices`. */
  url: string;
  invoices: Map<string, Invoice>;
  add: (text: string) => string;
  change: (number: string, patch: string | null) => void;
  close: () => Promise<void>;
}

interface Answer {
  status: number;
  headers?: Record<string, string>;
  body?: string;
}

/** The accounting system that `connectors/invoices.ts` is for: what it would take a test installation for. */
export async function startInvoiceService(options: ServiceOptions = {}): Promise<InvoiceService> {
  const { pageSize = Infinity, ignoresFilters } = options;
  const invoices = new Map<string, Invoice>();
  let count = 1000;

  function add(text: string): string {
    const number = String(++count);
    invoices.set(number, { revision: 1, text });
    return number;
  }

  function change(number: string, patch: string | null): void {
    const invoice = invoices.get(number);
    if (patch === null || !invoice) return void invoices.delete(number);
    invoices.set(number, { revision: invoice.revision + 1, text: patched(invoice.text, patch) });
  }

  function one(number: string): Answer {
    const { revision, text } = invoices.get(number)!;
    return { status: 200, headers: { "x-number": number, "x-revision": String(revision) }, body: text };
  }

  function page(query: URLSearchParams): Answer {
    const reference = query.get("yourRef");
    const found = [...invoices].filter(
      ([, { text }]) => ignoresFilters || reference === null || text.includes(JSON.stringify(reference)),
    );
    const from = Number(query.get("from") ?? 0);
    const to = from + pageSize;
    query.set("from", String(to));
    const next = to < found.length ? `/companies/17/invoices?${query.toString()}` : undefined;
    const shown = found
      .slice(from, to)
      .map(([number, { revision, text }]) => ({ number, revision: String(revision), text }));
    return { status: 200, body: JSON.stringify({ invoices: shown, next }) };
  }

  function answer({ method, headers, url = "" }: IncomingMessage, body: string): Answer {
    const { pathname, searchParams } = new URL(url, "http://service");
    const number = decodeURIComponent(pathname.split("/")[4] ?? "");
    if (number === "" && method === "POST") return { ...one(add(body)), status: 201 };
    if (number === "") return page(searchParams);
    const invoice = invoices.get(number);
    if (!invoice) return { status: 404 };
    if (method === "GET") return one(number);
    const expected = headers["if-match"];
    if (expected !== "*" && expected !== String(invoice.revision)) return { status: 412 };
    change(number, method === "DELETE" ? null : body);
    return method === "DELETE" ? { status: 204 } : one(number);
  }

  const server = createServer((incoming, response) => {
    void textOf(incoming).then((text) => {
      const { status, headers, body } = answer(incoming, text);
      return response.writeHead(status, headers).end(body);
    });
  });
  await new Promise<void>((resolve) => {
    server.listen(0, "127.0.0.1", resolve);
  });
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    invoices,
    add,
    change,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

/** Members of the patch in the place of those of their name; the digits of numbers stay. */
function patched(text: string, patch: string): string {
  return JSON.stringify({ ...membersOf(text), ...membersOf(patch) });
}

const { rawJSON } = JSON as unknown as { rawJSON: (text: string) => unknown };

const keepDigits = (_key: string, value: unknown, { source = "" }: { source?: string }): unknown =>
  typeof value === "number" ? rawJSON(source) : value;

function membersOf(text: string): object {
  return JSON.parse(text, keepDigits as Parameters<typeof JSON.parse>[1]) as object;
}

async function textOf(incoming: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of incoming) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString();
}
