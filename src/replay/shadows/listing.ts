import type { Kysely } from "kysely";

import type { Database } from "../../platform/schema.ts";
import type { UpstreamPage } from "../../upstream/connector.ts";
import type { Upstream } from "../../upstream/upstream.ts";
import { keepPage, readListings, takeUp, type Listing, type ListedPage } from "./listed.ts";
import { matchValue, secretId, valueHash } from "./match-value.ts";

export interface HeldBy {
  tenantId: string;
  upstream: Upstream;
  /** The secrets that values are kept under, newest first. */
  secrets: readonly string[];
}

/**
 * Lists what a shadow holds of each entity with `match`, page by page; goes on where it stood. Nothing is locked while the
 * upstream is asked.
 *
 * @returns false when another process lists the same: it goes on.
 * @throws {UpstreamError}, or what the database says: it may be called again.
 */
export async function listHeld(db: Kysely<Database>, held: HeldBy, signal: AbortSignal): Promise<boolean> {
  for (const [entity, { match }] of Object.entries(held.upstream.config.entities)) {
    if (match !== undefined && !(await listEntity(db, held, { entity, pointer: match }, signal)))
      return false;
  }
  return true;
}

/** The entities with `match` whose list says nothing about it: there was another one, or none, when the shadow was added. */
export async function readUnlisted(
  db: Kysely<Database>,
  { tenantId, upstream, secrets }: HeldBy,
): Promise<string[]> {
  const listings = await readListings(db, tenantId, upstream.id);
  const known = secrets.map(secretId);
  return Object.entries(upstream.config.entities).flatMap(([entity, { match }]) => {
    const listing = listings.get(entity);
    const isOf = listing?.pointer === match && listing !== undefined && known.includes(listing.secretId);
    return match === undefined || isOf ? [] : [entity];
  });
}

async function listEntity(
  db: Kysely<Database>,
  { tenantId, upstream, secrets }: HeldBy,
  { entity, pointer }: { entity: string; pointer: string },
  signal: AbortSignal,
): Promise<boolean> {
  const of = { tenantId, upstreamId: upstream.id, entity };
  let listing = await takeUp(db, of, { pointer, secretIds: secrets.map(secretId) });
  while (!listing.isFinished) {
    const secret = secrets.find((known) => secretId(known) === listing.secretId);
    if (secret === undefined) return false;
    const page = await upstream.list({ entity, after: listing.next, signal });
    const next = await keepPage(
      db,
      of,
      listing,
      toListed(page, listing, (value) => valueHash(secret, of, value)),
    );
    if (!next) return false;
    listing = next;
  }
  return true;
}

function toListed(
  { records, next }: UpstreamPage,
  { pointer }: Listing,
  hash: (value: string) => string,
): ListedPage {
  const hashes = new Map<string, string | null>();
  for (const { id, body = "{}" } of records) {
    // Nobody's ID has a NUL or half a character, and Postgres takes neither.
    if (!id.isWellFormed() || id.includes("\0")) continue;
    const value = matchValue(body, pointer);
    hashes.set(id, value === undefined ? null : hash(value));
  }
  return { hashes, next };
}
