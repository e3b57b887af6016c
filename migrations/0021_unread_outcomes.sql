-- Final outcomes by which a user's change was not made, for as long as its client is not known to have read of it: somebody
-- has to be told, and a phone that is lost tells nobody.
create table unread_outcome (
  tenant_id text not null,
  client_id uuid not null,
  mutation_id uuid not null,
  -- of the outcome in the feed: a client that comes with a cursor from there on has read it
  position bigint not null,
  told_at timestamptz not null default clock_timestamp(),
  -- an operator has told the user, or knows that it need not be
  seen_at timestamptz,
  seen_by text,
  seen_reason text,
  primary key (tenant_id, client_id, mutation_id)
);
-- what operators look at: those that nobody has seen, oldest first
create index unread_outcome_unseen on unread_outcome (tenant_id, told_at, mutation_id) where seen_at is null;

alter table unread_outcome enable row level security;
alter table unread_outcome force row level security;
create policy tenant on unread_outcome
  using (tenant_id = (select current_setting('tidegate.tenant_id', true)));

-- What the planner believes of it while it is empty; see 0002.
do $$
begin
  perform set_config('tidegate.tenant_id', 'planner', true);
  alter table unread_outcome alter column tenant_id set (n_distinct = 1);
  insert into unread_outcome (tenant_id, client_id, mutation_id, position)
    select 'planner', gen_random_uuid(), gen_random_uuid(), 0;
  analyze unread_outcome;
  truncate unread_outcome;
end $$;
