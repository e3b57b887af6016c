-- What readers no longer need goes: superseded rows of the feed at any time, the others when their time is over.

-- Where the feed's head was at some moment, about once a day. What stands up to there is at least so old: rows are found
-- by their position, and need no index by time.
create table feed_mark (
  tenant_id text not null,
  marked_at timestamptz not null default clock_timestamp(),
  position bigint not null,
  primary key (tenant_id, marked_at)
);

-- The oldest position that a cursor may have. Not in feed_head, whose row every commit waits for.
create table feed_horizon (
  tenant_id text not null primary key,
  position bigint not null,
  moved_at timestamptz not null default now()
);

-- Rounds through what may be pruned: when the next begins, and how far the one under way has come. Whoever prunes locks
-- the row.
create table pruning (
  tenant_id text not null,
  kind text not null check (kind in ('feed', 'payloads', 'attempts')),
  due_at timestamptz not null default now(),
  -- the key of the last row that was looked at; null between rounds
  place jsonb,
  finished_at timestamptz,
  created_at timestamptz not null default now(),
  primary key (tenant_id, kind)
) with (fillfactor = 50);

-- The payloads of a block go; which mutations it held, and who sent it, stays.
alter table inbox_block alter column payload drop not null;

do $$
declare
  table_name text;
begin
  foreach table_name in array array['feed_mark', 'feed_horizon', 'pruning'] loop
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
    ('feed_mark', '(tenant_id, position) select ''planner'', 1'),
    ('feed_horizon', '(tenant_id, position) select ''planner'', 1'),
    ('pruning', '(tenant_id, kind) select ''planner'', ''feed''')
  ) as e (table_name, columns)
  loop
    execute format('alter table %I alter column tenant_id set (n_distinct = 1)', example.table_name);
    execute format('insert into %I %s', example.table_name, example.columns);
    execute format('analyze %I', example.table_name);
    execute format('truncate %I', example.table_name);
  end loop;
end $$;
