//! Rows as records, of either database. What cannot be one was not written by this program, or a
//! disk has rotted.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sqlx::Row;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;

use super::record::{
    Change, ChangeKind, Enrolment, EnrolmentKind, Outline, Reason, Revocation, RevokedSerial,
};
use super::token::{Token, TokenDigest};
use crate::clock::UnixTime;
use crate::grant::WrittenGrants;
use crate::identity::{Fingerprint, Name};

/// A row, whatever database it is of: the columns have the same names and meanings in both.
pub(super) trait Fields {
    fn int(&self, column: &str) -> Result<i64, RowError>;
    fn maybe_int(&self, column: &str) -> Result<Option<i64>, RowError>;
    fn flag(&self, column: &str) -> Result<bool, RowError>;
    fn text(&self, column: &str) -> Result<&str, RowError>;
    fn maybe_text(&self, column: &str) -> Result<Option<&str>, RowError>;
    fn bytes(&self, column: &str) -> Result<&[u8], RowError>;
    fn maybe_bytes(&self, column: &str) -> Result<Option<&[u8]>, RowError>;
}

macro_rules! fields {
    ($row:ty, $($name:ident: $type:ty),+) => {
        impl Fields for $row {
            $(fn $name(&self, column: &str) -> Result<$type, RowError> {
                Ok(self.try_get(column)?)
            })+
        }
    };
    ($($row:ty)+) => {
        $(fields!($row, int: i64, maybe_int: Option<i64>, flag: bool, text: &str,
            maybe_text: Option<&str>, bytes: &[u8], maybe_bytes: Option<&[u8]>);)+
    };
}
fields!(SqliteRow PgRow);

/// What is wrong with a row.
#[derive(Debug, thiserror::Error)]
pub(super) enum RowError {
    #[error(transparent)]
    Column(#[from] sqlx::Error),
    #[error("`{value}` is not {what}")]
    Value { value: String, what: &'static str },
}

pub(super) fn wrong(value: impl ToString, what: &'static str) -> RowError {
    RowError::Value {
        value: value.to_string(),
        what,
    }
}

/// Written grants as the store keeps them.
pub(super) fn grants_to_text(grants: &WrittenGrants) -> String {
    let entries = grants
        .entries()
        .iter()
        .map(|entry| entry.to_string().into());
    serde_json::Value::Array(entries.collect()).to_string()
}

pub(super) fn grants_from_text(text: &str) -> Result<WrittenGrants, RowError> {
    let entries: Vec<String> =
        serde_json::from_str(text).map_err(|_| wrong(text, "a list of grants"))?;
    WrittenGrants::parse(&entries).map_err(|_| wrong(text, "a list of grants"))
}

fn fingerprint(row: &impl Fields, column: &str) -> Result<Fingerprint, RowError> {
    print_of(row.bytes(column)?)
}

fn print_of(bytes: &[u8]) -> Result<Fingerprint, RowError> {
    let bytes = bytes
        .try_into()
        .map_err(|_| wrong(hex::encode(bytes), "a fingerprint"))?;
    Ok(Fingerprint::from_bytes(bytes))
}

pub(super) fn name(text: &str) -> Result<Name, RowError> {
    Name::new(text).map_err(|_| wrong(text.escape_debug(), "a name"))
}

fn seq(number: i64) -> Result<u64, RowError> {
    u64::try_from(number).map_err(|_| wrong(number, "the number of a change"))
}

pub(super) fn time(row: &impl Fields, column: &str) -> Result<UnixTime, RowError> {
    Ok(UnixTime(row.int(column)?))
}

fn revocation(row: &impl Fields) -> Result<Option<Revocation>, RowError> {
    let Some(at) = row.maybe_int("revoked_at")? else {
        return Ok(None);
    };
    let code = row.int("revoked_reason")?;
    let reason = Reason::from_code(code).ok_or_else(|| wrong(code, "a reason of RFC 5280"))?;
    Ok(Some(Revocation {
        at: UnixTime(at),
        reason,
        by: row.text("revoked_by")?.to_owned(),
    }))
}

/// A row with all columns of an enrolment, the text of its grants as `entries`, and its `der`.
pub(super) fn enrolment(row: &impl Fields) -> Result<Enrolment, RowError> {
    let code = row.int("kind")?;
    let issuer = row.maybe_bytes("issuer")?;
    let grants = row.maybe_text("entries")?;
    Ok(Enrolment {
        fingerprint: fingerprint(row, "fingerprint")?,
        kind: EnrolmentKind::from_code(code).ok_or_else(|| wrong(code, "a kind of enrolment"))?,
        name: name(row.text("name")?)?,
        serial: row.text("serial")?.to_owned(),
        issuer: issuer.map(print_of).transpose()?,
        profile: row.text("profile")?.to_owned(),
        grants: grants.map(grants_from_text).transpose()?,
        not_before: time(row, "not_before")?,
        not_after: time(row, "not_after")?,
        pinned: row.flag("pinned")?,
        revocation: revocation(row)?,
        created_at: time(row, "created_at")?,
        created_by: row.text("created_by")?.to_owned(),
        der: row.bytes("der")?.to_vec(),
    })
}

pub(super) fn change(row: &impl Fields) -> Result<Change, RowError> {
    let code = row.int("kind")?;
    Ok(Change {
        seq: seq(row.int("seq")?)?,
        kind: ChangeKind::from_code(code).ok_or_else(|| wrong(code, "a kind of change"))?,
        fingerprint: fingerprint(row, "fingerprint")?,
    })
}

pub(super) fn revoked_serial(row: &impl Fields) -> Result<RevokedSerial, RowError> {
    let revocation = revocation(row)?.ok_or_else(|| wrong("NULL", "the time of a revocation"))?;
    Ok(RevokedSerial {
        serial: row.text("serial")?.to_owned(),
        not_after: time(row, "not_after")?,
        revocation,
    })
}

/// Reads outlines that the database has joined into one text, a line each. A row by itself costs
/// several allocations and, with SQLite, two hops between threads; a million of them would take most
/// of the time of a start.
pub(super) fn outlines(text: &str) -> Result<Vec<Outline>, RowError> {
    let mut sets = HashMap::new();
    text.lines().map(|line| outline(line, &mut sets)).collect()
}

fn outline<'a>(
    line: &'a str,
    sets: &mut HashMap<&'a str, Arc<WrittenGrants>>,
) -> Result<Outline, RowError> {
    let mut fields = line.split('\t');
    let mut field = || {
        fields
            .next()
            .ok_or_else(|| wrong(line.escape_debug(), "an enrolment"))
    };
    let (print, kind, not_after) = (field()?, number(field()?)?, number(field()?)?);
    let (pinned, revoked) = (field()? == "1", field()? == "1");
    let (entries, name_text) = (field()?, field()?);
    let grants = match (entries, sets.get(entries)) {
        ("", _) => None,
        (_, Some(known)) => Some(Arc::clone(known)),
        (_, None) => {
            let set = Arc::new(grants_from_text(entries)?);
            sets.insert(entries, Arc::clone(&set));
            Some(set)
        }
    };
    Ok(Outline {
        fingerprint: print.parse().map_err(|_| wrong(print, "a fingerprint"))?,
        kind: EnrolmentKind::from_code(kind).ok_or_else(|| wrong(kind, "a kind of enrolment"))?,
        name: name(name_text)?,
        grants,
        not_after: UnixTime(not_after),
        pinned,
        revoked,
    })
}

fn number(text: &str) -> Result<i64, RowError> {
    text.parse().map_err(|_| wrong(text, "a number"))
}

pub(super) fn token(digest: TokenDigest, row: &impl Fields) -> Result<Token, RowError> {
    let hosts = row.text("hosts")?;
    let seconds = |value: i64| {
        u64::try_from(value)
            .map(Duration::from_secs)
            .map_err(|_| wrong(value, "a lifetime"))
    };
    Ok(Token {
        digest,
        name: name(row.text("name")?)?,
        grants: grants_from_text(row.text("grants")?)?,
        profile: row.text("profile")?.to_owned(),
        hosts: serde_json::from_str(hosts).map_err(|_| wrong(hosts, "a list of hosts"))?,
        lifetime: row.maybe_int("lifetime")?.map(seconds).transpose()?,
        expires_at: time(row, "expires_at")?,
        created_at: time(row, "created_at")?,
        created_by: row.text("created_by")?.to_owned(),
        used_at: row.maybe_int("used_at")?.map(UnixTime),
    })
}

/// The lifetime of a token's certificate as it is stored.
pub(super) fn seconds(lifetime: Option<Duration>) -> Option<i64> {
    lifetime.map(|lifetime| i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX))
}

/// Both databases count to 2^63: what is beyond is beyond every number they hold.
pub(super) fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
