-- A block names its mutations, in order. So a client's mutations are found in its log, and mutation_key, which takes a
-- row for each mutation, has one index less to keep.

alter table inbox_block add column ids uuid[];

-- The owner does not see tenants' rows either, except for as long as this takes.
alter table inbox_block no force row level security;
alter table mutation_key no force row level security;

update inbox_block block set ids = array(
  select mutation_id from mutation_key k
  where k.tenant_id = block.tenant_id and k.client_id = block.client_id
    and k.seq > before.last_seq and k.seq <= block.last_seq
  order by k.seq
)
from (
  select tenant_id, client_id, last_seq as seq,
    lag(last_seq, 1, 0::bigint) over (partition by tenant_id, client_id order by last_seq) as last_seq
  from inbox_block
) before
where block.tenant_id = before.tenant_id and block.client_id = before.client_id and block.last_seq = before.seq;

alter table inbox_block force row level security;
alter table mutation_key force row level security;

alter table inbox_block alter column ids set not null;
drop index mutation_key_by_seq;
