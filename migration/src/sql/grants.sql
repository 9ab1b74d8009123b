-- What each process may do. Run after every migration, by the tables' owner; roles that a small set-up lacks are
-- passed over. The api may not touch what only the worker decides, and neither may change the schema.
DO $grants$
DECLARE
    -- Whose each row is, for the tables whose rows belong to organizations.
    rules jsonb := jsonb_build_object(
        'organizations', 'BELOW(organizations.id)',
        'organization_ancestors', 'organization_id = @here OR ancestor_id = @here',
        'memberships', 'BELOW(memberships.organization_id)',
        'sessions', 'BELOW(sessions.organization_id) OR user_id = @user',
        'refresh_tokens', 'EXISTS (SELECT FROM sessions s WHERE s.id = refresh_tokens.session_id OFFSET 0)',
        'users', 'id = @user OR EXISTS (SELECT FROM memberships m WHERE m.user_id = users.id OFFSET 0)',
        'invitations', 'BELOW(invitations.organization_id)',
        'api_keys', 'BELOW(api_keys.organization_id)',
        'tenants', 'BELOW(tenants.organization_id)',
        'operations', 'BELOW(operations.scope)',
        -- By its own column, since a job is written in one statement with its operation, which then does not show yet; a
        -- worker of an earlier version left the column empty.
        'jobs', 'BELOW(jobs.scope) OR (scope IS NULL AND EXISTS (SELECT FROM operations o WHERE o.id = jobs.operation_id OFFSET 0))',
        'job_steps', 'EXISTS (SELECT FROM operations o WHERE o.id = job_steps.operation_id OFFSET 0)',
        'schedules', 'BELOW(schedules.scope)',
        'schedule_fires', 'EXISTS (SELECT FROM schedules s WHERE s.id = schedule_fires.schedule_id OFFSET 0)',
        'drift', 'EXISTS (SELECT FROM organizations o WHERE o.id = @here AND o.parent_id IS NULL OFFSET 0)',
        'unknown_sign_ins', 'false',
        'audit_events', 'BELOW(audit_events.organization_id)',
        'audit_unsealed', 'BELOW(audit_unsealed.organization_id)',
        'audit_seals', 'BELOW(audit_seals.organization_id)',
        'audit_heads', 'BELOW(audit_heads.organization_id)'
    );
    the_table text;
    rule text;
    all_is_seen_in text;
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'platform_api') THEN
        GRANT USAGE ON SCHEMA public TO platform_api;
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO platform_api;
        REVOKE DELETE ON organizations, users, database_servers, pools, templates FROM platform_api;
        REVOKE INSERT, UPDATE, DELETE ON drift FROM platform_api;
        -- The log is only ever added to.
        REVOKE UPDATE, DELETE ON audit_events, audit_seals FROM platform_api;
        REVOKE DELETE ON audit_heads FROM platform_api;
        REVOKE ALL ON seaql_migrations FROM platform_api;
        GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO platform_api;
        REVOKE EXECUTE ON FUNCTION enter_session, enter_api_key FROM PUBLIC;
        GRANT EXECUTE ON FUNCTION enter_session, enter_api_key TO platform_api;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'platform_worker') THEN
        GRANT USAGE ON SCHEMA public TO platform_worker;
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO platform_worker;
        -- Credentials and the log of who used them are none of the worker's business.
        REVOKE ALL ON users, memberships, sessions, refresh_tokens, signing_keys, idempotency_records, invitations,
            api_keys, audit_events, audit_unsealed, audit_seals, audit_heads, unknown_sign_ins, seaql_migrations
            FROM platform_worker;
        -- It opens what the api seals, and seals nothing.
        REVOKE ALL ON platform_secrets FROM platform_worker;
        REVOKE INSERT, UPDATE, DELETE ON data_keys FROM platform_worker;
        -- The api fires schedules; a worker may make and remove them.
        REVOKE INSERT, UPDATE, DELETE ON schedule_fires FROM platform_worker;
        GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO platform_worker;
    END IF;
    -- The second net below the stores' own filters: a statement of the api sees the rows of the organization that it, or
    -- its transaction, has entered, and of those below; none where it has entered none. The process's own work, which is
    -- for all, connects with `platform.scope` set to `system`. Who has entered the root has `root` there: all
    -- organizations are below it, so that no row's need be looked up.
    --
    -- A setting is read in a subquery of its own: once for a statement instead of once for a row. Whether a row is below
    -- is looked up for each row, which takes less than a microsecond: `OFFSET 0` keeps the planner from also weighing to
    -- read the whole subtree into a hash. Of a `CASE` it expects to keep half of all rows, where of a comparison with a
    -- setting it would expect next to none, and choose its plan by that.
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'platform_api') THEN
        FOR the_table, rule IN SELECT * FROM jsonb_each_text(rules) LOOP
            all_is_seen_in := CASE WHEN rule LIKE '%BELOW(%' THEN '''system'', ''root''' ELSE '''system''' END;
            rule := regexp_replace(rule, 'BELOW\(([a-z_.]+)\)',
                'EXISTS (SELECT FROM entered_organizations here WHERE here.organization_id = \1 OFFSET 0)');
            rule := replace(rule, '@here', '(SELECT nullif(current_setting(''platform.organization'', true), '''')::uuid)');
            rule := replace(rule, '@user', '(SELECT nullif(current_setting(''platform.user'', true), '''')::uuid)');
            EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', the_table);
            EXECUTE format('DROP POLICY IF EXISTS of_the_organization ON %I', the_table);
            EXECUTE format(
                'CREATE POLICY of_the_organization ON %I TO platform_api
                 USING (CASE WHEN (SELECT current_setting(''platform.scope'', true) IN (%s)) THEN true ELSE %s END)',
                the_table, all_is_seen_in, rule);
            EXECUTE format('DROP POLICY IF EXISTS all_of_them ON %I', the_table);
            IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'platform_worker') THEN
                EXECUTE format('CREATE POLICY all_of_them ON %I TO platform_worker USING (true)', the_table);
            END IF;
        END LOOP;
    END IF;
END
$grants$;
