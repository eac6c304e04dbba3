//! The one that writes. Requests queue up in front of it; all that wait are one transaction, and
//! each is answered when that transaction is on disk.

use std::sync::Arc;

use sqlx::{Connection, Executor, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use super::super::record::{Enrolment, Revocation};
use super::super::store::StoreError;
use super::super::token::{Token, TokenDigest};
use super::bell::Bell;
use super::file::{self, Place};
use super::statement::Statements;
use crate::clock::UnixTime;
use crate::identity::Fingerprint;

/// Requests that wait at most, and so also the most that one transaction holds.
const QUEUE: usize = 256;

/// What is asked of the writer. Grants come as text: see [`super::rows::grants_to_text`].
pub(super) enum Request {
    Enrol {
        enrolment: Box<Enrolment>,
        grants: Option<String>,
    },
    Revoke {
        fingerprint: Fingerprint,
        revocation: Revocation,
    },
    SetPinned {
        fingerprint: Fingerprint,
        pinned: bool,
    },
    SetGrants {
        fingerprint: Fingerprint,
        grants: Option<String>,
    },
    SetEnd {
        fingerprint: Fingerprint,
        end: UnixTime,
    },
    PutToken {
        token: Box<Token>,
        grants: String,
    },
    TakeToken {
        digest: TokenDigest,
        enrolment: Box<Enrolment>,
        grants: Option<String>,
        now: UnixTime,
    },
    PurgeTokens {
        before: UnixTime,
    },
    Heartbeat {
        server: String,
        applied: u64,
    },
    Farewell {
        server: String,
    },
}

impl Request {
    /// Whether it must survive a power cut. A heartbeat is over before the power is back.
    const fn lasts(&self) -> bool {
        !matches!(self, Self::Heartbeat { .. } | Self::Farewell { .. })
    }
}

/// The change's `seq`, or `None` where the request is no change.
type Answer = Result<Option<u64>, StoreError>;

struct Job {
    request: Request,
    answer: oneshot::Sender<Answer>,
}

/// The way to the writer, which ends when the last of these is dropped.
pub(super) struct Writer {
    place: Place,
    jobs: mpsc::Sender<Job>,
}

impl Writer {
    /// Starts it on this connection, on the current runtime.
    pub fn start(place: &Place, connection: SqliteConnection, bell: Arc<Bell>) -> Self {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let task = Task {
            place: place.clone(),
            bell,
            connection: Some(connection),
            lasting: true,
        };
        tokio::spawn(task.run(queue));
        Self {
            place: place.clone(),
            jobs,
        }
    }

    /// Has it done, on disk. Dropping the future does not take the request back.
    pub async fn ask(&self, request: Request) -> Answer {
        let (answer, answered) = oneshot::channel();
        let stopped = || self.place.unreachable(&"the writer has stopped");
        self.jobs
            .send(Job { request, answer })
            .await
            .map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }

    /// As [`Self::ask`], of a request that is a change.
    pub async fn change(&self, request: Request) -> Result<u64, StoreError> {
        self.ask(request)
            .await?
            .ok_or_else(|| self.place.corrupt("a change without a number"))
    }
}

struct Task {
    place: Place,
    bell: Arc<Bell>,
    /// None after a failure that may have spoilt it.
    connection: Option<SqliteConnection>,
    /// Whether a commit waits for the disk at present.
    lasting: bool,
}

impl Task {
    async fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut jobs = Vec::with_capacity(QUEUE);
        while queue.recv_many(&mut jobs, QUEUE).await > 0 {
            self.carry_out(&mut jobs).await;
        }
        if let Some(connection) = self.connection {
            // Nothing is lost when this fails: the next one to open the file replays the log.
            let _ = connection.close().await;
        }
    }

    async fn carry_out(&mut self, jobs: &mut Vec<Job>) {
        let answers = match self.transaction(jobs).await {
            Ok(answers) => answers,
            Err(error) => {
                // Dropping the connection rolls back whatever it was about to do.
                self.connection = None;
                jobs.iter().map(|_| Err(error.clone())).collect()
            }
        };
        if let Some(newest) = answers
            .iter()
            .filter_map(|a| a.as_ref().ok().copied().flatten())
            .max()
        {
            self.bell.ring(newest);
        }
        for (job, answer) in jobs.drain(..).zip(answers) {
            // Whoever asked may be gone; what was asked is done all the same.
            let _ = job.answer.send(answer);
        }
    }

    async fn transaction(&mut self, jobs: &[Job]) -> Result<Vec<Answer>, StoreError> {
        self.place.check_same()?;
        let lasting = jobs.iter().any(|job| job.request.lasts());
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
        let mut answers = Vec::with_capacity(jobs.len());
        for job in jobs {
            let mut statements = Statements {
                place,
                connection: &mut transaction,
            };
            match statements.carry_out(&job.request).await {
                Err(error) if error.is_outage() => return Err(error),
                answer => answers.push(answer),
            }
        }
        transaction.commit().await.map_err(failed)?;
        Ok(answers)
    }
}

impl Statements<'_> {
    async fn carry_out(&mut self, request: &Request) -> Answer {
        match request {
            Request::Enrol { enrolment, grants } => {
                self.enrol(enrolment, grants.as_deref()).await.map(Some)
            }
            Request::Revoke {
                fingerprint,
                revocation,
            } => self.revoke(*fingerprint, revocation).await.map(Some),
            Request::SetPinned {
                fingerprint,
                pinned,
            } => self.set_pinned(*fingerprint, *pinned).await.map(Some),
            Request::SetEnd { fingerprint, end } => {
                self.set_end(*fingerprint, *end).await.map(Some)
            }
            Request::SetGrants {
                fingerprint,
                grants,
            } => self
                .set_grants(*fingerprint, grants.as_deref())
                .await
                .map(Some),
            Request::PutToken { token, grants } => {
                self.put_token(token, grants).await.map(|()| None)
            }
            Request::TakeToken {
                digest,
                enrolment,
                grants,
                now,
            } => self
                .take_token(*digest, enrolment, grants.as_deref(), *now)
                .await
                .map(Some),
            Request::PurgeTokens { before } => self.purge_tokens(*before).await.map(|()| None),
            Request::Heartbeat { server, applied } => {
                self.heartbeat(server, *applied).await.map(|()| None)
            }
            Request::Farewell { server } => self.farewell(server).await.map(|()| None),
        }
    }
}
