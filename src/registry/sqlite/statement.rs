//! Everything that changes the database, inside a transaction that the writer began. A request that
//! is refused has written nothing by then, so the others of the transaction stand.

use ring::digest;
use sqlx::{Row, SqliteConnection};

use super::super::record::{ChangeKind, Enrolment, Revocation};
use super::super::store::{FORGET_SERVER_AFTER, PRUNED_AT_ONCE, StoreError};
use super::file::Place;
use crate::clock::{self, UnixTime};
use crate::identity::Fingerprint;

/// One transaction's hands.
pub(super) struct Statements<'a> {
    pub place: &'a Place,
    pub connection: &'a mut SqliteConnection,
}

/// As much of an enrolment as a change of it needs to know.
struct Present {
    id: i64,
    pinned: bool,
    revoked: bool,
    grants: Option<i64>,
}

impl Statements<'_> {
    pub async fn enrol(
        &mut self,
        enrolment: &Enrolment,
        grants: Option<&str>,
    ) -> Result<u64, StoreError> {
        if self.present(enrolment.fingerprint).await?.is_some() {
            return Err(StoreError::Exists(enrolment.fingerprint));
        }
        let set = self.grant_set(grants).await?;
        let revocation = enrolment.revocation.as_ref();
        let id = sqlx::query(
            "INSERT INTO enrolments (fingerprint, kind, name, short_name, serial, issuer, profile,
             grants, not_before, not_after, pinned, revoked_at, revoked_reason, revoked_by,
             created_at, created_by)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
        )
        .bind(&enrolment.fingerprint.as_bytes()[..])
        .bind(enrolment.kind.code())
        .bind(enrolment.name.as_str())
        .bind(enrolment.name.short())
        .bind(&enrolment.serial)
        .bind(
            enrolment
                .issuer
                .as_ref()
                .map(|issuer| &issuer.as_bytes()[..]),
        )
        .bind(&enrolment.profile)
        .bind(set)
        .bind(enrolment.not_before.0)
        .bind(enrolment.not_after.0)
        .bind(enrolment.pinned)
        .bind(revocation.map(|revocation| revocation.at.0))
        .bind(revocation.map(|revocation| revocation.reason.code()))
        .bind(revocation.map(|revocation| &revocation.by))
        .bind(enrolment.created_at.0)
        .bind(&enrolment.created_by)
        .execute(&mut *self.connection)
        .await
        .map_err(|error| self.place.failed(error))?
        .last_insert_rowid();
        sqlx::query("INSERT INTO certificates (enrolment, der) VALUES ($1, $2)")
            .bind(id)
            .bind(&enrolment.der)
            .execute(&mut *self.connection)
            .await
            .map_err(|error| self.place.failed(error))?;
        self.append(ChangeKind::Enrolled, id).await
    }

    pub async fn revoke(
        &mut self,
        fingerprint: Fingerprint,
        revocation: &Revocation,
    ) -> Result<u64, StoreError> {
        let present = self.known(fingerprint).await?;
        if present.revoked {
            return self.seq_of_revocation(present.id).await;
        }
        sqlx::query(
            "UPDATE enrolments SET revoked_at = $2, revoked_reason = $3, revoked_by = $4
             WHERE id = $1",
        )
        .bind(present.id)
        .bind(revocation.at.0)
        .bind(revocation.reason.code())
        .bind(&revocation.by)
        .execute(&mut *self.connection)
        .await
        .map_err(|error| self.place.failed(error))?;
        self.append(ChangeKind::Revoked, present.id).await
    }

    pub async fn set_pinned(
        &mut self,
        fingerprint: Fingerprint,
        pinned: bool,
    ) -> Result<u64, StoreError> {
        let present = self.known(fingerprint).await?;
        if pinned && present.revoked {
            return Err(StoreError::Revoked(fingerprint));
        }
        if present.pinned == pinned {
            return self.newest_of(present.id).await;
        }
        sqlx::query("UPDATE enrolments SET pinned = $2 WHERE id = $1")
            .bind(present.id)
            .bind(pinned)
            .execute(&mut *self.connection)
            .await
            .map_err(|error| self.place.failed(error))?;
        let kind = if pinned {
            ChangeKind::Pinned
        } else {
            ChangeKind::Unpinned
        };
        self.append(kind, present.id).await
    }

    pub async fn set_grants(
        &mut self,
        fingerprint: Fingerprint,
        grants: Option<&str>,
    ) -> Result<u64, StoreError> {
        let present = self.known(fingerprint).await?;
        if present.revoked {
            return Err(StoreError::Revoked(fingerprint));
        }
        let set = self.grant_set(grants).await?;
        if present.grants == set {
            return self.newest_of(present.id).await;
        }
        sqlx::query("UPDATE enrolments SET grants = $2 WHERE id = $1")
            .bind(present.id)
            .bind(set)
            .execute(&mut *self.connection)
            .await
            .map_err(|error| self.place.failed(error))?;
        self.append(ChangeKind::Regranted, present.id).await
    }

    pub async fn set_end(
        &mut self,
        fingerprint: Fingerprint,
        end: UnixTime,
    ) -> Result<u64, StoreError> {
        let present = self.known(fingerprint).await?;
        if present.revoked {
            return Err(StoreError::Revoked(fingerprint));
        }
        let nearer =
            sqlx::query("UPDATE enrolments SET not_after = $2 WHERE id = $1 AND not_after > $2")
                .bind(present.id)
                .bind(end.0)
                .execute(&mut *self.connection)
                .await
                .map_err(|error| self.place.failed(error))?
                .rows_affected();
        if nearer == 0 {
            return self.newest_of(present.id).await;
        }
        self.append(ChangeKind::Shortened, present.id).await
    }

    pub async fn heartbeat(&mut self, server: &str, applied: u64) -> Result<(), StoreError> {
        let now = i64::try_from(clock::since_epoch().as_millis()).unwrap_or(i64::MAX);
        sqlx::query(
            "INSERT INTO servers (name, applied, beat_at) VALUES ($1, $2, $3)
             ON CONFLICT (name) DO UPDATE SET applied = excluded.applied, beat_at = excluded.beat_at",
        )
        .bind(server)
        .bind(i64::try_from(applied).unwrap_or(i64::MAX))
        .bind(now)
        .execute(&mut *self.connection)
        .await
        .map_err(|error| self.place.failed(error))?;
        Ok(())
    }

    pub async fn prune(&mut self, before: UnixTime) -> Result<u64, StoreError> {
        let since = clock::since_epoch().saturating_sub(FORGET_SERVER_AFTER);
        sqlx::query("DELETE FROM servers WHERE beat_at < $1")
            .bind(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
            .execute(&mut *self.connection)
            .await
            .map_err(|error| self.place.failed(error))?;
        // A beginning of the feed and nothing else, whatever the clock did meanwhile: a server takes
        // a missing number for the end of what it can follow.
        let gone = sqlx::query(
            "WITH oldest AS (SELECT seq, at FROM changes
                 WHERE seq < (SELECT max(seq) FROM changes)
                 AND seq <= coalesce((SELECT min(applied) FROM servers), 9223372036854775807)
                 ORDER BY seq LIMIT $2)
             DELETE FROM changes WHERE seq < (SELECT coalesce(
                 min(CASE WHEN at >= $1 THEN seq END), max(seq) + 1, 0) FROM oldest)",
        )
        .bind(before.0)
        .bind(PRUNED_AT_ONCE)
        .execute(&mut *self.connection)
        .await
        .map_err(|error| self.place.failed(error))?;
        Ok(gone.rows_affected())
    }

    pub async fn farewell(&mut self, server: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM servers WHERE name = $1")
            .bind(server)
            .execute(&mut *self.connection)
            .await
            .map(drop)
            .map_err(|error| self.place.failed(error))
    }

    async fn known(&mut self, fingerprint: Fingerprint) -> Result<Present, StoreError> {
        let present = self.present(fingerprint).await?;
        present.ok_or_else(|| StoreError::NotFound(fingerprint.to_string()))
    }

    async fn present(&mut self, fingerprint: Fingerprint) -> Result<Option<Present>, StoreError> {
        let row = sqlx::query(
            "SELECT id, pinned, revoked_at IS NOT NULL AS revoked, grants FROM enrolments
             WHERE fingerprint = $1",
        )
        .bind(&fingerprint.as_bytes()[..])
        .fetch_optional(&mut *self.connection)
        .await
        .map_err(|error| self.place.failed(error))?;
        let Some(row) = row else { return Ok(None) };
        let present = || {
            Ok(Present {
                id: row.try_get("id")?,
                pinned: row.try_get("pinned")?,
                revoked: row.try_get("revoked")?,
                grants: row.try_get("grants")?,
            })
        };
        present()
            .map(Some)
            .map_err(|error| self.place.failed(error))
    }

    /// The row of this set, made if there is none.
    async fn grant_set(&mut self, entries: Option<&str>) -> Result<Option<i64>, StoreError> {
        let Some(entries) = entries else {
            return Ok(None);
        };
        let digest = digest::digest(&digest::SHA256, entries.as_bytes());
        sqlx::query(
            "INSERT INTO grant_sets (digest, entries) VALUES ($1, $2)
             ON CONFLICT (digest) DO NOTHING",
        )
        .bind(digest.as_ref())
        .bind(entries)
        .execute(&mut *self.connection)
        .await
        .map_err(|error| self.place.failed(error))?;
        sqlx::query_scalar("SELECT id FROM grant_sets WHERE digest = $1")
            .bind(digest.as_ref())
            .fetch_one(&mut *self.connection)
            .await
            .map(Some)
            .map_err(|error| self.place.failed(error))
    }

    async fn append(&mut self, kind: ChangeKind, enrolment: i64) -> Result<u64, StoreError> {
        let seq = sqlx::query("INSERT INTO changes (kind, enrolment, at) VALUES ($1, $2, $3)")
            .bind(kind.code())
            .bind(enrolment)
            .bind(clock::unix_now().0)
            .execute(&mut *self.connection)
            .await
            .map_err(|error| self.place.failed(error))?
            .last_insert_rowid();
        self.number(seq)
    }

    async fn newest_of(&mut self, enrolment: i64) -> Result<u64, StoreError> {
        let seq = sqlx::query_scalar(
            "SELECT coalesce(max(seq), (SELECT min(seq) - 1 FROM changes)) FROM changes
             WHERE enrolment = $1",
        )
        .bind(enrolment)
        .fetch_one(&mut *self.connection)
        .await
        .map_err(|error| self.place.failed(error))?;
        self.number(seq)
    }

    /// One that was enrolled as revoked already has no other change than that.
    async fn seq_of_revocation(&mut self, enrolment: i64) -> Result<u64, StoreError> {
        let seq = sqlx::query_scalar(
            "SELECT coalesce(min(CASE WHEN kind = $2 THEN seq END), min(seq),
             (SELECT min(seq) - 1 FROM changes)) FROM changes WHERE enrolment = $1",
        )
        .bind(enrolment)
        .bind(ChangeKind::Revoked.code())
        .fetch_one(&mut *self.connection)
        .await
        .map_err(|error| self.place.failed(error))?;
        self.number(seq)
    }

    fn number(&self, seq: i64) -> Result<u64, StoreError> {
        u64::try_from(seq).map_err(|_| self.place.corrupt("a change with a negative number"))
    }
}
