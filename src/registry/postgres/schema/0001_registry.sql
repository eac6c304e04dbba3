-- The first schema, as SQLite has it. All numbers are bigint, so that the rows of both stores are
-- read by the same code.

-- Equal sets are stored once. They never change: a pin with another set refers to another row.
CREATE TABLE grant_sets (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest  bytea NOT NULL UNIQUE, -- SHA-256 over `entries`
    entries text  NOT NULL         -- JSON array of strings, as written
);

CREATE TABLE enrolments (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- in the order of enrolment
    fingerprint    bytea   NOT NULL UNIQUE CHECK (length(fingerprint) = 32),
    kind           bigint  NOT NULL, -- 0 leaf, 1 authority, 2 external
    name           text    NOT NULL,
    short_name     text    NOT NULL, -- the name's last segment
    serial         text    NOT NULL, -- lower-case hex
    issuer         bytea   CHECK (length(issuer) = 32),
    profile        text    NOT NULL,
    grants         bigint  REFERENCES grant_sets (id),
    not_before     bigint  NOT NULL, -- seconds since the Unix epoch, like all times here
    not_after      bigint  NOT NULL,
    pinned         boolean NOT NULL,
    revoked_at     bigint,
    revoked_reason bigint, -- RFC 5280 section 5.3.1
    revoked_by     text,
    created_at     bigint  NOT NULL,
    created_by     text    NOT NULL
);

CREATE INDEX enrolments_by_name ON enrolments (short_name);
CREATE INDEX enrolments_by_serial ON enrolments (ltrim(serial, '0'));
CREATE INDEX enrolments_revoked ON enrolments (issuer, revoked_at) WHERE revoked_at IS NOT NULL;

CREATE TABLE certificates (
    enrolment bigint PRIMARY KEY REFERENCES enrolments (id),
    der       bytea NOT NULL
);

-- The change feed.
CREATE TABLE changes (
    seq       bigint PRIMARY KEY,
    kind      bigint NOT NULL, -- 0 enrolled, 1 pinned, 2 unpinned, 3 regranted, 4 revoked, 5 shortened
    enrolment bigint NOT NULL REFERENCES enrolments (id),
    at        bigint NOT NULL
);

CREATE INDEX changes_by_enrolment ON changes (enrolment);

-- The newest number of the feed, in one row. Whoever writes locks it first: a number of a sequence
-- would be handed out before it is known which transaction commits first, or at all.
CREATE TABLE feed (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    newest   bigint  NOT NULL
);

INSERT INTO feed (newest) VALUES (0);

-- Live servers and how far each has come.
CREATE TABLE servers (
    name    text   PRIMARY KEY,
    applied bigint NOT NULL,
    beat_at bigint NOT NULL -- milliseconds since the Unix epoch, by the clock of the database
);
