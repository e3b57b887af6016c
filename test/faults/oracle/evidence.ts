import type { CapabilityClass } from "../../fixtures/capability-classes.ts";
import type { Queued } from "../phone.ts";
import type { JournalLine, Marker } from "../upstream/journal.ts";
import type { World } from "../world/world.ts";

/** All that the judgement is made from: the upstream's journal, the database, and what the phones were told. */
export interface Evidence {
  mutations: Queued[];
  requests: Extract<JournalLine, { kind: "request" }>[];
  /** The requests whose sender may have got the whole answer, although it was to be unclear. */
  answered: Set<number>;
  effects: Effect[];
  keys: Map<string, KeyRow>;
  deliveries: Map<string, DeliveryRow>;
  lanes: LaneRow[];
  idMap: { temp_id: string; entity: string; server_id: string }[];
  records: RecordRow[];
  /** What the upstream holds in the end, by collection and ID. */
  upstreamRecords: Map<string, Record<string, unknown>>;
}

/** One effect of the journal, with the mutations that it belongs to. */
export type Effect = Extract<JournalLine, { kind: "effect" }> & { causes: Queued[] };

export interface KeyRow {
  mutation_id: string;
  client_id: string;
  seq: string;
  entity: CapabilityClass;
  status: "applied" | "conflict" | "rejected" | null;
  record_id: string | null;
  version: string | null;
  problem: { code: string; detail: string } | null;
}

export interface DeliveryRow {
  mutation_id: string;
  state: string;
  blocked_by: string | null;
  possibly_sent: boolean;
  record_key: string;
}

export interface LaneRow {
  lane_id: string;
  client_id: string;
  position: string;
  tail: string;
  due_at: string | null;
  owner: string | null;
  lease_until: string | null;
  epoch: string;
  failures: number;
}

export interface RecordRow {
  entity: string;
  server_id: string;
  version: string;
  feed_position: string;
  deleted: boolean;
  data: string | null;
}

export async function gather({ postgres, upstream }: World, mutations: Queued[]): Promise<Evidence> {
  const journal = await upstream.journal();
  const { records } = await upstream.report();
  const keys = await postgres.rows<KeyRow>("select * from mutation_key");
  const deliveries = await postgres.rows<DeliveryRow>("select * from delivery");
  const requests = journal.filter((line) => line.kind === "request");
  return {
    mutations,
    requests,
    answered: new Set(journal.flatMap((line) => (line.kind === "answer" ? line.n : []))),
    effects: withCauses(journal, mutations),
    keys: new Map(keys.map((row) => [row.mutation_id, row])),
    deliveries: new Map(deliveries.map((row) => [row.mutation_id, row])),
    lanes: await postgres.rows("select * from lane"),
    idMap: await postgres.rows("select temp_id, entity, server_id from id_map"),
    records: await postgres.rows(
      "select entity, server_id, version, feed_position, deleted, convert_from(data, 'UTF8') as data from record",
    ),
    upstreamRecords: new Map(
      Object.entries(records).map(([name, text]) => [name, JSON.parse(text) as Record<string, unknown>]),
    ),
  };
}

function withCauses(journal: JournalLine[], mutations: Queued[]): Effect[] {
  const byMarker = new Map<Marker, Queued>(mutations.map((queued) => [queued.marker, queued]));
  /** Which planned record an upstream's record is, by the create that made it. */
  const recordAt = new Map<string, number>();
  return journal.flatMap((line) => {
    if (line.kind !== "effect") return [];
    const name = `${line.collection}/${line.id}`;
    const causes = line.markers.flatMap((marker) => {
      const real: Marker = marker.startsWith("-") ? `-${recordAt.get(name) ?? "unknown"}` : marker;
      return byMarker.get(real) ?? [];
    });
    const made = causes.find(({ body }) => body.op === "create");
    if (made) recordAt.set(name, made.record.index);
    return [{ ...line, causes }];
  });
}
