import type { Queued } from "../phone.ts";

/** Something that the gateway promises never happens. */
export interface Violation {
  kind:
    | "loss"
    | "stuck"
    | "duplicate"
    | "reorder"
    | "opaque"
    | "ids"
    | "records"
    | "feed"
    | "deadlock"
    | "crash"
    | "told";
  what: string;
  /** The mutations whose story explains it. */
  about: Queued[];
}
