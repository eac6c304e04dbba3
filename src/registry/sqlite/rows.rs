//! Rows as records. What cannot be one was not written by this program, or a disk has rotted.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::super::record::{
    Change, ChangeKind, Enrolment, EnrolmentKind, Outline, Reason, Revocation, RevokedSerial,
};
use crate::clock::UnixTime;
use crate::grant::WrittenGrants;
use crate::identity::{Fingerprint, Name};

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

fn fingerprint(row: &SqliteRow, column: &str) -> Result<Fingerprint, RowError> {
    print_of(row.try_get(column)?)
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

pub(super) fn time(row: &SqliteRow, column: &str) -> Result<UnixTime, RowError> {
    Ok(UnixTime(row.try_get(column)?))
}

fn revocation(row: &SqliteRow) -> Result<Option<Revocation>, RowError> {
    let Some(at) = row.try_get::<Option<i64>, _>("revoked_at")? else {
        return Ok(None);
    };
    let code: i64 = row.try_get("revoked_reason")?;
    let reason = Reason::from_code(code).ok_or_else(|| wrong(code, "a reason of RFC 5280"))?;
    Ok(Some(Revocation {
        at: UnixTime(at),
        reason,
        by: row.try_get("revoked_by")?,
    }))
}

/// A row of [`super::reader`]'s `select!`.
pub(super) fn enrolment(row: &SqliteRow) -> Result<Enrolment, RowError> {
    let code: i64 = row.try_get("kind")?;
    let issuer: Option<&[u8]> = row.try_get("issuer")?;
    let grants: Option<&str> = row.try_get("entries")?;
    Ok(Enrolment {
        fingerprint: fingerprint(row, "fingerprint")?,
        kind: EnrolmentKind::from_code(code).ok_or_else(|| wrong(code, "a kind of enrolment"))?,
        name: name(row.try_get("name")?)?,
        serial: row.try_get("serial")?,
        issuer: issuer.map(print_of).transpose()?,
        profile: row.try_get("profile")?,
        grants: grants.map(grants_from_text).transpose()?,
        not_before: time(row, "not_before")?,
        not_after: time(row, "not_after")?,
        pinned: row.try_get("pinned")?,
        revocation: revocation(row)?,
        created_at: time(row, "created_at")?,
        created_by: row.try_get("created_by")?,
        der: row.try_get("der")?,
    })
}

pub(super) fn change(row: &SqliteRow) -> Result<Change, RowError> {
    let code: i64 = row.try_get("kind")?;
    Ok(Change {
        seq: seq(row.try_get("seq")?)?,
        kind: ChangeKind::from_code(code).ok_or_else(|| wrong(code, "a kind of change"))?,
        fingerprint: fingerprint(row, "fingerprint")?,
    })
}

pub(super) fn revoked_serial(row: &SqliteRow) -> Result<RevokedSerial, RowError> {
    let revocation = revocation(row)?.ok_or_else(|| wrong("NULL", "the time of a revocation"))?;
    Ok(RevokedSerial {
        serial: row.try_get("serial")?,
        not_after: time(row, "not_after")?,
        revocation,
    })
}

/// Reads outlines that SQLite has joined into one text, a line each (see `OUTLINES`). A row by
/// itself costs several allocations and two hops between threads; a million of them would take
/// most of the time of a start.
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
