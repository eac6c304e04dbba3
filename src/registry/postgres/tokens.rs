//! One-time tokens in the database.

use super::super::record::Enrolment;
use super::super::rows;
use super::super::store::StoreError;
use super::super::token::{Token, TokenDigest, TokenRefusal};
use super::reader::Reader;
use super::statement::Statements;
use crate::clock::UnixTime;

impl Statements<'_> {
    pub async fn put_token(&mut self, token: &Token, grants: &str) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO tokens (digest, name, grants, profile, hosts, lifetime, expires_at,
             created_at, created_by, used_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        )
        .bind(&token.digest.as_bytes()[..])
        .bind(token.name.as_str())
        .bind(grants)
        .bind(&token.profile)
        .bind(serde_json::Value::from(token.hosts.clone()).to_string())
        .bind(rows::seconds(token.lifetime))
        .bind(token.expires_at.0)
        .bind(token.created_at.0)
        .bind(&token.created_by)
        .bind(token.used_at.map(|at| at.0))
        .execute(&mut *self.connection)
        .await
        .map(drop)
        .map_err(|error| self.database.failed(error))
    }

    pub async fn take_token(
        &mut self,
        digest: TokenDigest,
        enrolment: &Enrolment,
        grants: Option<&str>,
        now: UnixTime,
    ) -> Result<u64, StoreError> {
        // Nobody else writes meanwhile: this transaction holds the row of the feed.
        let found: Option<(Option<i64>, i64)> =
            sqlx::query_as("SELECT used_at, expires_at FROM tokens WHERE digest = $1")
                .bind(&digest.as_bytes()[..])
                .fetch_optional(&mut *self.connection)
                .await
                .map_err(|error| self.database.failed(error))?;
        match found {
            None => return Err(TokenRefusal::Unknown.into()),
            Some((Some(_), _)) => return Err(TokenRefusal::Used.into()),
            Some((None, end)) if now.0 > end => return Err(TokenRefusal::Expired.into()),
            Some(_) => {}
        }
        let seq = self.enrol(enrolment, grants).await?;
        sqlx::query(
            "UPDATE tokens SET used_at = $2,
             used_for = (SELECT id FROM enrolments WHERE fingerprint = $3) WHERE digest = $1",
        )
        .bind(&digest.as_bytes()[..])
        .bind(now.0)
        .bind(&enrolment.fingerprint.as_bytes()[..])
        .execute(&mut *self.connection)
        .await
        .map_err(|error| self.database.failed(error))?;
        Ok(seq)
    }

    pub async fn purge_tokens(&mut self, before: UnixTime) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM tokens WHERE expires_at < $1")
            .bind(before.0)
            .execute(&mut *self.connection)
            .await
            .map(drop)
            .map_err(|error| self.database.failed(error))
    }
}

impl Reader {
    pub async fn token(&self, digest: TokenDigest) -> Result<Option<Token>, StoreError> {
        let row = sqlx::query(
            "SELECT name, grants, profile, hosts, lifetime, expires_at, created_at, created_by,
             used_at FROM tokens WHERE digest = $1",
        )
        .bind(&digest.as_bytes()[..])
        .fetch_optional(&self.pool)
        .await
        .map_err(|error| self.database.failed(error))?;
        row.as_ref()
            .map(|row| self.read(rows::token(digest, row)))
            .transpose()
    }
}
