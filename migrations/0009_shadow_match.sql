-- The records that a shadow held before it was added, so that the primary's are paired with them (`match`).

-- How far an entity's records are listed. They are gone through again until a whole pass finds none that is new.
create table shadow_listing (
  tenant_id text not null,
  upstream_id text not null,
  entity text not null,
  -- the field whose values are kept
  pointer text not null,
  -- a hash of the secret under which they are
  secret_id text not null,
  -- the page to read next; null for the first
  next_page text,
  pass smallint not null default 1,
  -- whether this pass has found a record that none before it had
  found_new boolean not null default false,
  finished_at timestamptz,
  created_at timestamptz not null default now(),
  primary key (tenant_id, upstream_id, entity)
);

-- One of these records, by the shadow's own ID. Nothing of it is kept but a keyed hash of the value, which is personal
-- data.
create table shadow_listed (
  tenant_id text not null,
  upstream_id text not null,
  entity text not null,
  own_id text not null,
  -- null where it has none
  value_hash bytea,
  -- the last pass that found it
  seen_in smallint not null,
  -- the server ID of the record that it is paired with
  taken_by text,
  primary key (tenant_id, upstream_id, entity, own_id)
) with (fillfactor = 80);
-- The records that have one value. The value stands first: an index that begins with the shadow could be taken for any of
-- its records.
create index shadow_listed_by_value on shadow_listed (tenant_id, value_hash, upstream_id, entity)
  where value_hash is not null;

do $$
declare
  table_name text;
begin
  foreach table_name in array array['shadow_listing', 'shadow_listed'] loop
    execute format('alter table %I enable row level security', table_name);
    execute format('alter table %I force row level security', table_name);
    execute format(
      'create policy tenant on %I using (tenant_id = current_setting(''tidegate.tenant_id'', true))',
      table_name
    );
  end loop;
end $$;

-- What the planner believes of them while they are empty; see 0002. All of a tenant's rows may be one entity's of one
-- shadow: by these, nothing is found.
alter table shadow_listed alter column upstream_id set (n_distinct = 1);
alter table shadow_listed alter column entity set (n_distinct = 1);
do $$
declare
  example record;
begin
  perform set_config('tidegate.tenant_id', 'planner', true);
  for example in select * from (values
    ('shadow_listing', '(tenant_id, upstream_id, entity, pointer, secret_id) select ''planner'', '''', '''', '''', '''''),
    ('shadow_listed', '(tenant_id, upstream_id, entity, own_id, value_hash, seen_in)
      select ''planner'', '''', '''', '''', '''', 1')
  ) as e (table_name, columns)
  loop
    execute format('alter table %I alter column tenant_id set (n_distinct = 1)', example.table_name);
    execute format('insert into %I %s', example.table_name, example.columns);
    execute format('analyze %I', example.table_name);
    execute format('truncate %I', example.table_name);
  end loop;
end $$;
