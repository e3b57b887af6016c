import type { ColumnType, Generated } from "kysely";

/** A bigint column: pg gives it as text, and takes numbers, bigints and text. */
type Int8 = ColumnType<string, number | bigint | string, number | bigint | string>;
type Timestamp = ColumnType<Date, Date | string | undefined, Date | string>;

/** The tables as Kysely sees them; `migrations/` holds the truth and says what each is for. */
export interface Database {
  installation: InstallationTable;
  client: ClientTable;
  incident: IncidentTable;
  mutation_key: MutationKeyTable;
  inbox_block: InboxBlockTable;
  lane: LaneTable;
  delivery: DeliveryTable;
  attempt: AttemptTable;
  command: CommandTable;
  id_map: IdMapTable;
  record: RecordTable;
  record_claim: RecordClaimTable;
  feed_head: FeedHeadTable;
  feed: FeedTable;
  feed_mark: FeedMarkTable;
  unread_outcome: UnreadOutcomeTable;
  feed_horizon: FeedHorizonTable;
  pruning: PruningTable;
  applied_change: AppliedChangeTable;
  shadow: ShadowTable;
  forgotten_shadow: ForgottenShadowTable;
  shadow_seed: ShadowSeedTable;
  shadow_record: ShadowRecordTable;
  shadow_listing: ShadowListingTable;
  shadow_listed: ShadowListedTable;
  inbound: InboundTable;
  inbound_entity: InboundEntityTable;
  inbound_seen: InboundSeenTable;
  inbound_look: InboundLookTable;
  inbound_adopted: InboundAdoptedTable;
  push_registration: PushRegistrationTable;
  push_audience: PushAudienceTable;
  push_look: PushLookTable;
  push_service: PushServiceTable;
}

export interface InstallationTable {
  singleton: Generated<boolean>;
  epoch: Generated<string>;
  created_at: Timestamp;
  served_as: string | null;
  recovered_at: Timestamp | null;
}

export interface ClientTable {
  tenant_id: string;
  client_id: string;
  user_id: string;
  last_seq: Int8;
  created_at: Timestamp;
  seen_at: Timestamp;
  app_version: Generated<string | null>;
}

export interface IncidentTable {
  tenant_id: string;
  incident_id: Generated<string>;
  client_id: string;
  kind: "lost-mutations";
  after_seq: Int8;
  through_seq: Int8;
  created_at: Timestamp;
}

export type FinalStatus = "applied" | "conflict" | "rejected";

/** What a client is told of a failure; the code is one of the closed list. Never payload. */
export interface StoredProblem {
  code: string;
  detail: string;
}

export interface MutationKeyTable {
  tenant_id: string;
  mutation_id: string;
  client_id: string;
  seq: Int8;
  entity: string;
  fingerprint: Buffer;
  temp_id: string | null;
  accepted_at: Timestamp;
  status: FinalStatus | null;
  record_id: string | null;
  version: Int8 | null;
  problem: StoredProblem | null;
  settled_at: Timestamp | null;
}

export interface InboxBlockTable {
  tenant_id: string;
  client_id: string;
  last_seq: Int8;
  user_id: string;
  scopes: string[];
  roles: string[];
  request_id: string;
  received_at: Timestamp;
  ids: string[];
  key_id: string;
  payload: Buffer | null;
}

export interface LaneTable {
  tenant_id: string;
  lane_id: string;
  upstream_id: string;
  client_id: string | null;
  position: Int8;
  tail: Int8;
  due_at: Timestamp | null;
  failures: number;
  epoch: Int8;
  owner: string | null;
  lease_until: Timestamp | null;
  aside: Generated<boolean>;
  look_again: Generated<boolean>;
  partition: number | null;
  follows_from: Int8 | null;
}

export type DeliveryState = "sending" | "retrying" | "waiting" | "parked" | "held";

export interface DeliveryTable {
  tenant_id: string;
  upstream_id: string;
  mutation_id: string;
  client_id: string;
  seq: Int8;
  state: DeliveryState;
  record_key: string;
  refers_to: Generated<string[]>;
  blocked_by: string | null;
  possibly_sent: boolean;
  first_sent_at: Timestamp | null;
  last_sent_at: Timestamp | null;
  attempts: number;
  problem: StoredProblem | null;
  evidence_status: number | null;
  key_id: string | null;
  evidence: Buffer | null;
  updated_at: Timestamp;
  op: "create" | "update" | "delete" | null;
}

/**
 * What came of trying a mutation at an upstream. `unclear`: it may have taken effect; `stale`: another owner had the lane
 * by then.
 */
export type AttemptDisposition = "applied" | "conflict" | "reject" | "retry" | "park" | "unclear" | "stale";

export interface AttemptTable {
  tenant_id: string;
  mutation_id: string;
  upstream_id: string;
  begun_at: Timestamp;
  epoch: Int8;
  duration_ms: number;
  disposition: AttemptDisposition;
  sent: boolean;
  http_status: number | null;
  record_id: string | null;
  worker: string;
  request_id: string;
  key_id: string | null;
  excerpt: Buffer | null;
}

/** `now` is for a lane as a whole, the others are for one mutation. */
export type CommandName = "retry" | "applied" | "reject" | "now";

export interface CommandTable {
  tenant_id: string;
  command_id: Generated<string>;
  upstream_id: string;
  lane_id: string;
  mutation_id: string | null;
  command: CommandName;
  record_id: string | null;
  reason: string | null;
  given_by: string;
  given_at: Timestamp;
  done_at: Timestamp | null;
  result: string | null;
}

export interface IdMapTable {
  tenant_id: string;
  temp_id: string;
  entity: string;
  server_id: string;
  client_id: string;
  mutation_id: string;
  created_at: Timestamp;
}

export interface RecordTable {
  tenant_id: string;
  entity: string;
  server_id: string;
  version: Int8;
  feed_position: Int8;
  deleted: boolean;
  scopes: string[];
  upstream_version: string | null;
  temp_id: string | null;
  created_by: string | null;
  changed_by: string | null;
  changed_base: Int8 | null;
  changed_at: Timestamp;
  key_id: string;
  data: Buffer | null;
}

export interface RecordClaimTable {
  tenant_id: string;
  entity: string;
  server_id: string;
  lane_id: string;
  epoch: Int8;
  mutation_id: string;
  lease_until: Timestamp;
}

export interface FeedHeadTable {
  tenant_id: string;
  position: Int8;
  is_followed: Generated<boolean>;
}

export interface FeedTable {
  tenant_id: string;
  audience: string;
  position: Int8;
  kind: "record" | "revoke" | "outcome" | "parked";
  entity: string | null;
  record_id: string | null;
  mutation_id: string | null;
  created_at: Timestamp;
}

export interface FeedMarkTable {
  tenant_id: string;
  marked_at: Timestamp;
  position: Int8;
}

export interface FeedHorizonTable {
  tenant_id: string;
  position: Int8;
  moved_at: Timestamp;
}

export interface UnreadOutcomeTable {
  tenant_id: string;
  client_id: string;
  mutation_id: string;
  position: Int8;
  told_at: Generated<Timestamp>;
  seen_at: Timestamp | null;
  seen_by: string | null;
  seen_reason: string | null;
}

export type PruningKind = "feed" | "payloads" | "attempts" | "shadow-log" | "shadow-rows";

export interface PruningTable {
  tenant_id: string;
  kind: PruningKind;
  due_at: Timestamp;
  place: ColumnType<unknown, string | null, string | null>;
  finished_at: Timestamp | null;
  created_at: Timestamp;
  gone_until: Timestamp | null;
}

export interface AppliedChangeTable {
  tenant_id: string;
  partition: number;
  position: Int8;
  change_id: string;
  entity: string;
  server_id: string;
  temp_id: string | null;
  op: "create" | "update" | "delete";
  is_foreign: boolean;
  user_id: string | null;
  request_id: string | null;
  key_id: string;
  patch: Buffer | null;
  others: Buffer | null;
  data: Buffer | null;
  created_at: Timestamp;
  occurred_at: Timestamp | null;
}

export interface ShadowTable {
  tenant_id: string;
  upstream_id: string;
  follows_from: Int8;
  listed_at: Timestamp | null;
  created_at: Timestamp;
}

export interface ForgottenShadowTable {
  tenant_id: string;
  upstream_id: string;
  forgotten_at: Generated<Timestamp>;
  forgotten_by: string;
  open_changes: Int8;
  cleared_at: Timestamp | null;
}

export interface ShadowSeedTable {
  tenant_id: string;
  upstream_id: string;
  partition: number;
  position: Int8;
  entity: string;
  server_id: string;
  is_completion: Generated<boolean>;
}

export interface ShadowRecordTable {
  tenant_id: string;
  upstream_id: string;
  entity: string;
  server_id: string;
  own_id: string;
  version: string | null;
  reached: Int8;
  deleted: boolean;
  is_incomplete: boolean;
  changed_at: Timestamp;
}

export interface ShadowListingTable {
  tenant_id: string;
  upstream_id: string;
  entity: string;
  pointer: string;
  secret_id: string;
  next_page: string | null;
  pass: Generated<number>;
  found_new: Generated<boolean>;
  finished_at: Timestamp | null;
  created_at: Timestamp;
}

export interface ShadowListedTable {
  tenant_id: string;
  upstream_id: string;
  entity: string;
  own_id: string;
  value_hash: Buffer | null;
  seen_in: number;
  taken_by: string | null;
}

export interface InboundTable {
  tenant_id: string;
  upstream_id: string;
  due_at: Timestamp;
  epoch: Generated<Int8>;
  owner: string | null;
  lease_until: Timestamp | null;
}

export interface InboundEntityTable {
  tenant_id: string;
  upstream_id: string;
  entity: string;
  poll_due_at: Timestamp;
  sweep_due_at: Timestamp;
  failures: Generated<number>;
  changed_until: Timestamp | null;
  swept_at: Timestamp | null;
  round: "poll" | "sweep" | null;
  round_began_at: Timestamp | null;
  round_position: Int8 | null;
  round_changed_until: Timestamp | null;
  next_page: string | null;
  is_listed: Generated<boolean>;
}

export interface InboundSeenTable {
  tenant_id: string;
  upstream_id: string;
  entity: string;
  server_id: string;
}

export interface InboundLookTable {
  tenant_id: string;
  upstream_id: string;
  entity: string;
  server_id: string;
  due_at: Timestamp;
  asked: Generated<Int8>;
  failures: Generated<number>;
  wait_until: Timestamp | null;
}

export interface InboundAdoptedTable {
  tenant_id: string;
  temp_id: string;
  entity: string;
  server_id: string;
}

export type PushServiceName = "fcm" | "webhook";
export type PushPlatform = "android" | "ios" | "other";

export interface PushRegistrationTable {
  tenant_id: string;
  client_id: string;
  revision: Generated<string>;
  service: PushServiceName;
  platform: PushPlatform;
  key_id: string;
  address: Buffer;
  address_hash: Buffer;
  scopes: string[];
  epoch: string;
  read_position: Int8;
  told_position: Int8;
  told_at: Timestamp;
  wanted_position: Int8 | null;
  push_id: string | null;
  pushed_at: Timestamp | null;
  pushes: Generated<number>;
  sent_at: Generated<Date[]>;
  failures: Generated<number>;
  due_at: Timestamp | null;
  claim_id: string | null;
  created_at: Timestamp;
}

export interface PushAudienceTable {
  tenant_id: string;
  audience: string;
  client_id: string;
}

export interface PushLookTable {
  tenant_id: string;
  position: Int8;
  epoch: string;
}

export interface PushServiceTable {
  tenant_id: string;
  service: PushServiceName;
  failures: Generated<number>;
  paused_until: Timestamp | null;
  problem: string | null;
  problem_at: Timestamp | null;
}
