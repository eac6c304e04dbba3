//! Everything that is asked of the database. Each question is one or a few statements on indices;
//! none reads the whole registry but `page`, a stretch at a time.

use std::time::Duration;

use sqlx::postgres::{PgArguments, PgPool, PgPoolOptions, PgRow};
use sqlx::query::{Query, QueryScalar};
use sqlx::{Postgres, Row};

use super::super::key::Key;
use super::super::record::{Change, Enrolment, Outline, Page, RevokedSerial};
use super::super::rows::{self, RowError, whole};
use super::super::store::StoreError;
use super::database::Database;
use super::statement::{millis, now_ms};
use crate::clock::UnixTime;
use crate::identity::Fingerprint;

/// A registry is asked little, and a fleet shares the connections of one database.
const CONNECTIONS: u32 = 3;
/// What [`Reader::named`] answers with at most.
const NAMED: i64 = 1000;

/// An enrolment's columns, from `FROM` on as the caller says.
macro_rules! select {
    (with der, $rest:literal) => {
        concat!(select!(@columns), ", c.der", select!(@from),
            " LEFT JOIN certificates c ON c.enrolment = e.id ", $rest)
    };
    (without der, $rest:literal) => {
        concat!(select!(@columns), ", ''::bytea AS der", select!(@from), $rest)
    };
    (@columns) => {
        "SELECT e.fingerprint, e.kind, e.name, e.serial, e.issuer, e.profile, g.entries, \
         e.not_before, e.not_after, e.pinned, e.revoked_at, e.revoked_reason, e.revoked_by, \
         e.created_at, e.created_by"
    };
    (@from) => { " FROM enrolments e LEFT JOIN grant_sets g ON g.id = e.grants " };
}

/// Joins the outlines of the chosen rows into one text: a line each, a tab between the fields. No
/// field can hold either: names have no control characters, and JSON escapes them.
macro_rules! outlines {
    ($chosen:literal) => {
        concat!(
            "SELECT max(e.id) AS last, string_agg(
                 encode(e.fingerprint, 'hex') || E'\\t' || e.kind || E'\\t' || e.not_after ||
                 E'\\t' || e.pinned::int || E'\\t' || (e.revoked_at IS NOT NULL)::int || E'\\t' ||
                 coalesce(g.entries, '') || E'\\t' || e.name, E'\\n' ORDER BY e.id) AS lines
             FROM (",
            $chosen,
            ") e LEFT JOIN grant_sets g ON g.id = e.grants"
        )
    };
}

/// The connections that only read.
pub(super) struct Reader {
    pub(super) database: Database,
    pub(super) pool: PgPool,
}

impl Reader {
    /// Connects when it is first asked.
    pub fn new(database: &Database) -> Self {
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .min_connections(0)
            .acquire_timeout(Duration::from_secs(5))
            .idle_timeout(Duration::from_secs(60))
            .connect_lazy_with(database.options.clone());
        Self {
            database: database.clone(),
            pool,
        }
    }

    pub async fn get(&self, fingerprint: Fingerprint) -> Result<Option<Enrolment>, StoreError> {
        let row = sqlx::query(select!(with der, "WHERE e.fingerprint = $1"))
            .bind(&fingerprint.as_bytes()[..])
            .fetch_optional(&self.pool)
            .await
            .map_err(|error| self.database.failed(error))?;
        row.as_ref()
            .map(|row| self.read(rows::enrolment(row)))
            .transpose()
    }

    pub async fn find(&self, text: &str, now: UnixTime) -> Result<Enrolment, StoreError> {
        let key = Key::read(text);
        let mut ids = self.ids_by_name(&key, now).await?;
        if let Some(serial) = &key.serial {
            let by_serial = "SELECT id FROM enrolments WHERE ltrim(serial, '0') = $1 LIMIT 2";
            ids.extend(self.ids(sqlx::query_scalar(by_serial).bind(serial)).await?);
        }
        if let Some((first, last)) = &key.prints {
            let by_print = "SELECT id FROM enrolments WHERE fingerprint BETWEEN $1 AND $2 LIMIT 2";
            let query = sqlx::query_scalar(by_print)
                .bind(&first[..])
                .bind(&last[..]);
            ids.extend(self.ids(query).await?);
        }
        ids.sort_unstable();
        ids.dedup();
        match ids[..] {
            [] => Err(StoreError::NotFound(text.to_owned())),
            [id] => self
                .by_id(id)
                .await?
                .ok_or_else(|| StoreError::NotFound(text.to_owned())),
            _ => Err(StoreError::Ambiguous(text.to_owned())),
        }
    }

    /// The live ones; when there is none, the newest of each whole name. At most two.
    async fn ids_by_name(&self, key: &Key<'_>, now: UnixTime) -> Result<Vec<i64>, StoreError> {
        let live = sqlx::query_scalar(
            "SELECT id FROM enrolments WHERE short_name = $1 AND ($2::text IS NULL OR name = $2)
             AND revoked_at IS NULL AND not_after >= $3 LIMIT 2",
        );
        let found = self
            .ids(live.bind(key.short).bind(key.whole).bind(now.0))
            .await?;
        if !found.is_empty() {
            return Ok(found);
        }
        let any = sqlx::query_scalar(
            "SELECT max(id) FROM enrolments WHERE short_name = $1 AND ($2::text IS NULL OR name = $2)
             GROUP BY name LIMIT 2",
        );
        self.ids(any.bind(key.short).bind(key.whole)).await
    }

    async fn ids<'q>(
        &self,
        query: QueryScalar<'q, Postgres, i64, PgArguments>,
    ) -> Result<Vec<i64>, StoreError> {
        query
            .fetch_all(&self.pool)
            .await
            .map_err(|error| self.database.failed(error))
    }

    async fn by_id(&self, id: i64) -> Result<Option<Enrolment>, StoreError> {
        let row = sqlx::query(select!(with der, "WHERE e.id = $1"))
            .bind(id)
            .fetch_optional(&self.pool)
            .await
            .map_err(|error| self.database.failed(error))?;
        row.as_ref()
            .map(|row| self.read(rows::enrolment(row)))
            .transpose()
    }

    pub async fn named(&self, name: &str, now: UnixTime) -> Result<Vec<Enrolment>, StoreError> {
        let key = Key::read(name);
        let query = sqlx::query(select!(without der,
            "WHERE e.short_name = $1 AND ($2::text IS NULL OR e.name = $2) AND e.revoked_at IS NULL \
             AND e.not_after >= $3 ORDER BY e.id DESC LIMIT $4"
        ));
        let query = query
            .bind(key.short)
            .bind(key.whole)
            .bind(now.0)
            .bind(NAMED);
        self.all(query, rows::enrolment).await
    }

    pub async fn list(
        &self,
        after: Option<Fingerprint>,
        limit: u32,
    ) -> Result<Vec<Enrolment>, StoreError> {
        let before = match after {
            None => i64::MAX,
            Some(print) => self.id_of(print).await?,
        };
        let query =
            sqlx::query(select!(without der, "WHERE e.id < $1 ORDER BY e.id DESC LIMIT $2"));
        self.all(query.bind(before).bind(i64::from(limit)), rows::enrolment)
            .await
    }

    async fn id_of(&self, print: Fingerprint) -> Result<i64, StoreError> {
        sqlx::query_scalar("SELECT id FROM enrolments WHERE fingerprint = $1")
            .bind(&print.as_bytes()[..])
            .fetch_optional(&self.pool)
            .await
            .map_err(|error| self.database.failed(error))?
            .ok_or_else(|| StoreError::NotFound(print.to_string()))
    }

    pub async fn revoked(
        &self,
        issuer: Fingerprint,
        ending: UnixTime,
    ) -> Result<Vec<RevokedSerial>, StoreError> {
        let query = sqlx::query(
            "SELECT serial, not_after, revoked_at, revoked_reason, revoked_by FROM enrolments
             WHERE issuer = $1 AND revoked_at IS NOT NULL AND not_after >= $2
             ORDER BY revoked_at, id",
        );
        let query = query.bind(&issuer.as_bytes()[..]).bind(ending.0);
        self.all(query, rows::revoked_serial).await
    }

    pub async fn page(&self, from: u64, limit: u32, ending: UnixTime) -> Result<Page, StoreError> {
        let row = sqlx::query(outlines!(
            "SELECT * FROM enrolments WHERE id >= $1 AND (not_after >= $2 OR revoked_at IS NOT NULL)
             ORDER BY id LIMIT $3"
        ));
        let row = row.bind(whole(from)).bind(ending.0).bind(i64::from(limit));
        let row = row
            .fetch_one(&self.pool)
            .await
            .map_err(|error| self.database.failed(error))?;
        let (last, outlines) = self.read(joined(&row))?;
        let more = outlines.len() >= limit as usize;
        let next = last
            .filter(|_| more)
            .and_then(|last| u64::try_from(last + 1).ok());
        Ok(Page { outlines, next })
    }

    pub async fn touched(&self, after: u64, upto: u64) -> Result<Vec<Outline>, StoreError> {
        let row = sqlx::query(outlines!(
            "SELECT * FROM enrolments WHERE id IN
             (SELECT enrolment FROM changes WHERE seq > $1 AND seq <= $2)"
        ));
        let row = row.bind(whole(after)).bind(whole(upto));
        let row = row
            .fetch_one(&self.pool)
            .await
            .map_err(|error| self.database.failed(error))?;
        Ok(self.read(joined(&row))?.1)
    }

    pub async fn changes(&self, after: u64, limit: u32) -> Result<Vec<Change>, StoreError> {
        let query = sqlx::query(
            "SELECT c.seq, c.kind, e.fingerprint FROM changes c
             JOIN enrolments e ON e.id = c.enrolment WHERE c.seq > $1 ORDER BY c.seq LIMIT $2",
        );
        self.all(
            query.bind(whole(after)).bind(i64::from(limit)),
            rows::change,
        )
        .await
    }

    pub async fn newest(&self) -> Result<u64, StoreError> {
        let seq: i64 = sqlx::query_scalar("SELECT newest FROM feed")
            .fetch_one(&self.pool)
            .await
            .map_err(|error| self.database.failed(error))?;
        u64::try_from(seq).map_err(|_| self.database.corrupt("a change with a negative number"))
    }

    /// The servers whose last heartbeat is not older than `age`, and what each has applied.
    pub async fn servers(&self, age: Duration) -> Result<Vec<(String, i64)>, StoreError> {
        sqlx::query_as(concat!(
            "SELECT name, applied FROM servers WHERE beat_at > ",
            now_ms!(),
            " - $1 ORDER BY name COLLATE \"C\""
        ))
        .bind(millis(age))
        .fetch_all(&self.pool)
        .await
        .map_err(|error| self.database.failed(error))
    }

    async fn all<'q, T>(
        &self,
        query: Query<'q, Postgres, PgArguments>,
        read: impl Fn(&PgRow) -> Result<T, RowError>,
    ) -> Result<Vec<T>, StoreError> {
        let rows = query
            .fetch_all(&self.pool)
            .await
            .map_err(|error| self.database.failed(error))?;
        self.read(rows.iter().map(read).collect())
    }

    pub(super) fn read<T>(&self, result: Result<T, RowError>) -> Result<T, StoreError> {
        result.map_err(|error| self.database.corrupt(error.to_string()))
    }
}

fn joined(row: &PgRow) -> Result<(Option<i64>, Vec<Outline>), RowError> {
    let lines: Option<&str> = row.try_get("lines")?;
    Ok((
        row.try_get("last")?,
        rows::outlines(lines.unwrap_or_default())?,
    ))
}
