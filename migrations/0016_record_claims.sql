-- Who changes a record at an upstream that has no versions: between the look at it and the write, nobody else may. A row
-- is there for as long as a lane has the record in hand; one whose lease is over belongs to whoever takes it.
create table record_claim (
  tenant_id text not null,
  entity text not null,
  server_id text not null,
  lane_id text not null,
  -- the lane's: an owner that has lost its lane takes nothing from the one after it
  epoch bigint not null,
  -- what another lane waits for
  mutation_id uuid not null,
  lease_until timestamptz not null,
  primary key (tenant_id, entity, server_id)
) with (fillfactor = 50);

alter table record_claim enable row level security;
alter table record_claim force row level security;
create policy tenant on record_claim using (tenant_id = current_setting('tidegate.tenant_id', true));

-- What the planner believes of it while it is empty; see 0002.
do $$
begin
  perform set_config('tidegate.tenant_id', 'planner', true);
  alter table record_claim alter column tenant_id set (n_distinct = 1);
  insert into record_claim (tenant_id, entity, server_id, lane_id, epoch, mutation_id, lease_until)
    select 'planner', '', '', '', 0, gen_random_uuid(), now();
  analyze record_claim;
  truncate record_claim;
end $$;
