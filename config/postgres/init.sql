-- The first start of a Postgres container: the two roles, with the passwords of its environment. psql runs it, once.

\set ON_ERROR_STOP on
\getenv owner_password TIDEGATE_OWNER_PASSWORD
\getenv service_password TIDEGATE_SERVICE_PASSWORD

set tidegate.owner_password = :'owner_password';
set tidegate.service_password = :'service_password';
\i /etc/tidegate/roles.sql
