-- Organizations, members, invitations, API keys, and the audit log.

ALTER TABLE organizations
    ADD COLUMN revision bigint NOT NULL DEFAULT 1,
    -- The row stays, and with it the tree: who could read an organization can read what its operations and its audit log
    -- say. Nothing else of it does.
    ADD COLUMN deleted_at timestamptz;
CREATE INDEX organizations_parent ON organizations (parent_id) WHERE deleted_at IS NULL;

ALTER TABLE users ADD COLUMN revision bigint NOT NULL DEFAULT 1;
ALTER TABLE memberships
    ADD COLUMN revision bigint NOT NULL DEFAULT 1,
    -- Sorts and pages a list, since a membership has no id of its own.
    ADD COLUMN position uuid NOT NULL DEFAULT gen_random_uuid() UNIQUE,
    ADD UNIQUE (user_id, organization_id, role);

ALTER TABLE sessions
    ADD COLUMN address text,
    ADD COLUMN user_agent text,
    ADD COLUMN refreshed_at timestamptz NOT NULL DEFAULT now(),
    -- The member's role now, null once the session has ended. Whoever changes a membership or removes it changes this by
    -- it, whether the program that does so knows of it or not: each request looks at a session alone.
    ADD COLUMN role text,
    ADD FOREIGN KEY (user_id, organization_id, role) REFERENCES memberships (user_id, organization_id, role)
        ON UPDATE CASCADE ON DELETE CASCADE;
UPDATE sessions SET role = m.role FROM memberships m
 WHERE m.user_id = sessions.user_id AND m.organization_id = sessions.organization_id AND sessions.ended_at IS NULL;
CREATE INDEX sessions_member ON sessions (user_id, organization_id) WHERE role IS NOT NULL;
-- By which old ones are found.
CREATE INDEX sessions_expiry ON sessions (expires_at);
CREATE INDEX refresh_tokens_expiry ON refresh_tokens (expires_at);

CREATE TABLE invitations (
    id uuid PRIMARY KEY,
    organization_id uuid NOT NULL REFERENCES organizations ON DELETE CASCADE,
    email text NOT NULL,
    role text NOT NULL CHECK (role IN ('owner', 'admin', 'viewer')),
    token_hash bytea NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    accepted_at timestamptz,
    accepted_by uuid REFERENCES users,
    revision bigint NOT NULL DEFAULT 1,
    CHECK ((accepted_at IS NULL) = (accepted_by IS NULL))
);
CREATE INDEX invitations_organization ON invitations (organization_id, id DESC);
-- One that can be accepted for an address and an organization.
CREATE UNIQUE INDEX invitations_open ON invitations (organization_id, lower(email)) WHERE accepted_at IS NULL;

CREATE TABLE api_keys (
    id uuid PRIMARY KEY,
    organization_id uuid NOT NULL REFERENCES organizations ON DELETE CASCADE,
    name text NOT NULL,
    role text NOT NULL CHECK (role IN ('owner', 'admin', 'viewer')),
    -- The beginning of the present secret, by which people tell keys apart.
    prefix text NOT NULL,
    secret_hash bytea NOT NULL UNIQUE,
    -- The secret before the last rotation, as long as it is good.
    previous_hash bytea UNIQUE,
    previous_until timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    rotated_at timestamptz,
    expires_at timestamptz,
    last_used_at timestamptz,
    revision bigint NOT NULL DEFAULT 1,
    CHECK ((previous_hash IS NULL) = (previous_until IS NULL))
);
CREATE INDEX api_keys_organization ON api_keys (organization_id, id DESC);

-- What was done, and by whom. Written in the transaction of what it records, never changed.
CREATE TABLE audit_events (
    id uuid PRIMARY KEY,
    -- Whose log: the organization that owns the target. No reference, since the log outlives everything.
    organization_id uuid NOT NULL,
    occurred_at timestamptz NOT NULL,
    action text NOT NULL,
    outcome text NOT NULL CHECK (outcome IN ('succeeded', 'refused')),
    reason text,
    actor_type text NOT NULL CHECK (actor_type IN ('user', 'api_key', 'nobody', 'platform')),
    actor_id uuid,
    actor_name text,
    actor_organization_id uuid,
    target_type text,
    target_id uuid,
    before jsonb,
    after jsonb,
    address text,
    request_id text,
    CHECK ((outcome = 'refused') = (reason IS NOT NULL)),
    CHECK ((target_type IS NULL) = (target_id IS NULL))
);
CREATE INDEX audit_events_organization ON audit_events (organization_id, id DESC);
CREATE INDEX audit_events_actor ON audit_events (actor_id, id DESC);
CREATE INDEX audit_events_target ON audit_events (target_id, id DESC);

-- Events that are in no chain yet.
CREATE TABLE audit_unsealed (
    event_id uuid PRIMARY KEY,
    organization_id uuid NOT NULL
);

-- Each organization's chain. A seal's hash covers its event and the hash before it; `mac` proves with a key outside the
-- database that the platform made it.
CREATE TABLE audit_seals (
    organization_id uuid NOT NULL,
    sequence bigint NOT NULL,
    event_id uuid NOT NULL UNIQUE,
    hash bytea NOT NULL,
    mac bytea NOT NULL,
    PRIMARY KEY (organization_id, sequence)
);

-- Where each chain ends, so that a missing end is seen.
CREATE TABLE audit_heads (
    organization_id uuid PRIMARY KEY,
    sequence bigint NOT NULL,
    hash bytea NOT NULL,
    mac bytea NOT NULL
);

-- Sign-ins to accounts that do not exist: a number for each address and minute.
CREATE TABLE unknown_sign_ins (
    address text NOT NULL,
    minute timestamptz NOT NULL,
    attempts bigint NOT NULL,
    PRIMARY KEY (address, minute)
);

-- Checks a session and enters its organization: what the statement, or the transaction, then reads as the api's role is
-- that organization's and what is below. Answers the member's present role. Null: the session has ended or its member was
-- removed; nothing is entered. As its owner, since nothing is entered yet when it looks; all that it names, it names with
-- its schema. `the_root` is the organization that all others are below.
CREATE FUNCTION enter_session(the_session uuid, the_root uuid) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER AS $$
DECLARE
    its_role text;
    its_organization uuid;
    its_user text;
    entered text;
BEGIN
    SELECT s.role, s.organization_id, s.user_id
      INTO its_role, its_organization, its_user
      FROM public.sessions s
     WHERE s.id = the_session AND s.ended_at IS NULL AND s.role IS NOT NULL AND s.expires_at > pg_catalog.now();
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    entered := pg_catalog.set_config('platform.organization', its_organization::text, true);
    entered := pg_catalog.set_config('platform.user', its_user, true);
    IF its_organization = the_root THEN
        entered := pg_catalog.set_config('platform.scope', 'root', true);
    END IF;
    RETURN its_role;
END
$$;

-- The same for the secret of an API key, by its hash.
CREATE FUNCTION enter_api_key(the_hash bytea, the_root uuid) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER AS $$
DECLARE
    its_role text;
    its_organization uuid;
    entered text;
BEGIN
    SELECT k.role, k.organization_id
      INTO its_role, its_organization
      FROM public.api_keys k
     WHERE (k.secret_hash = the_hash OR (k.previous_hash = the_hash AND k.previous_until > pg_catalog.now()))
       AND (k.expires_at IS NULL OR k.expires_at > pg_catalog.now());
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    entered := pg_catalog.set_config('platform.organization', its_organization::text, true);
    IF its_organization = the_root THEN
        entered := pg_catalog.set_config('platform.scope', 'root', true);
    END IF;
    RETURN its_role;
END
$$;

-- The average organization has hardly any below it, so a plan for whoever asks would be a bad one for those who ask most.
-- To the planner each has a twentieth of all: such a plan is dear then, and it goes on planning for each by its own figures.
ALTER TABLE organization_ancestors ALTER COLUMN ancestor_id SET (n_distinct = 20);

-- The organization that was entered and those below it. As its owner, so that looking here asks no policy again.
CREATE VIEW entered_organizations AS
SELECT organization_id FROM organization_ancestors
 WHERE ancestor_id = (SELECT nullif(current_setting('platform.organization', true), '')::uuid);
