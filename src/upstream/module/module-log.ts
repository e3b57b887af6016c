import type { Logger } from "pino";

import type { Log, Settings } from "../../connector-module.ts";
import { withoutValues } from "../redact.ts";
import { toPlain } from "./failures.ts";

const factsMax = 20;

/** The part of the log that a module may write: plain facts only, no objects that could hold a record or an answer. */
export function moduleLog(log: Logger, upstream: string, settings: Settings): Log {
  const hidden = JSON.stringify(settings);
  const plain = (text: string): string => withoutValues(toPlain(text), hidden);
  const child = log.child({ upstream, from: "connector" });
  const level =
    (name: keyof Log) =>
    (message: string, facts: object = {}) =>
      child[name](plainFacts(facts, plain), plain(message));
  return { debug: level("debug"), info: level("info"), warn: level("warn"), error: level("error") };
}

function plainFacts(facts: object, toText: (text: string) => string): object {
  const plain = Object.entries(facts)
    .slice(0, factsMax)
    .flatMap(([name, value]: [string, unknown]) => {
      if (typeof value === "string") return [[name, toText(value)]];
      return typeof value === "number" || typeof value === "boolean" ? [[name, value]] : [];
    });
  // Below a name of its own, so that nothing of the line itself is overwritten.
  return plain.length === 0 ? {} : { facts: Object.fromEntries(plain) as object };
}
