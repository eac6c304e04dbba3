-- The first schema. What is bulky and rarely read (the certificate itself) is a table of its own:
-- a server reads all of `enrolments` when it starts.

-- Equal sets are stored once. They never change: a pin with another set refers to another row.
CREATE TABLE grant_sets (
    id      INTEGER PRIMARY KEY,
    digest  BLOB NOT NULL UNIQUE, -- SHA-256 over `entries`
    entries TEXT NOT NULL         -- JSON array of strings, as written
) STRICT;

CREATE TABLE enrolments (
    id             INTEGER PRIMARY KEY, -- in the order of enrolment; rows are never deleted
    fingerprint    BLOB    NOT NULL UNIQUE CHECK (length(fingerprint) = 32),
    kind           INTEGER NOT NULL, -- 0 leaf, 1 authority, 2 external
    name           TEXT    NOT NULL,
    short_name     TEXT    NOT NULL, -- the name's last segment
    serial         TEXT    NOT NULL, -- lower-case hex
    issuer         BLOB    CHECK (length(issuer) = 32),
    profile        TEXT    NOT NULL,
    grants         INTEGER REFERENCES grant_sets (id),
    not_before     INTEGER NOT NULL, -- seconds since the Unix epoch, like all times here
    not_after      INTEGER NOT NULL,
    pinned         INTEGER NOT NULL,
    revoked_at     INTEGER,
    revoked_reason INTEGER, -- RFC 5280 section 5.3.1
    revoked_by     TEXT,
    created_at     INTEGER NOT NULL,
    created_by     TEXT    NOT NULL
) STRICT;

CREATE INDEX enrolments_by_name ON enrolments (short_name);
CREATE INDEX enrolments_by_serial ON enrolments (ltrim(serial, '0'));
CREATE INDEX enrolments_revoked ON enrolments (issuer, revoked_at) WHERE revoked_at IS NOT NULL;

CREATE TABLE certificates (
    enrolment INTEGER PRIMARY KEY REFERENCES enrolments (id),
    der       BLOB NOT NULL
) STRICT;

-- The change feed. AUTOINCREMENT: a number is never used twice.
CREATE TABLE changes (
    seq       INTEGER PRIMARY KEY AUTOINCREMENT,
    kind      INTEGER NOT NULL, -- 0 enrolled, 1 pinned, 2 unpinned, 3 regranted, 4 revoked
    enrolment INTEGER NOT NULL REFERENCES enrolments (id),
    at        INTEGER NOT NULL
) STRICT;

CREATE INDEX changes_by_enrolment ON changes (enrolment);

-- Live servers and how far each has come.
CREATE TABLE servers (
    name    TEXT    PRIMARY KEY,
    applied INTEGER NOT NULL,
    beat_at INTEGER NOT NULL -- milliseconds since the Unix epoch
) STRICT;
