//! The one that writes, with one connection.

use std::sync::Arc;
use std::time::Duration;

use sqlx::Connection;
use sqlx::postgres::PgConnection;

use super::super::queue::{Answer, Done, Hand, Request};
use super::super::rows::whole;
use super::super::store::StoreError;
use super::connection;
use super::database::Database;
use super::ear::Ear;
use super::statement::Statements;

/// A database that has not carried a transaction out after this long is unreachable. Whether it
/// happened is then not known; who asked is told of the failure and does not act on it.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";
/// A heartbeat is over before the power is back.
const BEGIN_FLEETING: &str =
    "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL synchronous_commit = off";

/// The hand of a PostgreSQL store.
pub(super) struct DatabaseHand {
    database: Database,
    ear: Arc<Ear>,
    channel: String,
    /// None after a failure that may have spoilt it.
    connection: Option<PgConnection>,
}

impl DatabaseHand {
    /// Writes by this connection, and tells of it on this channel.
    pub fn new(
        database: &Database,
        connection: PgConnection,
        ear: Arc<Ear>,
        channel: &str,
    ) -> Self {
        Self {
            database: database.clone(),
            ear,
            channel: channel.to_owned(),
            connection: Some(connection),
        }
    }

    async fn carry_out(
        &self,
        connection: Option<PgConnection>,
        requests: &[Request],
    ) -> Result<(PgConnection, Vec<Answer>), StoreError> {
        let database = &self.database;
        let mut connection = match connection {
            Some(connection) => connection,
            None => connection::connect(database, false).await?,
        };
        let answers = if requests.iter().any(Request::lasts) {
            self.lasting(&mut connection, requests).await?
        } else {
            fleeting(database, &mut connection, requests).await?
        };
        Ok((connection, answers))
    }

    async fn lasting(
        &self,
        connection: &mut PgConnection,
        requests: &[Request],
    ) -> Result<Vec<Answer>, StoreError> {
        let database = &self.database;
        let failed = |error| database.failed(error);
        let mut transaction = connection.begin_with(BEGIN).await.map_err(failed)?;
        // Whoever holds this row writes; the others wait for the end of its transaction.
        let before: i64 = sqlx::query_scalar("SELECT newest FROM feed FOR UPDATE")
            .fetch_one(&mut *transaction)
            .await
            .map_err(failed)?;
        let mut statements = Statements {
            database,
            connection: &mut transaction,
            newest: u64::try_from(before)
                .map_err(|_| database.corrupt("a change with a negative number"))?,
        };
        let answers = statements.carry_out_all(requests).await?;
        let newest = whole(statements.newest);
        if newest != before {
            sqlx::query("WITH fed AS (UPDATE feed SET newest = $1) SELECT pg_notify($2, '')")
                .bind(newest)
                .bind(&self.channel)
                .execute(&mut *transaction)
                .await
                .map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)?;
        Ok(answers)
    }
}

/// Without the row of the feed: heartbeats wait for nobody.
async fn fleeting(
    database: &Database,
    connection: &mut PgConnection,
    requests: &[Request],
) -> Result<Vec<Answer>, StoreError> {
    let failed = |error| database.failed(error);
    let mut transaction = connection
        .begin_with(BEGIN_FLEETING)
        .await
        .map_err(failed)?;
    let mut statements = Statements {
        database,
        connection: &mut transaction,
        newest: 0,
    };
    let answers = statements.carry_out_all(requests).await?;
    transaction.commit().await.map_err(failed)?;
    Ok(answers)
}

impl Hand for DatabaseHand {
    async fn transaction(&mut self, requests: &[Request]) -> Result<Vec<Answer>, StoreError> {
        // A connection that failed, or that is left in the middle, is not used again.
        let idle = match self.connection.take() {
            Some(connection) => still_there(connection).await,
            None => None,
        };
        let done = tokio::time::timeout(PATIENCE, self.carry_out(idle, requests)).await;
        let (connection, answers) = done.unwrap_or_else(|_| {
            let cause = format!("no answer within {} seconds", PATIENCE.as_secs());
            Err(self.database.unreachable(&cause))
        })?;
        self.connection = Some(connection);
        Ok(answers)
    }

    fn committed(&mut self, _: u64) {
        self.ear.ring();
    }

    async fn close(self) {
        if let Some(connection) = self.connection {
            // The database notices either way.
            let _ = connection.close().await;
        }
    }
}

/// The connection, unless the database has ended it since (a restart, a guard): the request that
/// comes then deserves a new one. A request that fails half way is never tried again.
async fn still_there(mut connection: PgConnection) -> Option<PgConnection> {
    let alive = tokio::time::timeout(Duration::from_secs(2), connection.ping()).await;
    matches!(alive, Ok(Ok(()))).then_some(connection)
}

impl Statements<'_> {
    async fn carry_out_all(&mut self, requests: &[Request]) -> Result<Vec<Answer>, StoreError> {
        let mut answers = Vec::with_capacity(requests.len());
        for request in requests {
            match self.carry_out(request).await {
                Err(error) if error.is_outage() => return Err(error),
                answer => answers.push(answer),
            }
        }
        Ok(answers)
    }

    async fn carry_out(&mut self, request: &Request) -> Answer {
        let change = match request {
            Request::Enrol { enrolment, grants } => self.enrol(enrolment, grants.as_deref()).await,
            Request::Revoke {
                fingerprint,
                revocation,
            } => self.revoke(*fingerprint, revocation).await,
            Request::SetPinned {
                fingerprint,
                pinned,
            } => self.set_pinned(*fingerprint, *pinned).await,
            Request::SetGrants {
                fingerprint,
                grants,
            } => self.set_grants(*fingerprint, grants.as_deref()).await,
            Request::SetEnd { fingerprint, end } => self.set_end(*fingerprint, *end).await,
            Request::TakeToken {
                digest,
                enrolment,
                grants,
                now,
            } => {
                let grants = grants.as_deref();
                self.take_token(*digest, enrolment, grants, *now).await
            }
            other => return self.carry_out_other(other).await.map(Done::Other),
        };
        change.map(Done::Change)
    }

    /// What is no change.
    async fn carry_out_other(&mut self, request: &Request) -> Result<u64, StoreError> {
        match request {
            Request::PutToken { token, grants } => self.put_token(token, grants).await?,
            Request::PurgeTokens { before } => self.purge_tokens(*before).await?,
            Request::Heartbeat { server, applied } => self.heartbeat(server, *applied).await?,
            Request::Farewell { server } => self.farewell(server).await?,
            Request::Prune { before } => return self.prune(*before).await,
            _ => return Err(self.database.corrupt("a change that is none")),
        }
        Ok(0)
    }
}
