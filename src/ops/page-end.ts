import { TidegateError } from "../platform/errors.ts";

/** Where a page ended: the time in Postgres' own text, so that nothing of it is lost. */
export interface PageEnd {
  since: string;
  id: string;
}

/** Before the first one. */
export const firstPage: PageEnd = { since: "-infinity", id: "00000000-0000-0000-0000-000000000000" };

/** Of one row more than a page has, the page, and where it ended if there is another. */
export function toPage<Row extends { since: string; mutation_id: string }>(
  rows: Row[],
  limit: number,
): { page: Row[]; next: PageEnd | undefined } {
  const page = rows.slice(0, limit);
  const last = page.at(-1);
  return {
    page,
    next: rows.length > limit && last ? { since: last.since, id: last.mutation_id } : undefined,
  };
}

export function fromPageEnd({ since, id }: PageEnd): string {
  return Buffer.from(`${id} ${since}`).toString("base64url");
}

export function toPageEnd(text: string): PageEnd {
  const [, id, since] = pageEnd.exec(Buffer.from(text, "base64url").toString()) ?? [];
  if (id === undefined || since === undefined) {
    throw new TidegateError("invalid-request", "`after` is not the `next` of a page.");
  }
  return { id, since };
}

const pageEnd = /^([0-9a-f-]{36}) (\d{4,6}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?[+-]\d\d(?::?\d\d)*)$/;
