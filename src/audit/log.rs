//! Appending and committing in groups.
//!
//! A record is chained in memory under a short lock. `commit` lets the other tasks of its thread go
//! first, so that the connections append theirs, and the first that comes back writes them all with
//! one `write`; the others find it done. A `write` that blocks (the disk is slower than the calls)
//! blocks the callers: that is the back-pressure, nothing queues behind it without bound.
//!
//! When the operating system refuses, the group fails as a whole: what was half written is cut off,
//! the calls of the group do not run, and the chain goes on behind the last record that is written.
//! Outcomes, denials and other facts stay in memory (bounded) and are tried again, by the next
//! commit and by a task in the background, until the log can be written; then a `log_recovered`
//! record says since when, why, and how many calls were refused.

use std::cell::Cell;
use std::fs::File;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::runtime::{Handle, RuntimeFlavor};

use crate::clock;
use crate::policy::{Ask, Denied, Permitted};

use super::committer::{Committer, RETRY_AFTER};
use super::counts::Counts;
use super::decision::{self, Arguments, Verdict};
use super::encode::{field, number};
use super::event::{ConnectionFacts, Event, Outcome};
use super::gather::{Fate, Gather, Standing, Ticket};
use super::open::{self, AuditError, AuditOptions, Recovery, SyncMode};
use super::writer::{LogFile, Sink, Writer};

/// How often a commit steps back while another thread writes, before it waits for that thread.
const STEPS_BACK: u32 = 4;

/// The open log. Cheap to clone; the last clone that goes writes what still gathers.
#[derive(Clone)]
pub struct AuditLog(Arc<Committer>);

/// A permitted call whose record is appended and not yet known to be written.
#[derive(Debug)]
pub struct Pending<T> {
    inner: T,
    ticket: Ticket,
    at: Instant,
}

/// A permitted call whose record the operating system has. Private fields: only `commit` leads here.
#[derive(Debug)]
pub struct Recorded<T> {
    inner: T,
    ticket: Ticket,
    at: Instant,
}

/// Proof that the log is written up to some place.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    upto: Ticket,
    at: Instant,
}

impl Written {
    /// The place.
    #[must_use]
    pub const fn upto(&self) -> Ticket {
        self.upto
    }

    /// When the last group was written that the place may be of: a moment ago.
    #[must_use]
    pub const fn at(&self) -> Instant {
        self.at
    }
}

impl<T> Pending<T> {
    /// What to commit.
    #[must_use]
    pub const fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// When it was appended.
    #[must_use]
    pub const fn at(&self) -> Instant {
        self.at
    }

    /// What waits; still unproven.
    #[must_use]
    pub const fn peek(&self) -> &T {
        &self.inner
    }
}

impl<T> Recorded<T> {
    /// What is recorded.
    #[must_use]
    pub const fn get(&self) -> &T {
        &self.inner
    }

    /// When it was known to be: the beginning of what follows.
    #[must_use]
    pub const fn at(&self) -> Instant {
        self.at
    }

    /// Gives up the proof, and with it the ticket for the outcome.
    #[must_use]
    pub fn into_parts(self) -> (T, Ticket) {
        (self.inner, self.ticket)
    }
}

impl AuditLog {
    /// Opens or creates the log and continues its chain. A torn last line is set aside, and a
    /// `log_recovered` record says so.
    ///
    /// # Errors
    /// The file or folder cannot be written, another process has the log open, or its chain is
    /// broken other than by a torn last line.
    pub fn open(options: AuditOptions) -> Result<(Self, Recovery), AuditError> {
        let opened = open::open(&options.path)?;
        let recovery = opened.recovery;
        let durable = options.sync == SyncMode::EverySecond;
        let sink = LogFile::new(
            &options.path,
            opened.file,
            opened.next_number,
            options.keep,
            durable,
        );
        let gather = Gather::new(
            recovery.records,
            opened.link,
            opened.len,
            options.rotate_bytes,
        );
        let log = Self::over(
            Box::new(sink),
            gather,
            opened.len,
            &options,
            Some(opened.lock),
            RETRY_AFTER,
        );
        if let Some(aside) = &recovery.set_aside {
            let aside = open::shown(aside);
            tracing::warn!(
                "the audit log `{}` ended in a torn line of {} bytes, now in `{aside}`",
                log.0.path,
                recovery.torn_bytes
            );
            log.0.append(Standing::Fact, |out| {
                field(out, "event", "log_recovered");
                field(out, "cause", "torn last line");
                field(out, "set_aside", &aside);
                number(out, "torn_bytes", recovery.torn_bytes);
            });
            log.0.flush_now();
            log.0.all_written()?;
        }
        Ok((log, recovery))
    }

    fn over(
        sink: Box<dyn Sink>,
        gather: Gather,
        good: u64,
        options: &AuditOptions,
        lock: Option<File>,
        retry_after: Duration,
    ) -> Self {
        Self(Committer::new(
            Writer::new(sink, good),
            gather,
            options,
            lock,
            retry_after,
        ))
    }

    /// Appends the record of an allowed call to the group that is gathering. No wait; a system call
    /// only when a megabyte has gathered.
    pub fn permitted<C: Ask>(
        &self,
        facts: &ConnectionFacts,
        call: Permitted<C>,
    ) -> Pending<Permitted<C>> {
        let (ticket, at) = self.decided(facts, call.call(), Verdict::Allowed);
        Pending {
            inner: call,
            ticket,
            at,
        }
    }

    /// Appends the record of a refused call. It is kept and tried again when it cannot be written.
    pub fn denied<C: Ask>(&self, facts: &ConnectionFacts, denied: &Denied<C>) -> Ticket {
        self.decided(facts, &denied.call, Verdict::of(denied)).0
    }

    fn decided<C: Ask>(
        &self,
        facts: &ConnectionFacts,
        call: &C,
        verdict: Verdict<'_>,
    ) -> (Ticket, Instant) {
        let (standing, count): (_, fn(&mut Counts)) = match verdict {
            Verdict::Allowed => (Standing::Decision, Counts::permitted),
            Verdict::Denied { .. } => (Standing::Fact, Counts::refused),
        };
        // Hashed before the lock is taken: it may be long.
        let arguments = Arguments::of(call.arguments(), self.0.arguments);
        let now = clock::monotonic();
        let ticket = self.0.append_at(now, standing, count, |out| {
            decision::write(out, facts, call, verdict, &arguments)
        });
        (ticket, now)
    }

    /// Appends how a call ended that began to run at `since`, or that did not run. Written with the next
    /// group or within [`OUTCOME_DELAY`](super::OUTCOME_DELAY). Returns the moment that counts as its end.
    #[expect(
        clippy::must_use_candidate,
        reason = "the record is what it is called for"
    )]
    pub fn outcome(
        &self,
        facts: &ConnectionFacts,
        ticket: Ticket,
        outcome: Outcome,
        since: Option<Instant>,
    ) -> Instant {
        let now = clock::monotonic();
        let took = since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.0.append_at(
            now,
            Standing::Outcome,
            |counts| counts.ended(outcome),
            |out| outcome.write(out, facts.connection(), ticket.seq(), took),
        );
        now
    }

    /// Ready when everything up to `upto` is with the operating system. Gathers what other tasks
    /// of this thread append meanwhile into one write.
    ///
    /// # Errors
    /// The record is not written and will not be (a fact may still be, later): what it would have
    /// allowed must not happen.
    pub async fn commit(&self, upto: Ticket) -> Result<Written, AuditError> {
        let mut steps = 0;
        loop {
            steps += 1;
            // First of all, so that what is gathering grows by what others of this thread append.
            behind_the_others().await;
            loop {
                match self.0.fate(upto) {
                    Fate::Written => {
                        let at = self.0.written_at();
                        return Ok(Written { upto, at });
                    }
                    Fate::Withdrawn => return Err(self.0.refusal()),
                    Fate::Gathering => {}
                }
                if !self.0.try_flush(steps > STEPS_BACK) {
                    break;
                }
            }
        }
    }

    /// Turns a pending call into a recorded one.
    ///
    /// # Errors
    /// `written` does not cover its ticket: a mistake of the caller, so the call does not run.
    pub fn recorded<T>(
        &self,
        pending: Pending<T>,
        written: &Written,
    ) -> Result<Recorded<T>, AuditError> {
        let Pending { inner, ticket, .. } = pending;
        // A proof from before or after an outage says nothing of this ticket; the log knows.
        if written.upto.covers(ticket) || self.0.fate(ticket) == Fate::Written {
            let at = written.at;
            return Ok(Recorded { inner, ticket, at });
        }
        Err(AuditError::NotWritten)
    }

    /// Appends and commits one event.
    ///
    /// # Errors
    /// The log cannot be written. What already happened (a refusal, a closed connection) is kept
    /// and tried again; an admission or a start must then not happen.
    pub async fn event(&self, event: Event<'_>) -> Result<(), AuditError> {
        let ticket = self.0.append(event.standing(), |out| event.write(out));
        self.commit(ticket).await.map(|_| ())
    }

    /// Appends one event that has happened and holds nobody up. Written with the next group, or a
    /// moment later; kept and tried again when it cannot be.
    pub fn note(&self, event: Event<'_>) {
        self.0.append(event.standing(), |out| event.write(out));
    }

    /// Writes what gathers and flushes it to the disk; for the end of the process. Waits for the
    /// disk.
    ///
    /// # Errors
    /// The log cannot be written.
    pub fn close(&self) -> Result<(), AuditError> {
        self.0.flush_at_once();
        self.0.all_written()?;
        let syncer = self.0.writer().sink.syncer();
        syncer
            .and_then(|sync| sync())
            .map_err(|error| self.0.unwritable(error.to_string()))
    }

    /// Whether the log took its last write; `server_status` and readiness ask.
    #[must_use]
    pub fn healthy(&self) -> bool {
        self.0.healthy()
    }

    /// Writes so far; groups, not records.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.0.writes()
    }

    /// Decisions and outcomes since the log was opened.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.0.gather().counts
    }

    /// The number of the last record that the operating system has.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.0.gather().written_seq()
    }
}

/// Ready when the tasks of this thread that were ready before have had their turn.
///
/// A runtime of one thread has one queue, at whose end a task that wakes itself comes to stand. One
/// of several threads would take it up again at once; there tokio's own yielding serves, which looks
/// for news of the sockets first and so costs a system call for each round.
async fn behind_the_others() {
    if !has_one_queue() {
        return tokio::task::yield_now().await;
    }
    let mut been = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut been, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Whether this thread is a runtime of its own. Asked once: a thread that changes from one kind to the
/// other would gather less, or pay for the system call, and lose nothing.
fn has_one_queue() -> bool {
    thread_local! {
        static ONE: Cell<Option<bool>> = const { Cell::new(None) };
    }
    ONE.get().unwrap_or_else(|| {
        let one = Handle::try_current()
            .is_ok_and(|here| here.runtime_flavor() == RuntimeFlavor::CurrentThread);
        ONE.set(Some(one));
        one
    })
}

#[cfg(test)]
mod tests;
