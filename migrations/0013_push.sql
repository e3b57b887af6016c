-- Wake-up push: who has told us how to reach a suspended app, how far it has read, and what became of the pushes.

-- What the app says of itself.
alter table client add column app_version text;

-- How a client's app is woken. Gone when it unregisters, or when the push service says that the address is dead.
--
-- Two things are known of a client's reading: where its last answer ended (told), and the cursor that it came back with
-- (read), which proves that it had the answer. What lies after `told` is worth a push; what lies only after `read`, a
-- reminder.
--
--     idle ──something after told──▶ wanted ──claimed──▶ sent ──told reaches wanted──▶ idle, once checked
--                                      ▲                  │
--                                      └───── reminder ───┘
create table push_registration (
  tenant_id text not null,
  client_id uuid not null,
  -- another one with each registration: what a service says of an address removes no later one
  revision uuid not null default gen_random_uuid(),
  service text not null check (service in ('fcm', 'webhook')),
  platform text not null check (platform in ('android', 'ios', 'other')),
  -- the registration token, or the app's own text
  key_id text not null,
  address bytea not null,
  address_hash bytea not null,
  -- what the user's token could see when the client last read, or registered
  scopes text[] not null,
  -- the feed's, in which the positions are meant
  epoch uuid not null,
  read_position bigint not null default 0,
  told_position bigint not null,
  told_at timestamptz not null default now(),
  -- what it is to be woken for; null while nothing is known
  wanted_position bigint,
  -- the same for every attempt at one push
  push_id uuid,
  -- when it was woken for `wanted_position`; null until then
  pushed_at timestamptz,
  -- how often it was woken for it
  pushes smallint not null default 0,
  -- of its last pushes: no more than the budget within an hour
  sent_at timestamptz[] not null default '{}',
  -- attempts in a row that failed
  failures integer not null default 0,
  -- when to look at it by itself; while it is claimed, when that lapses
  due_at timestamptz,
  claim_id uuid,
  created_at timestamptz not null default now(),
  primary key (tenant_id, client_id)
) with (fillfactor = 70);
-- an address has one client: a new one takes it over
create unique index push_registration_by_address on push_registration (tenant_id, service, address_hash);
-- which pushes are due
create index push_registration_due on push_registration (tenant_id, service, due_at) where due_at is not null;

-- Which clients an audience of the feed has, by the registrations' scopes. An array there could be searched by no index
-- under row-level security.
create table push_audience (
  tenant_id text not null,
  audience text not null,
  client_id uuid not null,
  primary key (tenant_id, audience, client_id)
);

-- How far the feed has been looked through for clients to wake.
create table push_look (
  tenant_id text not null primary key,
  position bigint not null,
  epoch uuid not null
) with (fillfactor = 10);

-- How a push service does: paused for everybody after failures, and asked by one push now and then.
create table push_service (
  tenant_id text not null,
  service text not null,
  failures integer not null default 0,
  paused_until timestamptz,
  -- the last failure, also when it is over
  problem text,
  problem_at timestamptz,
  primary key (tenant_id, service)
);

-- whose audiences have changed since the last look: what is new, and not what is registered, decides what a look costs
create index feed_by_position on feed (tenant_id, position);

do $$
declare
  example record;
begin
  -- See 0002: what the planner believes of tables while they are empty.
  perform set_config('tidegate.tenant_id', 'planner', true);
  for example in select * from (values
    ('push_registration', '(tenant_id, client_id, service, platform, key_id, address, address_hash, scopes, epoch,
      told_position, due_at) select ''planner'', u, ''fcm'', ''ios'', '''', '''', '''', ''{}'', u, 0, now()'),
    ('push_audience', '(tenant_id, audience, client_id) select ''planner'', '''', u'),
    ('push_look', '(tenant_id, position, epoch) select ''planner'', 0, u'),
    ('push_service', '(tenant_id, service) select ''planner'', ''''')
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
