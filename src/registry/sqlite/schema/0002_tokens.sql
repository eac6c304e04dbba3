-- One-time tokens. The token itself is not here, and cannot be made from what is.
CREATE TABLE tokens (
    digest     BLOB    PRIMARY KEY CHECK (length(digest) = 32), -- SHA-256 over the secret
    name       TEXT    NOT NULL,
    grants     TEXT    NOT NULL, -- JSON array of strings, as written
    profile    TEXT    NOT NULL,
    hosts      TEXT    NOT NULL, -- JSON array of strings: DNS names and addresses
    lifetime   INTEGER,          -- seconds
    expires_at INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    created_by TEXT    NOT NULL,
    used_at    INTEGER,
    used_for   INTEGER REFERENCES enrolments (id) -- what it was used for
) STRICT;

CREATE INDEX tokens_by_end ON tokens (expires_at);
