-- The control plane's first tables. Ids are UUIDv7; the text form with its prefix exists only outside the database.

CREATE TABLE organizations (
    id uuid PRIMARY KEY,
    parent_id uuid REFERENCES organizations,
    name text NOT NULL CHECK (name <> ''),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
-- One root: the platform's operator.
CREATE UNIQUE INDEX organizations_one_root ON organizations ((parent_id IS NULL)) WHERE parent_id IS NULL;

-- Rights flow down the tree, so every scoped query asks "is this one my descendant?": one primary key look-up.
CREATE TABLE organization_ancestors (
    organization_id uuid NOT NULL REFERENCES organizations ON DELETE CASCADE,
    ancestor_id uuid NOT NULL REFERENCES organizations,
    PRIMARY KEY (organization_id, ancestor_id)
);
CREATE INDEX organization_ancestors_down ON organization_ancestors (ancestor_id, organization_id);

CREATE TABLE users (
    id uuid PRIMARY KEY,
    email text NOT NULL,
    name text NOT NULL,
    password_hash text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX users_email ON users (lower(email));

CREATE TABLE memberships (
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    organization_id uuid NOT NULL REFERENCES organizations ON DELETE CASCADE,
    role text NOT NULL CHECK (role IN ('owner', 'admin', 'viewer')),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, organization_id)
);
CREATE INDEX memberships_organization ON memberships (organization_id);

CREATE TABLE sessions (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    organization_id uuid NOT NULL REFERENCES organizations ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    ended_at timestamptz
);
CREATE INDEX sessions_user ON sessions (user_id) WHERE ended_at IS NULL;

CREATE TABLE refresh_tokens (
    token_hash bytea PRIMARY KEY,
    session_id uuid NOT NULL REFERENCES sessions ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    used_at timestamptz
);
CREATE INDEX refresh_tokens_session ON refresh_tokens (session_id);

CREATE TABLE signing_keys (
    kid text PRIMARY KEY,
    public_key bytea NOT NULL,
    private_key_sealed bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    signs_until timestamptz,
    verifies_until timestamptz
);

-- A secret on its way to a job. No reference to the operation: its erasure is the job's, its leftovers a sweep's.
CREATE TABLE sealed_secrets (
    operation_id uuid PRIMARY KEY,
    sealed bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE idempotency_records (
    credential_id uuid NOT NULL,
    key text NOT NULL,
    request_hash bytea NOT NULL,
    answer jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (credential_id, key)
);
CREATE INDEX idempotency_records_age ON idempotency_records (created_at);

CREATE TABLE database_servers (
    id uuid PRIMARY KEY,
    name text NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE pools (
    id uuid PRIMARY KEY,
    database_server_id uuid NOT NULL REFERENCES database_servers,
    odoo_version text NOT NULL,
    isolation text NOT NULL CHECK (isolation IN ('shared', 'dedicated')),
    status text NOT NULL CHECK (status IN ('preparing', 'ready', 'failed')),
    capacity integer NOT NULL CHECK (capacity > 0),
    tenants integer NOT NULL DEFAULT 0 CHECK (tenants >= 0 AND tenants <= capacity),
    web_port integer UNIQUE,
    gevent_port integer UNIQUE,
    keys_sealed bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE templates (
    id uuid PRIMARY KEY,
    database_server_id uuid NOT NULL REFERENCES database_servers,
    odoo_version text NOT NULL,
    -- Named by the worker, which knows the image that it is built from.
    database_name text UNIQUE CHECK (database_name IS NOT NULL OR status <> 'ready'),
    modules jsonb NOT NULL,
    languages jsonb NOT NULL DEFAULT '["en_US"]',
    status text NOT NULL CHECK (status IN ('preparing', 'ready', 'failed')),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE tenants (
    id uuid PRIMARY KEY,
    organization_id uuid NOT NULL REFERENCES organizations,
    slug text NOT NULL UNIQUE,
    name text NOT NULL,
    status text NOT NULL CHECK (status IN ('provisioning', 'active', 'suspended', 'maintenance', 'failed', 'deleting')),
    status_reason text,
    odoo_version text NOT NULL,
    isolation text NOT NULL CHECK (isolation IN ('shared', 'dedicated')),
    pool_id uuid NOT NULL REFERENCES pools,
    database_server_id uuid NOT NULL REFERENCES database_servers,
    template_id uuid NOT NULL REFERENCES templates,
    admin_login text NOT NULL,
    language text,
    country text,
    labels jsonb NOT NULL DEFAULT '{}',
    protected boolean NOT NULL DEFAULT false,
    revision bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX tenants_organization ON tenants (organization_id, id DESC);
CREATE INDEX tenants_pool ON tenants (pool_id);
