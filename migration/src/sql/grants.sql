-- What each process may do. Run after every migration, by the tables' owner; roles that a small set-up lacks are
-- passed over. The api may not touch what only the worker decides, and neither may change the schema.
DO $grants$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'platform_api') THEN
        GRANT USAGE ON SCHEMA public TO platform_api;
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO platform_api;
        REVOKE DELETE ON organizations, users, database_servers, pools, templates FROM platform_api;
        REVOKE INSERT, UPDATE, DELETE ON drift FROM platform_api;
        REVOKE ALL ON seaql_migrations FROM platform_api;
        GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO platform_api;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'platform_worker') THEN
        GRANT USAGE ON SCHEMA public TO platform_worker;
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO platform_worker;
        -- Credentials are none of the worker's business.
        REVOKE ALL ON users, memberships, sessions, refresh_tokens, signing_keys, idempotency_records, seaql_migrations
            FROM platform_worker;
        -- It opens what the api seals, and seals nothing.
        REVOKE ALL ON platform_secrets FROM platform_worker;
        REVOKE INSERT, UPDATE, DELETE ON data_keys FROM platform_worker;
        -- The api fires schedules; a worker may make and remove them.
        REVOKE INSERT, UPDATE, DELETE ON schedule_fires FROM platform_worker;
        GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO platform_worker;
    END IF;
END
$grants$;
