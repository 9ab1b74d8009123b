-- What the reconciler found outside and could not, or may not, repair: a row for each thing, as long as it is there. It
-- has no reference to its target, which may be what is gone.

CREATE TABLE drift (
    id uuid PRIMARY KEY,
    kind text NOT NULL,
    -- The name of the database, role, folder, host or container.
    subject text NOT NULL,
    target_type text,
    target_id uuid,
    -- For the platform's operator.
    detail text NOT NULL,
    first_seen_at timestamptz NOT NULL DEFAULT now(),
    last_seen_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (kind, subject),
    CHECK ((target_type IS NULL) = (target_id IS NULL))
);
