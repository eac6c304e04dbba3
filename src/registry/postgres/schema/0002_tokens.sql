-- One-time tokens. The token itself is not here, and cannot be made from what is.
CREATE TABLE tokens (
    digest     bytea   PRIMARY KEY CHECK (length(digest) = 32), -- SHA-256 over the secret
    name       text    NOT NULL,
    grants     text    NOT NULL, -- JSON array of strings, as written
    profile    text    NOT NULL,
    hosts      text    NOT NULL, -- JSON array of strings: DNS names and addresses
    lifetime   bigint,           -- seconds
    expires_at bigint  NOT NULL,
    created_at bigint  NOT NULL,
    created_by text    NOT NULL,
    used_at    bigint,
    used_for   bigint  REFERENCES enrolments (id) -- what it was used for
);

CREATE INDEX tokens_by_end ON tokens (expires_at);
