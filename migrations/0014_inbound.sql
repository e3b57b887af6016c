-- What the gateway learns of changes that others make in a primary: by asking for them, and by being told of them.

-- Who asks an upstream, and when that is due again.
create table inbound (
  tenant_id text not null,
  upstream_id text not null,
  due_at timestamptz not null default now(),
  epoch bigint not null default 0,
  owner text,
  lease_until timestamptz,
  primary key (tenant_id, upstream_id)
) with (fillfactor = 50);

-- How far an entity's records were asked for.
create table inbound_entity (
  tenant_id text not null,
  upstream_id text not null,
  entity text not null,
  poll_due_at timestamptz not null default now(),
  sweep_due_at timestamptz not null default now(),
  -- failures in a row
  failures integer not null default 0,
  -- up to here, by the upstream's clock, changes were asked for
  changed_until timestamptz,
  -- the last sweep that came to its end began then; null: there was none yet
  swept_at timestamptz,
  -- the round that is under way, if one is: of what has changed, or of everything
  round text check (round in ('poll', 'sweep')),
  round_began_at timestamptz,
  -- the feed's head at its beginning
  round_position bigint,
  -- the latest time of a change that it has found
  round_changed_until timestamptz,
  -- the page to read next; null for the first
  next_page text,
  -- the last page was read
  is_listed boolean not null default false,
  primary key (tenant_id, upstream_id, entity)
) with (fillfactor = 50);

-- What the round under way has found, by server ID.
create table inbound_seen (
  tenant_id text not null,
  upstream_id text not null,
  entity text not null,
  server_id text not null,
  primary key (tenant_id, upstream_id, entity, server_id)
);

-- Records to read from the upstream: an event named them, or what a list said of them may be old or is not ours to tell yet.
create table inbound_look (
  tenant_id text not null,
  upstream_id text not null,
  entity text not null,
  server_id text not null,
  due_at timestamptz not null default now(),
  -- grows each time that it is asked for: a look that began before does not settle it
  asked bigint not null default 1,
  failures integer not null default 0,
  -- an unknown record may be one that a client's create has just made; it is made known then all the same
  wait_until timestamptz,
  primary key (tenant_id, upstream_id, entity, server_id)
) with (fillfactor = 70);
-- the looks that are due, those first that are due for longest
create index inbound_look_due on inbound_look (tenant_id, upstream_id, due_at);

-- Which record was made known under the temp ID of a create that has no outcome yet: one, whoever else carries it too.
create table inbound_adopted (
  tenant_id text not null,
  temp_id uuid not null,
  entity text not null,
  server_id text not null,
  primary key (tenant_id, temp_id)
);

do $$
declare
  table_name text;
begin
  foreach table_name in array
    array['inbound', 'inbound_entity', 'inbound_seen', 'inbound_look', 'inbound_adopted']
  loop
    execute format('alter table %I enable row level security', table_name);
    execute format('alter table %I force row level security', table_name);
    execute format(
      'create policy tenant on %I using (tenant_id = current_setting(''tidegate.tenant_id'', true))',
      table_name
    );
  end loop;
end $$;

-- What the planner believes of them while they are empty; see 0002. All of a tenant's rows may be one entity's of one
-- upstream: by these, nothing is found.
alter table inbound_seen alter column upstream_id set (n_distinct = 1);
alter table inbound_seen alter column entity set (n_distinct = 1);
alter table inbound_look alter column upstream_id set (n_distinct = 1);
alter table inbound_look alter column entity set (n_distinct = 1);
do $$
declare
  example record;
begin
  perform set_config('tidegate.tenant_id', 'planner', true);
  for example in select * from (values
    ('inbound', '(tenant_id, upstream_id) select ''planner'', '''''),
    ('inbound_entity', '(tenant_id, upstream_id, entity) select ''planner'', '''', '''''),
    ('inbound_seen', '(tenant_id, upstream_id, entity, server_id) select ''planner'', '''', '''', '''''),
    ('inbound_look', '(tenant_id, upstream_id, entity, server_id) select ''planner'', '''', '''', '''''),
    ('inbound_adopted', '(tenant_id, temp_id, entity, server_id) select ''planner'', gen_random_uuid(), '''', ''''')
  ) as e (table_name, columns)
  loop
    execute format('alter table %I alter column tenant_id set (n_distinct = 1)', example.table_name);
    execute format('insert into %I %s', example.table_name, example.columns);
    execute format('analyze %I', example.table_name);
    execute format('truncate %I', example.table_name);
  end loop;
end $$;
