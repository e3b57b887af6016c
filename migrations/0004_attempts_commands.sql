-- What was tried at an upstream, and what people decided.

-- Every attempt at a mutation, for whoever has to understand or prove later what happened. It is only ever added to.
create table attempt (
  tenant_id text not null,
  mutation_id uuid not null,
  upstream_id text not null,
  begun_at timestamptz not null,
  -- of the lane when it was tried
  epoch bigint not null,
  -- of its calls, from the first byte of the first to the end of the last; 0 when none was made
  duration_ms integer not null,
  -- stale: another owner had the lane by then, and whatever the upstream answered is not an outcome
  disposition text not null
    check (disposition in ('applied', 'conflict', 'reject', 'retry', 'park', 'unclear', 'stale')),
  -- whether a call left that could have changed something
  sent boolean not null,
  http_status integer,
  -- the record that the upstream named in a stale attempt; otherwise the outcome has it
  record_id text,
  worker text not null,
  request_id text not null,
  -- what the upstream said, redacted; null for what succeeded
  key_id text,
  excerpt bytea,
  primary key (tenant_id, mutation_id, upstream_id, begun_at, epoch)
);

-- What an operator wants done about a mutation, or about a lane as a whole. The lane's owner does it, and says so here.
create table command (
  tenant_id text not null,
  command_id uuid not null default gen_random_uuid(),
  upstream_id text not null,
  lane_id text not null,
  -- null: the lane as a whole
  mutation_id uuid,
  command text not null check (command in ('retry', 'applied', 'reject', 'now')),
  -- applied: the upstream's own name of the record that it created
  record_id text,
  reason text,
  given_by text not null,
  -- taken under the lane's lock, so that a lane's commands are in one order
  given_at timestamptz not null default clock_timestamp(),
  done_at timestamptz,
  -- what the mutation came to by it, or why it was not done
  result text,
  primary key (tenant_id, command_id)
);
-- an owner's claim: what it has to do in its lanes
create index command_open on command (tenant_id, lane_id, given_at) where done_at is null;
-- what was decided about one mutation
create index command_by_mutation on command (tenant_id, mutation_id, given_at) where mutation_id is not null;

-- Somebody asked for the lane to be looked at while it was in hand: it is due at once when it is given back.
alter table lane add column look_again boolean not null default false;

-- Shown to who decides; the payload that also says it is not.
alter table delivery add column op text check (op in ('create', 'update', 'delete'));
-- the list of what waits for a person, oldest first
create index delivery_parked on delivery (tenant_id, updated_at, mutation_id) where state = 'parked';

do $$
declare
  example record;
begin
  -- See 0002: what the planner believes of tables while they are empty.
  perform set_config('tidegate.tenant_id', 'planner', true);
  for example in select * from (values
    ('attempt', '(tenant_id, mutation_id, upstream_id, begun_at, epoch, duration_ms, disposition, sent, worker, request_id)
      select ''planner'', u, '''', now(), 1, 0, ''applied'', true, '''', '''''),
    ('command', '(tenant_id, upstream_id, lane_id, mutation_id, command, given_by)
      select ''planner'', '''', '''', u, ''retry'', ''''')
  ) as e (table_name, columns)
  loop
    execute format('alter table %I enable row level security', example.table_name);
    execute format('alter table %I force row level security', example.table_name);
    execute format(
      'create policy tenant on %I using (tenant_id = current_setting(''tidegate.tenant_id'', true))',
      example.table_name
    );
    execute format('alter table %I alter column tenant_id set (n_distinct = 1)', example.table_name);
    execute format('insert into %I %s from gen_random_uuid() as u', example.table_name, example.columns);
    execute format('analyze %I', example.table_name);
    -- In a subtransaction: where a table was made, to truncate it leaves its known size of one row.
    begin
      execute format('truncate %I', example.table_name);
    exception when others then
      raise;
    end;
  end loop;
end $$;
