-- The way of a mutation: client, inbox, lane, delivery, id map, record, feed.
--
-- Every table of a tenant's rows begins its primary key with tenant_id and has forced row-level security: the tenant is
-- set for each transaction, and without it no row is visible.

-- One row: who this database is to the clients. The feed's epoch changes with it.
create table installation (
  singleton boolean primary key default true check (singleton),
  epoch uuid not null default gen_random_uuid(),
  created_at timestamptz not null default now()
);
insert into installation default values;

-- One installation of the app for one user. Its row is the lock under which a batch is appended.
create table client (
  tenant_id text not null,
  client_id uuid not null,
  user_id text not null,
  last_seq bigint not null default 0,
  created_at timestamptz not null default now(),
  seen_at timestamptz not null default now(),
  primary key (tenant_id, client_id)
);

-- What a client can no longer send: positions that it acknowledges as lost.
create table incident (
  tenant_id text not null,
  incident_id uuid not null default gen_random_uuid(),
  client_id uuid not null,
  kind text not null check (kind in ('lost-mutations')),
  after_seq bigint not null,
  through_seq bigint not null,
  created_at timestamptz not null default now(),
  primary key (tenant_id, incident_id)
);

-- Every mutation ever accepted, and its final result without data. Never dropped: a repeat may come after months.
create table mutation_key (
  tenant_id text not null,
  mutation_id uuid not null,
  client_id uuid not null,
  seq bigint not null,
  entity text not null,
  fingerprint bytea not null,
  -- the temp ID that a create gives to its record
  temp_id uuid,
  accepted_at timestamptz not null default now(),
  -- null while the mutation is pending, parked or held
  status text check (status in ('applied', 'conflict', 'rejected')),
  record_id text,
  version bigint,
  problem jsonb,
  settled_at timestamptz,
  primary key (tenant_id, mutation_id)
) with (fillfactor = 80);
-- outcomes of one client in its own order: receipts, /v1/mutations
create index mutation_key_by_seq on mutation_key (tenant_id, client_id, seq);
-- whether anybody in the tenant has created a temp ID, applied or not
create index mutation_key_by_temp_id on mutation_key (tenant_id, temp_id) where temp_id is not null;

-- The log: the mutations of one batch, in one piece. Its position is the seq of its last mutation.
create table inbox_block (
  tenant_id text not null,
  client_id uuid not null,
  last_seq bigint not null,
  user_id text not null,
  scopes text[] not null,
  roles text[] not null,
  request_id text not null,
  received_at timestamptz not null default now(),
  key_id text not null,
  payload bytea not null,
  primary key (tenant_id, client_id, last_seq)
);
alter table inbox_block alter column payload set storage external;

-- A position in a client's log, and the right to move it.
create table lane (
  tenant_id text not null,
  lane_id text not null,
  upstream_id text not null,
  client_id uuid,
  -- everything up to here has been passed
  position bigint not null default 0,
  -- the log reaches to here
  tail bigint not null default 0,
  -- when to look at the lane; null while there is nothing to do
  due_at timestamptz,
  -- failures in a row of the mutation at the head
  failures integer not null default 0,
  epoch bigint not null default 0,
  owner text,
  lease_until timestamptz,
  primary key (tenant_id, lane_id)
) with (fillfactor = 50);
-- the sweeper: due lanes that nobody woke
create index lane_due on lane (tenant_id, due_at) where due_at is not null;

-- A mutation that did not go straight through: retried, waiting, parked or held. Gone when it is settled.
create table delivery (
  tenant_id text not null,
  upstream_id text not null,
  mutation_id uuid not null,
  client_id uuid not null,
  seq bigint not null,
  state text not null check (state in ('sending', 'retrying', 'waiting', 'parked', 'held')),
  -- the record it concerns: a temp ID, or entity/server ID
  record_key text not null,
  -- the records it refers to, named likewise: a delete of one of them waits
  refers_to text[] not null default '{}',
  -- the mutation that it waits for
  blocked_by uuid,
  -- whether a call may have taken effect
  possibly_sent boolean not null default false,
  -- when the first, and the last, of these calls began at the latest
  first_sent_at timestamptz,
  last_sent_at timestamptz,
  attempts integer not null default 0,
  problem jsonb,
  -- the upstream's last answer, for a person to decide with
  evidence_status integer,
  key_id text,
  evidence bytea,
  updated_at timestamptz not null default now(),
  primary key (tenant_id, upstream_id, mutation_id)
);
-- what a lane must hold back behind its parked mutations; where an unsettled mutation stands
create index delivery_by_client on delivery (tenant_id, client_id, seq);
-- the lanes to wake when a mutation is settled
create index delivery_by_blocker on delivery (tenant_id, blocked_by) where blocked_by is not null;

-- Temp ID to server ID, for ever.
create table id_map (
  tenant_id text not null,
  temp_id uuid not null,
  entity text not null,
  server_id text not null,
  client_id uuid not null,
  mutation_id uuid not null,
  created_at timestamptz not null default now(),
  primary key (tenant_id, temp_id)
);
-- /v1/id-mappings: what one client's temp IDs became
create index id_map_by_client on id_map (tenant_id, client_id);

-- The latest known state of each record.
create table record (
  tenant_id text not null,
  entity text not null,
  server_id text not null,
  version bigint not null,
  -- the feed position of its last change
  feed_position bigint not null,
  deleted boolean not null default false,
  scopes text[] not null,
  -- the primary's own version (an ETag or a field)
  upstream_version text,
  -- who created it under which name; only that client is told the temp ID
  temp_id uuid,
  created_by uuid,
  -- whose mutation changed it last, and on which version that was based: own edits do not conflict
  changed_by uuid,
  changed_base bigint,
  changed_at timestamptz not null default now(),
  key_id text not null,
  data bytea,
  primary key (tenant_id, entity, server_id)
) with (fillfactor = 70);

-- The last position given out; taken as the last statement of a commit, so that positions are commit order.
create table feed_head (
  tenant_id text not null primary key,
  position bigint not null default 0
) with (fillfactor = 10);

-- What readers may want to know, by audience: `s:<scope>`, or `c:<client>` for outcomes.
create table feed (
  tenant_id text not null,
  audience text not null,
  position bigint not null,
  -- outcome: a final one; parked: told for as long as the mutation is
  kind text not null check (kind in ('record', 'revoke', 'outcome', 'parked')),
  entity text,
  record_id text,
  mutation_id uuid,
  created_at timestamptz not null default now(),
  primary key (tenant_id, audience, position)
);

do $$
declare
  table_name text;
begin
  foreach table_name in array array[
    'client', 'incident', 'mutation_key', 'inbox_block', 'lane', 'delivery', 'id_map', 'record', 'feed_head', 'feed'
  ] loop
    execute format('alter table %I enable row level security', table_name);
    execute format('alter table %I force row level security', table_name);
    execute format(
      'create policy tenant on %I using (tenant_id = current_setting(''tidegate.tenant_id'', true))',
      table_name
    );
  end loop;
end $$;
