//! How a store writes: requests queue up in front of one hand; all that wait are one transaction,
//! and each is answered when that transaction is on disk.
//!
//! It knows no database: what a transaction is, the hand knows.

use tokio::sync::{mpsc, oneshot};

use super::record::{Enrolment, Revocation};
use super::store::StoreError;
use super::token::{Token, TokenDigest};
use crate::clock::UnixTime;
use crate::identity::Fingerprint;

/// Requests that wait at most, and so also the most that one transaction holds.
const QUEUE: usize = 256;

/// What is asked of the hand. Grants come as text: see [`super::rows::grants_to_text`].
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
    Prune {
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
    pub const fn lasts(&self) -> bool {
        !matches!(self, Self::Heartbeat { .. } | Self::Farewell { .. })
    }
}

/// What a request comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Done {
    /// A change with this `seq`.
    Change(u64),
    /// No change, and a count where one was asked for.
    Other(u64),
}

/// The answer to one request.
pub(super) type Answer = Result<Done, StoreError>;

/// Who carries requests out.
pub(super) trait Hand: Send + 'static {
    /// All of them in one transaction that is on disk when the future is ready; an answer each. An
    /// error means that none of them happened, as far as can be known.
    fn transaction(
        &mut self,
        requests: &[Request],
    ) -> impl Future<Output = Result<Vec<Answer>, StoreError>> + Send;

    /// After a transaction whose newest change is `seq`.
    fn committed(&mut self, seq: u64);

    /// Nobody will ask again.
    fn close(self) -> impl Future<Output = ()> + Send;
}

/// The way to the hand, which ends when the last of these is dropped.
pub(super) struct Writer {
    place: String,
    jobs: mpsc::Sender<(Request, oneshot::Sender<Answer>)>,
}

impl Writer {
    /// Starts it on the current runtime. `place`: for messages.
    pub fn start(place: &str, hand: impl Hand) -> Self {
        let (jobs, queue) = mpsc::channel(QUEUE);
        tokio::spawn(run(hand, queue));
        Self {
            place: place.to_owned(),
            jobs,
        }
    }

    /// Has it done, on disk. Dropping the future does not take the request back.
    pub async fn ask(&self, request: Request) -> Answer {
        let (answer, answered) = oneshot::channel();
        let stopped = || StoreError::Unreachable {
            place: self.place.clone(),
            cause: "the writer has stopped".to_owned(),
        };
        self.jobs
            .send((request, answer))
            .await
            .map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }

    /// As [`Self::ask`], for the change's `seq` or the count.
    pub async fn number(&self, request: Request) -> Result<u64, StoreError> {
        Ok(match self.ask(request).await? {
            Done::Change(number) | Done::Other(number) => number,
        })
    }

    /// As [`Self::ask`], of a request that has nothing to answer.
    pub async fn quietly(&self, request: Request) -> Result<(), StoreError> {
        self.ask(request).await.map(drop)
    }
}

async fn run(mut hand: impl Hand, mut queue: mpsc::Receiver<(Request, oneshot::Sender<Answer>)>) {
    let mut jobs = Vec::with_capacity(QUEUE);
    while queue.recv_many(&mut jobs, QUEUE).await > 0 {
        let (requests, waiting): (Vec<_>, Vec<_>) = jobs.drain(..).unzip();
        let answers = match hand.transaction(&requests).await {
            Ok(answers) => answers,
            Err(error) => requests.iter().map(|_| Err(error.clone())).collect(),
        };
        let changes = answers.iter().filter_map(|answer| match answer {
            Ok(Done::Change(seq)) => Some(*seq),
            _ => None,
        });
        if let Some(newest) = changes.max() {
            hand.committed(newest);
        }
        for (waiting, answer) in waiting.into_iter().zip(answers) {
            // Whoever asked may be gone; what was asked is done all the same.
            let _ = waiting.send(answer);
        }
    }
    hand.close().await;
}
