-- What no shadow needs any more goes: the log that all have passed, the seeds that all have, and all there is of a shadow
-- that is forgotten.

-- Shadows that an operator had forgotten: by whom, and how much was given up. What there was of one is removed bit by bit;
-- until that is done the shadow is not added again, nor ever by a process that is older than its end.
create table forgotten_shadow (
  tenant_id text not null,
  upstream_id text not null,
  forgotten_at timestamptz not null default clock_timestamp(),
  forgotten_by text not null,
  -- changes that were parked, held or under way
  open_changes bigint not null,
  -- nothing of it is left
  cleared_at timestamptz,
  primary key (tenant_id, upstream_id, forgotten_at)
);

alter table forgotten_shadow enable row level security;
alter table forgotten_shadow force row level security;
create policy tenant on forgotten_shadow
  using (tenant_id = (select current_setting('tidegate.tenant_id', true)));

-- What the planner believes of it while it is empty; see 0002.
do $$
begin
  perform set_config('tidegate.tenant_id', 'planner', true);
  alter table forgotten_shadow alter column tenant_id set (n_distinct = 1);
  insert into forgotten_shadow (tenant_id, upstream_id, forgotten_by, open_changes) select 'planner', '', '', 0;
  analyze forgotten_shadow;
  truncate forgotten_shadow;
end $$;

alter table pruning drop constraint pruning_kind_check;
alter table pruning add constraint pruning_kind_check
  check (kind in ('feed', 'payloads', 'attempts', 'shadow-log', 'shadow-rows'));
