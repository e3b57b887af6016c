-- Lanes whose upstream can't take more at present, because its breaker is open or enough lanes are in hand. They are due,
-- and wait for their turn: no job, no sweep and no attempt of their own.

alter table lane add column aside boolean not null default false;

-- the sweeper: due lanes that nobody woke
drop index lane_due;
create index lane_due on lane (tenant_id, due_at) where due_at is not null and not aside;
-- whose turn is next, by upstream, oldest first
create index lane_aside on lane (tenant_id, upstream_id, due_at) where aside;
