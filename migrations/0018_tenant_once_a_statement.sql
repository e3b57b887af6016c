-- Which tenant a statement may see is the same for all of it. As a subquery it is asked for once; a bare function call is
-- asked for again for each key that a join looks up, and costs a third of the look.
do $$
declare
  table_name name;
begin
  for table_name in
    select c.relname from pg_policy p join pg_class c on c.oid = p.polrelid
    where p.polname = 'tenant' and c.relnamespace = current_schema()::regnamespace
  loop
    execute format(
      'alter policy tenant on %I using (tenant_id = (select current_setting(''tidegate.tenant_id'', true)))',
      table_name
    );
  end loop;
end $$;
