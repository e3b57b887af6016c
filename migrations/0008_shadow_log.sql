-- When a logged change occurred, by its client: after a recovery this tells what a shadow may have got before.
alter table applied_change add column occurred_at timestamptz;

-- Whether a record that another refers to comes before it. The record stands first: an index that begins with the shadow
-- would be taken for a lane's next seed as well, and read as a whole for it.
drop index shadow_seed_by_record;
create index shadow_seed_by_record on shadow_seed (tenant_id, entity, server_id, upstream_id);
