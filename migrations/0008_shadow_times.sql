-- When a logged change occurred, by its client: after a recovery this tells what a shadow may have got before.
alter table applied_change add column occurred_at timestamptz;
