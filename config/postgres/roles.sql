-- The two roles of Tidegate's database. A superuser runs this once, connected to that database, after
--   set tidegate.owner_password = '…'; set tidegate.service_password = '…';
-- It can be run again, for instance to change the passwords.
--
-- tidegate_owner owns the database and runs the migrations (MIGRATION_DATABASE_URL).
-- tidegate       is the service (DATABASE_URL): it owns nothing, and row-level security always holds for it. What it
--                may do is granted by `npm run migrate`.

do $$
declare
  role_name text;
begin
  foreach role_name in array array['tidegate_owner', 'tidegate'] loop
    if not exists (select from pg_roles where rolname = role_name) then
      execute format('create role %I', role_name);
    end if;
    execute format(
      'alter role %I login nosuperuser nocreatedb nocreaterole noreplication nobypassrls password %L',
      role_name,
      current_setting(case role_name when 'tidegate' then 'tidegate.service_password' else 'tidegate.owner_password' end)
    );
    execute format('alter role %I set search_path = tidegate', role_name);
  end loop;
  execute format('alter database %I owner to tidegate_owner', current_database());
end
$$;

-- What tells a database that was restored or failed over. Everybody may ask that, unless a server was hardened.
grant execute on function pg_control_system(), pg_is_in_recovery(), pg_walfile_name(pg_lsn), pg_current_wal_lsn(),
  pg_current_wal_flush_lsn() to tidegate_owner, tidegate;
