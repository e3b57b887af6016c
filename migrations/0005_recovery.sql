-- A database that was put back to an earlier moment, by a restore or by a failover to a standby that was behind, has
-- forgotten what was done since. It is recognised by itself, and nothing is replayed until an operator has recovered it.

alter table installation
  -- the identity under which the database is served; null while it never was
  add column served_as text,
  -- the last recovery; what occurred before it may have been replayed without a trace
  add column recovered_at timestamptz;

-- Who this database is. Null on a standby.
--
-- system    a dump that was restored into another cluster
-- timeline  a base backup that was restored to a moment, a standby that was promoted. Taken from where the server writes
--           at this moment: what the last checkpoint says is old for a while after a promotion
-- database, table  a dump that was restored into the same cluster
create function database_identity() returns text language sql stable as $$
  select case when not pg_is_in_recovery() then format(
    'system %s, timeline %s, database %s, table %s',
    (select system_identifier from pg_control_system()),
    ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint,
    (select oid from pg_database where datname = current_database()),
    'tidegate.installation'::regclass::oid
  ) end
$$;
