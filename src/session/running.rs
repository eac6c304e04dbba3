//! The calls of one connection that are not answered yet.

use std::sync::Arc;
use std::time::Instant;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};

use crate::audit::Ticket;
use crate::backend::Cancel;
use crate::dispatch::Reply;
use crate::jsonrpc::{OwnedId, RequestId};
use crate::mcp::{Method, Revision};

use super::identities::Place;
use super::notes::CallNotes;

/// What is known of a call while it runs.
#[derive(Debug)]
pub struct Running {
    /// Raw id.
    pub id: OwnedId,
    /// Where its decision stands in the audit log.
    pub ticket: Ticket,
    /// When it began.
    pub since: Instant,
    /// The row of the method table.
    pub method: Method,
    /// The revision that its answer goes out in.
    pub revision: Revision,
    /// Tells it that nobody waits any more.
    pub cancel: Cancel,
    /// Its notes, where it may send some.
    pub notes: Option<Arc<CallNotes>>,
    /// Its place among the identity's calls.
    #[expect(dead_code, reason = "held for its Drop")]
    pub place: Place,
}

/// All of them. Empty it holds no memory.
#[derive(Default)]
pub struct Calls {
    known: Vec<(u64, Running)>,
    /// None while nothing runs: even an empty set of futures owns memory.
    futures: Option<Futures>,
    next: u64,
}

type Futures = FuturesUnordered<BoxFuture<'static, (u64, Option<Reply>)>>;

impl Calls {
    /// How many run.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none runs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Whether a call with this id runs.
    #[must_use]
    pub fn has(&self, id: &[u8]) -> bool {
        self.known
            .iter()
            .any(|(_, running)| RequestId::same(&running.id, id))
    }

    /// Starts one. It runs whenever [`Calls::finished`] is polled.
    pub fn start(&mut self, running: Running, future: BoxFuture<'static, Reply>) {
        let number = self.next;
        self.next += 1;
        let cancel = running.cancel.clone();
        self.known.push((number, running));
        let futures = self.futures.get_or_insert_default();
        futures.push(Box::pin(async move {
            tokio::select! {
                biased;
                () = cancel.cancelled() => (number, None),
                reply = future => (number, Some(reply)),
            }
        }));
    }

    /// Cancels the call with this id, if it runs.
    pub fn cancel(&self, id: &[u8]) -> bool {
        let found = self
            .known
            .iter()
            .find(|(_, running)| RequestId::same(&running.id, id));
        if let Some((_, running)) = found {
            running.cancel.cancel();
        }
        found.is_some()
    }

    /// The next call that is over, with its reply unless it was cancelled. Pending for ever when
    /// none runs.
    pub async fn finished(&mut self) -> (Running, Option<Reply>) {
        loop {
            let Some(futures) = &mut self.futures else {
                return std::future::pending().await;
            };
            let Some((number, reply)) = futures.next().await else {
                self.futures = None;
                continue;
            };
            if let Some(at) = self.known.iter().position(|(known, _)| *known == number) {
                let (_, running) = self.known.swap_remove(at);
                if let Some(notes) = &running.notes {
                    notes.finish();
                }
                if self.known.is_empty() {
                    self.known = Vec::new();
                    self.futures = None;
                }
                return (running, reply);
            }
        }
    }

    /// Drops all of them; each is told.
    pub fn abandon(&mut self) -> Vec<Running> {
        self.futures = None;
        let all = std::mem::take(&mut self.known);
        for (_, running) in &all {
            running.cancel.cancel();
        }
        all.into_iter().map(|(_, running)| running).collect()
    }
}
