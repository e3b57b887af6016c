import { hash } from "node:crypto";

import pg, { type QueryResult } from "pg";

/**
 * A connection that spares round trips, system calls and planning:
 *
 * - Statements with values are prepared, once for each connection, and their plan is kept.
 * - The beginning of a transaction is answered at once and sent in front of the first statement. When it fails, so does
 *   that statement.
 * - What is sent in one turn of the event loop leaves in one write.
 *
 * For pools that run statements in order (`pipeline`), and for callers that use `query(text, values)` and promises.
 */
export class FrugalClient extends pg.Client {
  #begin: string | undefined;

  // What the pool's users call is one of many overloads.
  override query(text: unknown, ...rest: unknown[]): never {
    const send = super.query.bind(this) as (...args: unknown[]) => Promise<QueryResult>;
    if (typeof text !== "string" || typeof rest.at(-1) === "function") return send(text, ...rest) as never;
    if (beginning.test(text)) {
      this.#begin = text;
      return Promise.resolve(noRows) as never;
    }
    gatherWrites(this);
    if (this.#begin !== undefined) {
      // Whoever sent the statement behind it hears of its failure.
      send(this.#begin).catch(() => undefined);
      this.#begin = undefined;
    }
    const [values] = rest;
    const name = Array.isArray(values) && values.length > 0 ? nameOf(text) : undefined;
    return (name === undefined ? send(text, values) : send({ name, text, values })) as never;
  }
}

const beginning = /^(begin|start transaction)\b/;
const noRows = { command: "BEGIN", rowCount: null, rows: [] };

function gatherWrites({ connection: { stream } }: pg.Client): void {
  if (stream.writableCorked > 0) return;
  stream.cork();
  process.nextTick(() => stream.uncork());
}

const names = new Map<string, string>();
/** More texts than the code has mean that some are put together at run time; keeping those would fill the server's memory. */
const namesMax = 300;

function nameOf(text: string): string | undefined {
  const known = names.get(text);
  if (known !== undefined || names.size === namesMax) return known;
  const name = hash("sha256", text).slice(0, 32);
  names.set(text, name);
  return name;
}
