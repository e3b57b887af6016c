import { hash } from "node:crypto";

import { sql, type Transaction } from "kysely";

import type { ClientKey } from "../clients/client.ts";
import { textArray, uuidArray } from "../platform/pg-arrays.ts";
import type { PayloadCodec } from "../platform/payload-codec.ts";
import type { Database, PushPlatform, PushServiceName } from "../platform/schema.ts";
import { clientAudience, scopeAudience } from "../change-feed/audience.ts";

/** How a client's app is woken. */
export interface Registration {
  service: PushServiceName;
  platform: PushPlatform;
  /** The service's registration token, or the app's own text. */
  address: string;
}

export interface RegisterOptions {
  codec: PayloadCodec;
  /** Newest first; they key the hash by which an address is found. */
  secrets: readonly string[];
  /** What the user's token sees. */
  scopes: readonly string[];
  /** When to look for what there is to read, unless it has been read by then. */
  delayMs: number;
}

/**
 * Registers a client, in the transaction that has locked it. An address that another client of the tenant had moves here;
 * the pushes that this one has had lately count on.
 *
 * A client that is new here is taken to have been told everything, as it is awake; if it never reads, it is reminded.
 */
export async function register(
  trx: Transaction<Database>,
  key: ClientKey,
  registration: Registration,
  { codec, secrets, scopes, delayMs }: RegisterOptions,
): Promise<void> {
  const { tenantId, clientId } = key;
  const { service, platform, address } = registration;
  const hashes = secrets.map((secret) => addressHash(secret, registration));
  const [newest = Buffer.of()] = hashes;
  // Two clients that come with one address at once would both find nobody who has it.
  await sql`select pg_advisory_xact_lock(hashtextextended(${`${tenantId}/${newest.toString("hex")}`}, 0))`.execute(
    trx,
  );
  const known = await lockRegistrations(trx, key, service, hashes);
  const others = known.filter((row) => row.client_id !== clientId);
  const before = known.find((row) => row.client_id === clientId);
  await removeAll(trx, tenantId, others);
  const sentAt = (before ?? others[0])?.sent_at ?? "{}";
  await sql`
    insert into push_registration as r (tenant_id, client_id, service, platform, key_id, address, address_hash, scopes,
      epoch, told_position, due_at, sent_at)
    select ${tenantId}, ${clientId}, ${service}, ${platform}, ${codec.keyId}, ${codec.encode(address)}, ${newest},
      ${scopes}::text[], i.epoch, coalesce(h.position, 0), now() + ${delayMs} * interval '1 ms', ${sentAt}::timestamptz[]
    from installation i left join feed_head h on h.tenant_id = ${tenantId}
    on conflict (tenant_id, client_id) do update set
      revision = gen_random_uuid(), service = excluded.service, platform = excluded.platform, key_id = excluded.key_id,
      address = excluded.address, address_hash = excluded.address_hash, scopes = excluded.scopes,
      ${ifMoved("claim_id", sql`null`)}, ${ifMoved("pushed_at", sql`null`)}, ${ifMoved("pushes", sql`0`)},
      ${ifMoved("failures", sql`0`)},
      due_at = case when ${isSameAddress} and r.scopes = excluded.scopes then r.due_at else excluded.due_at end`.execute(
    trx,
  );
  await replaceAudiences(trx, tenantId, [{ clientId, before: before?.scopes ?? [], scopes }]);
}

/** What an address that is another one than before begins anew. */
function ifMoved(column: string, value: ReturnType<typeof sql>) {
  const name = sql.ref(column);
  return sql`${name} = case when ${isSameAddress} then r.${name} else ${value} end`;
}

const isSameAddress = sql`(r.service, r.address_hash) = (excluded.service, excluded.address_hash)`;

/** Forgets how a client is woken, and the address with it. */
export async function unregister(trx: Transaction<Database>, key: ClientKey): Promise<void> {
  await removeAll(trx, key.tenantId, await lockRegistrations(trx, key, "fcm", []));
}

interface Known {
  client_id: string;
  scopes: string[];
  /** As text: the driver's times lose their microseconds. */
  sent_at: string;
}

/** The client's own registration, and those that have its address; in the order in which all who lock several do. */
async function lockRegistrations(
  trx: Transaction<Database>,
  { tenantId, clientId }: ClientKey,
  service: PushServiceName,
  hashes: readonly Buffer[],
): Promise<Known[]> {
  const { rows } = await sql<Known>`
    with concerned as materialized (
      select ${clientId}::uuid as client_id
      union
      select o.client_id from unnest(${hashes}::bytea[]) as h (hash)
      join push_registration o on o.tenant_id = ${tenantId} and o.service = ${service} and o.address_hash = h.hash
    )
    select r.client_id, r.scopes, r.sent_at::text as sent_at
    from concerned join push_registration r on r.tenant_id = ${tenantId} and r.client_id = concerned.client_id
    order by r.client_id for update of r`.execute(trx);
  return rows;
}

async function removeAll(
  trx: Transaction<Database>,
  tenantId: string,
  known: readonly Pick<Known, "client_id" | "scopes">[],
): Promise<void> {
  if (known.length === 0) return;
  const clientIds = known.map(({ client_id }) => client_id);
  await removeAudiences(trx, tenantId, known);
  await sql`
    delete from push_registration r using unnest(${clientIds}::uuid[]) as gone (client_id)
    where r.tenant_id = ${tenantId} and r.client_id = gone.client_id`.execute(trx);
}

/** Takes clients out of the audiences that they had by these scopes, and out of their own. */
export async function removeAudiences(
  trx: Transaction<Database>,
  tenantId: string,
  clients: readonly { client_id: string; scopes: readonly string[] }[],
): Promise<void> {
  const gone = clients.flatMap(({ client_id, scopes }) =>
    audiencesOf(client_id, scopes).map((audience) => ({ clientId: client_id, audience })),
  );
  await leaveAudiences(trx, tenantId, gone);
}

/** A client whose registration is locked, and whose scopes are other ones from now on. */
export interface ScopeChange {
  clientId: string;
  before: readonly string[];
  scopes: readonly string[];
}

/** Puts clients into the audiences of their scopes and their own, and out of those that they had. */
export async function replaceAudiences(
  trx: Transaction<Database>,
  tenantId: string,
  changes: readonly ScopeChange[],
): Promise<void> {
  if (changes.length === 0) return;
  const left = changes.flatMap(({ clientId, before, scopes }) => {
    const kept = new Set(scopes);
    return before
      .filter((scope) => !kept.has(scope))
      .map((scope) => ({ clientId, audience: scopeAudience(scope) }));
  });
  await leaveAudiences(trx, tenantId, left);
  const joined = changes.flatMap(({ clientId, scopes }) =>
    audiencesOf(clientId, scopes).map((audience) => ({ clientId, audience })),
  );
  await sql`
    insert into push_audience (tenant_id, audience, client_id)
    select ${tenantId}, a.audience, a.client_id from ${members(joined)} as a (audience, client_id)
    on conflict do nothing`.execute(trx);
}

interface Member {
  clientId: string;
  audience: string;
}

async function leaveAudiences(
  trx: Transaction<Database>,
  tenantId: string,
  gone: readonly Member[],
): Promise<void> {
  if (gone.length === 0) return;
  await sql`
    delete from push_audience a using ${members(gone)} as gone (audience, client_id)
    where a.tenant_id = ${tenantId} and a.audience = gone.audience and a.client_id = gone.client_id`.execute(
    trx,
  );
}

function members(of: readonly Member[]) {
  const [audiences, clientIds] = [of.map(({ audience }) => audience), of.map(({ clientId }) => clientId)];
  return sql`unnest(${textArray(audiences)}::text[], ${uuidArray(clientIds)}::uuid[])`;
}

/** The audiences of the feed in which something concerns a client. */
export function audiencesOf(clientId: string, scopes: readonly string[]): string[] {
  return [...scopes.map(scopeAudience), clientAudience(clientId)];
}

/** Whoever has no secret can't tell by a hash whose address it is, or whether two tenants have the same. */
function addressHash(secret: string, { service, address }: Registration): Buffer {
  return hash("sha256", `${secret}\0push\0${service}\0${address}`, "buffer");
}
