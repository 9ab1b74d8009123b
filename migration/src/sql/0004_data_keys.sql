-- Data keys seal every stored secret; each is kept wrapped by a key-encryption provider (docs/decisions/0010).

CREATE TABLE data_keys (
    id uuid PRIMARY KEY,
    -- The provider's key that wraps it: a fingerprint of the master key, or an ARN.
    key_id text NOT NULL CHECK (key_id <> ''),
    wrapped bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    -- Since when a younger one seals. It still opens.
    retired_at timestamptz
);
-- One seals, however many processes make one at the same time.
CREATE UNIQUE INDEX data_keys_one_current ON data_keys ((retired_at IS NULL)) WHERE retired_at IS NULL;

-- Long-lived secrets of the platform itself, by name: `derivation` is what keys for other purposes are derived from.
CREATE TABLE platform_secrets (
    name text PRIMARY KEY,
    sealed bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
