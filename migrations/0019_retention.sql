-- What was sent, and what was tried, goes when its time is over.

-- A round that empties blocks looks at those whose time has come, oldest first, and at none that it has emptied before:
-- blocks stay for ever, and a round through all of them would take longer every day. At its end new blocks come one behind
-- the other.
create index inbox_block_with_payload on inbox_block (tenant_id, received_at, client_id, last_seq)
  where payload is not null;

-- What ended before this moment may be gone by now; null while nothing is. It moves before anything goes, so that whoever
-- looks for what is not there is told why.
alter table pruning add column gone_until timestamptz;
