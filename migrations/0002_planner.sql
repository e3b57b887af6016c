-- What the planner believes of tables while they are empty. The service keeps its plans, so those of the first minutes
-- have to be the ones that stay good: by the whole key, never through all rows of a tenant. Without statistics the
-- planner expects 200 tenants with a row or two each, and to read all of a tenant's seems as good as to look for one.
-- So it is told that a tenant may have all rows, here and whenever the tables are analyzed.
--
-- Statistics are only kept for a table that has a row. To truncate it makes its size unknown again, and leaves them. A
-- table that has ever had a row is left alone: its file has a size, whatever row-level security lets us see.

do $$
declare
  example record;
begin
  perform set_config('tidegate.tenant_id', 'planner', true);
  for example in select * from (values
    ('client', '(tenant_id, client_id, user_id) select ''planner'', u, '''''),
    ('incident', '(tenant_id, client_id, kind, after_seq, through_seq) select ''planner'', u, ''lost-mutations'', 0, 1'),
    ('mutation_key', '(tenant_id, mutation_id, client_id, seq, entity, fingerprint, temp_id)
      select ''planner'', u, u, 1, '''', '''', u'),
    ('inbox_block', '(tenant_id, client_id, last_seq, user_id, scopes, roles, request_id, key_id, payload)
      select ''planner'', u, 1, '''', ''{}'', ''{}'', '''', '''', '''''),
    ('lane', '(tenant_id, lane_id, upstream_id, client_id, due_at) select ''planner'', '''', '''', u, now()'),
    ('delivery', '(tenant_id, upstream_id, mutation_id, client_id, seq, state, record_key, blocked_by)
      select ''planner'', '''', u, u, 1, ''waiting'', '''', u'),
    ('id_map', '(tenant_id, temp_id, entity, server_id, client_id, mutation_id) select ''planner'', u, '''', '''', u, u'),
    ('record', '(tenant_id, entity, server_id, version, feed_position, scopes, key_id)
      select ''planner'', '''', '''', 1, 1, ''{}'', '''''),
    ('feed_head', '(tenant_id) select ''planner'''),
    ('feed', '(tenant_id, audience, position, kind) select ''planner'', '''', 1, ''record''')
  ) as e (table_name, columns)
  loop
    execute format('lock table %I in access exclusive mode', example.table_name);
    execute format('alter table %I alter column tenant_id set (n_distinct = 1)', example.table_name);
    if pg_relation_size(example.table_name::regclass) = 0 then
      execute format('insert into %I %s from gen_random_uuid() as u', example.table_name, example.columns);
      execute format('analyze %I', example.table_name);
      execute format('truncate %I', example.table_name);
    end if;
  end loop;
end $$;
