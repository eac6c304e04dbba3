//! The one that writes, with one connection. Other processes write too, each with its own: SQLite
//! lets them in one after the other.

use std::sync::Arc;

use sqlx::{Connection, Executor, SqliteConnection};

use super::super::queue::{Answer, Done, Hand, Request};
use super::super::store::StoreError;
use super::bell::Bell;
use super::file::{self, Place};
use super::statement::Statements;

/// The hand of a SQLite store.
pub(super) struct FileHand {
    place: Place,
    bell: Arc<Bell>,
    /// None after a failure that may have spoilt it.
    connection: Option<SqliteConnection>,
    /// Whether a commit waits for the disk at present.
    lasting: bool,
}

impl FileHand {
    /// Writes by this connection.
    pub fn new(place: &Place, connection: SqliteConnection, bell: Arc<Bell>) -> Self {
        Self {
            place: place.clone(),
            bell,
            connection: Some(connection),
            lasting: true,
        }
    }

    async fn all(&mut self, requests: &[Request]) -> Result<Vec<Answer>, StoreError> {
        self.place.check_same()?;
        let lasting = requests.iter().any(Request::lasts);
        let place = &self.place;
        if self.connection.is_none() {
            self.connection = Some(file::connect(place, false).await?);
            self.lasting = true;
        }
        let Some(connection) = &mut self.connection else {
            return Err(place.unreachable(&"no connection"));
        };
        let failed = |error| place.failed(error);
        if self.lasting != lasting {
            let level = if lasting {
                "PRAGMA synchronous = FULL"
            } else {
                "PRAGMA synchronous = NORMAL"
            };
            connection.execute(level).await.map_err(failed)?;
            self.lasting = lasting;
        }
        let mut transaction = connection
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(failed)?;
        let mut answers = Vec::with_capacity(requests.len());
        for request in requests {
            let mut statements = Statements {
                place,
                connection: &mut transaction,
            };
            match statements.carry_out(request).await {
                Err(error) if error.is_outage() => return Err(error),
                answer => answers.push(answer),
            }
        }
        transaction.commit().await.map_err(failed)?;
        Ok(answers)
    }
}

impl Hand for FileHand {
    async fn transaction(&mut self, requests: &[Request]) -> Result<Vec<Answer>, StoreError> {
        let answers = self.all(requests).await;
        if answers.is_err() {
            // Dropping the connection rolls back whatever it was about to do.
            self.connection = None;
        }
        answers
    }

    fn committed(&mut self, seq: u64) {
        self.bell.ring(seq);
    }

    async fn close(self) {
        if let Some(connection) = self.connection {
            // Nothing is lost when this fails: the next one to open the file replays the log.
            let _ = connection.close().await;
        }
    }
}

impl Statements<'_> {
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
            _ => return Err(self.place.corrupt("a change that is none")),
        }
        Ok(0)
    }
}
