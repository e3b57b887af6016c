import { placeOf, pullChanges, toPulled, type Pulled } from "../../../src/change-feed/pull.ts";
import { takeSnapshot } from "../../../src/change-feed/snapshot.ts";
import type { Change } from "../../../src/change-feed/read.ts";
import { TidegateError } from "../../../src/platform/errors.ts";
import type { Random } from "../../faults/random.ts";
import type { Tenant } from "./writers.ts";

/** What a reader was told that has to be looked at when the whole story is known. */
export interface Told {
  /** The final outcomes, in order, each with what the reader knew of its record by then. */
  outcomes: {
    mutationId: string;
    status: string;
    recordId: string | undefined;
    version: number;
    /** The version that the reader holds; 0 when it holds none. */
    held: number;
    /** Where the head was at the latest when the reader was last told of the record; -1 when it never was. */
    toldAt: number;
  }[];
  /** What came after this position was told. */
  from: number;
}

/** A phone, or somebody without a client: follows its cursor, and begins anew where it has to. */
export interface Reader {
  name: string;
  scopes: string[];
  held: Map<string, number>;
  /** Since it last began. */
  told: Told;
  /** How often it was answered 410. */
  expired: number;
  /** One page of whatever is due; whether there is more. */
  readOn: () => Promise<boolean>;
  beginFromSnapshot: () => void;
  beginWithoutCursor: () => void;
}

export interface ReaderOptions {
  name: string;
  scopes: string[];
  client: { clientId: string; userId: string } | undefined;
  pageMax: number;
}

/** @throws {Error} when it is told something older than before. */
export function newReader(tenant: Tenant, options: ReaderOptions, random: Random): Reader {
  const { world, tenantId } = tenant;
  const { name, scopes, client, pageMax } = options;
  const userId = client?.userId ?? "nobody";
  const identity = { tenantId, userId, scopes: scopes.toSorted(), roles: [], expiresAtMs: Infinity };
  const clientId = client?.clientId;
  const shown = new Map<string, number>();
  let toldAt = new Map<string, number>();
  let cursor: string | undefined;
  let taking: { page: string | undefined; records: Map<string, number> } | undefined;
  const reader: Reader = {
    name,
    scopes,
    held: new Map(),
    told: { outcomes: [], from: 0 },
    expired: 0,
    readOn,
    beginFromSnapshot,
    beginWithoutCursor,
  };
  beginWithoutCursor();
  return reader;

  function beginFromSnapshot(): void {
    taking = { page: undefined, records: new Map() };
    toldAt = new Map();
  }

  function beginWithoutCursor(): void {
    taking = undefined;
    cursor = undefined;
    toldAt = new Map();
    reader.held = new Map();
    reader.told = { outcomes: [], from: 0 };
  }

  async function readOn(): Promise<boolean> {
    try {
      return taking ? await readSnapshot(taking) : await readChanges();
    } catch (error) {
      if (!(error instanceof TidegateError) || error.code !== "cursor-expired") throw error;
      reader.expired++;
      beginFromSnapshot();
      return true;
    }
  }

  async function readSnapshot(now: NonNullable<typeof taking>): Promise<boolean> {
    const limit = random.between(1, pageMax);
    const answer = await takeSnapshot({ ...world.feed, polledOf: nothingPolled }, identity, {
      clientId,
      page: now.page,
      limit,
    });
    const head = await headOf(tenant);
    for (const { id, version } of answer.records) {
      if (now.records.has(id)) throw new Error(`${name}: record ${id} stands twice in a snapshot`);
      show(id, version, head);
      now.records.set(id, Number(version));
    }
    now.page = answer.page;
    if (answer.cursor === undefined) return true;
    cursor = answer.cursor;
    reader.held = now.records;
    reader.told = { outcomes: [], from: positionOf(cursor) };
    taking = undefined;
    return true;
  }

  async function readChanges(): Promise<boolean> {
    const limit = random.between(1, pageMax);
    const wasBeginning = isBeginning(cursor);
    const page = random.chance(0.5) ? await pull(limit) : await follow(limit);
    // Who is still on the way to where it began is told of no outcome that was pruned meanwhile.
    if (wasBeginning) reader.told.from = Math.max(reader.told.from, await horizonOf(tenant));
    if (cursor !== undefined && positionOf(page.cursor) < positionOf(cursor))
      throw new Error(`${name}: the cursor went back`);
    const head = await headOf(tenant);
    for (const change of page.changes) take(change, head);
    cursor = page.cursor;
    return page.more;
  }

  async function pull(limit: number): Promise<Pulled> {
    return await pullChanges(world.feed, identity, { clientId, cursor, limit });
  }

  /** As an event stream does, which may break off behind any change. */
  async function follow(limit: number): Promise<Pulled> {
    const follower = { identity, clientId };
    const place = placeOf(world.feed, follower, cursor);
    const page = await world.readNext({ follower, place, limit, isBehind: random.chance(0.2) });
    const last = random.chance(0.3) ? page.changes[random.between(0, page.changes.length - 1)] : undefined;
    if (!last) return toPulled(world.feed, follower, place, page);
    const changes = page.changes.slice(0, page.changes.indexOf(last) + 1);
    return toPulled(world.feed, follower, place, { ...page, changes, position: last.position, more: true });
  }

  function take(change: Change, head: number): void {
    if (change.type === "outcome") {
      const { id: mutationId, status, recordId, version } = change.result;
      reader.told.outcomes.push({
        mutationId,
        status,
        recordId,
        version: Number(version ?? 0),
        held: reader.held.get(recordId ?? "") ?? 0,
        toldAt: toldAt.get(recordId ?? "") ?? -1,
      });
      return;
    }
    toldAt.set(change.id, head);
    if (change.type === "upsert") {
      show(change.id, change.version, head);
      reader.held.set(change.id, Number(change.version));
    } else reader.held.delete(change.id);
  }

  function show(id: string, version: string, head: number): void {
    if (Number(version) < (shown.get(id) ?? 0))
      throw new Error(`${name}: record ${id} was told in version ${version} after ${shown.get(id)}`);
    shown.set(id, Number(version));
    toldAt.set(id, head);
  }
}

const nothingPolled = () => ({ upstreamId: "", entities: [] });

function positionOf(cursor: string): number {
  return placeIn(cursor)[0]!;
}

/** Whether it has not come to where the head was when it began without a cursor. */
function isBeginning(cursor: string | undefined): boolean {
  return cursor === undefined || placeIn(cursor).length > 1;
}

/** The numbers in it, behind that of its kind; the names of whom it is for follow them. */
function placeIn(cursor: string): number[] {
  const members = JSON.parse(Buffer.from(cursor.split(".")[0]!, "base64url").toString()) as unknown[];
  return members.slice(1).filter((member) => typeof member === "number");
}

async function headOf({ world, tenantId }: Tenant): Promise<number> {
  return await positionIn(world, "feed_head", tenantId);
}

async function horizonOf({ world, tenantId }: Tenant): Promise<number> {
  return await positionIn(world, "feed_horizon", tenantId);
}

async function positionIn(world: Tenant["world"], table: string, tenantId: string): Promise<number> {
  const [row] = await world.query<{ position: string }>(
    `select position from tidegate.${table} where tenant_id = $1`,
    [tenantId],
  );
  return Number(row?.position ?? 0);
}
