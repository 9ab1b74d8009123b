-- What a tenants' Postgres server needs from its superuser, once. Run it in any database of the server:
--
--   psql --set ON_ERROR_STOP=1 --file server-setup.sql "postgres://postgres@/postgres"
--
-- It may be run again. Afterwards give the admin role a password (`ALTER ROLE platform_admin PASSWORD …`), set
-- `max_locks_per_transaction` to 512 or more, and let pg_hba.conf admit the members of `tenants` and `pools` to the
-- database of their own name only. The platform does everything else as `platform_admin`, which is no superuser.

DO $setup$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'platform_admin') THEN
        CREATE ROLE platform_admin LOGIN CREATEDB CREATEROLE;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'tenants') THEN
        CREATE ROLE tenants NOLOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'pools') THEN
        CREATE ROLE pools NOLOGIN;
    END IF;
END
$setup$;

ALTER ROLE platform_admin LOGIN NOSUPERUSER CREATEDB CREATEROLE NOREPLICATION NOBYPASSRLS;
ALTER ROLE tenants NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE;
ALTER ROLE pools NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE;

-- To add roles to the two groups, and to end sessions of tenants' roles.
GRANT tenants, pools TO platform_admin WITH ADMIN OPTION;
GRANT pg_signal_backend TO platform_admin;

-- Every role may connect everywhere by default: a tenant's could listen, notify and make temporary tables here.
REVOKE CONNECT, TEMPORARY ON DATABASE postgres, template1, template0 FROM PUBLIC;
GRANT CONNECT ON DATABASE postgres TO platform_admin;
