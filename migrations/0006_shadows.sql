-- Shadows: further systems of a tenant that follow what the primary took.

-- The log of what the primary took, in the order in which it was written down: a change has the feed position of the
-- record that it left. Written only for tenants that have a shadow. It holds all that a shadow needs, so that it can be
-- carried out when the batch that it came in has been pruned.
create table applied_change (
  tenant_id text not null,
  -- a record is always in one: a hash of its entity and server ID
  partition smallint not null,
  position bigint not null,
  -- the mutation's id; of a change that others made, one of its own
  change_id uuid not null,
  entity text not null,
  server_id text not null,
  temp_id uuid,
  op text not null check (op in ('create', 'update', 'delete')),
  -- others made it in the primary; a mutation only came upon it
  is_foreign boolean not null,
  user_id text,
  request_id text,
  key_id text not null,
  -- what the mutation changed, as its client sent it; of a foreign change, the difference
  patch bytea,
  -- what else had changed by then
  others bytea,
  -- the record afterwards; null when it was deleted
  data bytea,
  created_at timestamptz not null default now(),
  primary key (tenant_id, partition, position)
);
alter table applied_change alter column patch set storage external;
alter table applied_change alter column others set storage external;
alter table applied_change alter column data set storage external;

-- A shadow since it was added: it has everything from the records as they were then, and follows the log from here.
create table shadow (
  tenant_id text not null,
  upstream_id text not null,
  follows_from bigint not null,
  -- when the records to seed it with were listed, and its lanes made
  listed_at timestamptz,
  created_at timestamptz not null default now(),
  primary key (tenant_id, upstream_id)
);

-- The records that a shadow is seeded with, those that others refer to first. Their positions are negative: a shadow's
-- lane passes them before the log.
create table shadow_seed (
  tenant_id text not null,
  upstream_id text not null,
  partition smallint not null,
  position bigint not null,
  entity text not null,
  server_id text not null,
  -- whether references that had to be left out are set
  is_completion boolean not null default false,
  primary key (tenant_id, upstream_id, partition, position)
);
-- whether a record that another refers to comes before it
create index shadow_seed_by_record on shadow_seed (tenant_id, upstream_id, entity, server_id);

-- What a record is called in a shadow, and how far the shadow has followed it.
create table shadow_record (
  tenant_id text not null,
  upstream_id text not null,
  entity text not null,
  server_id text not null,
  own_id text not null,
  -- the shadow's own version (an ETag or a field)
  version text,
  -- the record's state that it has, as a position in the log
  reached bigint not null,
  deleted boolean not null default false,
  -- seeded without some of its references
  is_incomplete boolean not null default false,
  changed_at timestamptz not null default now(),
  primary key (tenant_id, upstream_id, entity, server_id)
) with (fillfactor = 80);

-- Whether the tenant's changes are logged for a shadow. Set under the lock under which positions are taken, so that the
-- log is whole from the next position on, whichever processes know of the shadow.
alter table feed_head add column is_followed boolean not null default false;

-- A shadow's lane has a partition of the log instead of a client; in `delivery` its ID stands for the client's.
alter table lane add column partition smallint;
alter table lane add column follows_from bigint;
-- the shadows' lanes, which are not due by themselves when the log grows: the sweeper looks at each
create index lane_of_shadow on lane (tenant_id, upstream_id, partition) where partition is not null;

do $$
declare
  table_name text;
begin
  foreach table_name in array array['applied_change', 'shadow', 'shadow_seed', 'shadow_record'] loop
    execute format('alter table %I enable row level security', table_name);
    execute format('alter table %I force row level security', table_name);
    execute format(
      'create policy tenant on %I using (tenant_id = current_setting(''tidegate.tenant_id'', true))',
      table_name
    );
  end loop;
end $$;

-- What the planner believes of them while they are empty; see 0002.
do $$
declare
  example record;
begin
  perform set_config('tidegate.tenant_id', 'planner', true);
  for example in select * from (values
    ('applied_change', '(tenant_id, partition, position, change_id, entity, server_id, op, is_foreign, key_id)
      select ''planner'', 0, 1, u, '''', '''', ''update'', false, '''''),
    ('shadow', '(tenant_id, upstream_id, follows_from) select ''planner'', '''', 0'),
    ('shadow_seed', '(tenant_id, upstream_id, partition, position, entity, server_id)
      select ''planner'', '''', 0, -1, '''', '''''),
    ('shadow_record', '(tenant_id, upstream_id, entity, server_id, own_id, reached)
      select ''planner'', '''', '''', '''', '''', 1')
  ) as e (table_name, columns)
  loop
    execute format('alter table %I alter column tenant_id set (n_distinct = 1)', example.table_name);
    execute format('insert into %I %s from gen_random_uuid() as u', example.table_name, example.columns);
    execute format('analyze %I', example.table_name);
    execute format('truncate %I', example.table_name);
  end loop;
end $$;
