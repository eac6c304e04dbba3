//! Appending, committing in groups, rotating, recovering.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::policy::{Ask, Denied, Permitted};

use super::event::{ConnectionFacts, Event, Outcome};

/// `[audit]`, checked.
#[derive(Clone, Debug)]
pub struct AuditOptions {
    /// The file; rotated ones get a number behind.
    pub path: PathBuf,
    /// Bytes after which the file is rotated.
    pub rotate_bytes: u64,
    /// Rotated files that are kept; 0 keeps all.
    pub keep: u32,
    /// Whether arguments are written out instead of their digest.
    pub arguments: bool,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum AuditError {
    #[error("the audit log `{path}` cannot be written: {cause}")]
    Unwritable { path: String, cause: String },
    #[error("the audit log `{path}` is broken: {cause}")]
    Broken { path: String, cause: String },
}

/// What opening an existing log found: a torn last line that was set aside, say.
#[derive(Clone, Debug, Default)]
pub struct Recovery {
    pub records: u64,
    pub set_aside: Option<PathBuf>,
}

/// The open log. Cheap to clone.
#[derive(Clone)]
pub struct AuditLog(Arc<Inner>);

struct Inner {}

/// A place in the log. Ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// A permitted call whose record is appended and not yet known to be written.
#[derive(Debug)]
pub struct Pending<T> {
    inner: T,
    ticket: Ticket,
}

/// A permitted call whose record the operating system has. Private fields: only `commit` leads here.
#[derive(Debug)]
pub struct Recorded<T> {
    inner: T,
    ticket: Ticket,
}

impl<T> Pending<T> {
    #[must_use]
    pub const fn ticket(&self) -> Ticket {
        self.ticket
    }
    /// What waits; still unproven.
    #[must_use]
    pub const fn peek(&self) -> &T {
        &self.inner
    }
}

impl<T> Recorded<T> {
    #[must_use]
    pub const fn get(&self) -> &T {
        &self.inner
    }
    /// Gives up the proof, and with it the ticket for the outcome.
    #[must_use]
    pub fn into_parts(self) -> (T, Ticket) {
        (self.inner, self.ticket)
    }
}

impl AuditLog {
    /// # Errors
    /// The file or folder cannot be written, another process has the log open, or its chain is broken other than by a torn last line.
    pub fn open(options: AuditOptions) -> Result<(Self, Recovery), AuditError> {
        let _ = options;
        todo!()
    }
    /// Appends the record of an allowed call to the group that is gathering. No system call, no wait.
    pub fn permitted<C: Ask>(
        &self,
        facts: &ConnectionFacts,
        call: Permitted<C>,
    ) -> Pending<Permitted<C>> {
        let _ = (facts, call);
        todo!()
    }
    /// Appends the record of a refused call.
    pub fn denied<C: Ask>(&self, facts: &ConnectionFacts, denied: &Denied<C>) -> Ticket {
        let _ = (facts, denied);
        todo!()
    }
    /// Appends how a call ended. Written with the next group or within `OUTCOME_DELAY`.
    pub fn outcome(
        &self,
        facts: &ConnectionFacts,
        ticket: Ticket,
        outcome: Outcome,
        took: Duration,
    ) {
        let _ = (facts, ticket, outcome, took);
    }
    /// Ready when everything up to `ticket` is with the operating system. Gathers what other tasks
    /// of this thread append meanwhile into one write.
    /// # Errors
    /// Nothing of the group was written; none of its calls may run.
    pub async fn commit(&self, upto: Ticket) -> Result<Written, AuditError> {
        let _ = upto;
        todo!()
    }
    /// Turns a pending call into a recorded one.
    /// # Errors
    /// `written` does not cover its ticket: a mistake of the caller, so the call does not run.
    pub fn recorded<T>(
        &self,
        pending: Pending<T>,
        written: &Written,
    ) -> Result<Recorded<T>, AuditError> {
        let _ = written;
        Ok(Recorded {
            inner: pending.inner,
            ticket: pending.ticket,
        })
    }
    /// Appends and commits one event.
    /// # Errors
    /// The log cannot be written.
    pub async fn event(&self, event: Event<'_>) -> Result<(), AuditError> {
        let _ = event;
        todo!()
    }
    /// Writes what gathers and syncs; for the end of the process.
    /// # Errors
    /// The log cannot be written.
    pub fn close(&self) -> Result<(), AuditError> {
        todo!()
    }
    /// Whether the log took its last write; `server_status` and readiness ask.
    #[must_use]
    pub fn healthy(&self) -> bool {
        let _ = &self.0;
        true
    }
}

/// Proof that the log is written up to some place.
#[derive(Clone, Copy, Debug)]
pub struct Written(Ticket);
impl Written {
    #[must_use]
    pub const fn upto(&self) -> Ticket {
        self.0
    }
}
