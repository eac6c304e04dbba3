//! Appending and committing in groups.
//!
//! A record is chained in memory under a short lock. `commit` yields once to the scheduler, so that
//! the tasks of other connections append theirs, and the first that comes back writes them all with
//! one `write`; the others find it done. A `write` that blocks (the disk is slower than the calls)
//! blocks the callers: that is the back-pressure, nothing queues behind it without bound.
//!
//! When the operating system refuses, the group fails as a whole: what was half written is cut off,
//! the calls of the group do not run, and the chain goes on behind the last record that is written.
//! Outcomes, denials and other facts stay in memory (bounded) and are tried again, by the next
//! commit and by a task in the background, until the log can be written; then a `log_recovered`
//! record says since when, why, and how many calls were refused.

use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::time::Duration;

use crate::clock;
use crate::policy::{Ask, Denied, Permitted};

use super::decision::{self, Arguments, Verdict};
use super::encode::{field, number};
use super::event::{ConnectionFacts, Event, Outcome};
use super::gather::{Fate, Gather, Outage, Standing, Ticket};
use super::open::{self, AuditError, AuditOptions, Recovery, SyncMode};
use super::writer::{LogFile, Sink, Writer};

/// The longest that an outcome waits for a group to go out with.
pub const OUTCOME_DELAY: Duration = Duration::from_millis(20);
/// After a failed write: no attempt for this long, so that an outage costs little.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// The longest pause between attempts while no call comes.
const RETRY_SLOWEST: Duration = Duration::from_secs(1);
/// Between a write and the flush to the disk.
const SYNC_DELAY: Duration = Duration::from_secs(1);
/// How often a commit steps back while another thread writes, before it waits for that thread.
const STEPS_BACK: u32 = 4;

/// The open log. Cheap to clone; the last clone that goes writes what still gathers.
#[derive(Clone)]
pub struct AuditLog(Arc<Inner>);

struct Inner {
    /// For the tasks in the background, which must not keep the log open.
    me: Weak<Self>,
    path: String,
    arguments: bool,
    sync: SyncMode,
    retry_after: Duration,
    gather: Mutex<Gather>,
    /// Taken before `gather` where both are.
    writer: Mutex<Writer>,
    healthy: AtomicBool,
    sync_failed: AtomicBool,
    sync_due: AtomicBool,
    writes: AtomicU64,
    /// Held as long as the log is open.
    _lock: Option<File>,
}

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

/// Proof that the log is written up to some place.
#[derive(Clone, Copy, Debug)]
pub struct Written(Ticket);

impl Written {
    /// The place.
    #[must_use]
    pub const fn upto(&self) -> Ticket {
        self.0
    }
}

impl<T> Pending<T> {
    /// What to commit.
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
    /// What is recorded.
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
        Self(Arc::new_cyclic(|me| Inner {
            me: me.clone(),
            path: open::shown(&options.path),
            arguments: options.arguments,
            sync: options.sync,
            retry_after,
            gather: Mutex::new(gather),
            writer: Mutex::new(Writer::new(sink, good)),
            healthy: AtomicBool::new(true),
            sync_failed: AtomicBool::new(false),
            sync_due: AtomicBool::new(false),
            writes: AtomicU64::new(0),
            _lock: lock,
        }))
    }

    /// Appends the record of an allowed call to the group that is gathering. No wait; a system call
    /// only when a megabyte has gathered.
    pub fn permitted<C: Ask>(
        &self,
        facts: &ConnectionFacts,
        call: Permitted<C>,
    ) -> Pending<Permitted<C>> {
        let ticket = self.decided(facts, call.call(), Verdict::Allowed);
        Pending {
            inner: call,
            ticket,
        }
    }

    /// Appends the record of a refused call. It is kept and tried again when it cannot be written.
    pub fn denied<C: Ask>(&self, facts: &ConnectionFacts, denied: &Denied<C>) -> Ticket {
        self.decided(facts, &denied.call, Verdict::of(denied))
    }

    fn decided<C: Ask>(&self, facts: &ConnectionFacts, call: &C, verdict: Verdict<'_>) -> Ticket {
        let standing = match verdict {
            Verdict::Allowed => Standing::Decision,
            Verdict::Denied { .. } => Standing::Fact,
        };
        // Hashed before the lock is taken: it may be long.
        let arguments = Arguments::of(call.arguments(), self.0.arguments);
        self.0.append(standing, |out| {
            decision::write(out, facts, call, verdict, &arguments)
        })
    }

    /// Appends how a call ended. Written with the next group or within [`OUTCOME_DELAY`].
    pub fn outcome(
        &self,
        facts: &ConnectionFacts,
        ticket: Ticket,
        outcome: Outcome,
        took: Duration,
    ) {
        self.0.append(Standing::Outcome, |out| {
            outcome.write(out, facts.connection(), ticket.seq(), took);
        });
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
            // Not in the `match`: the lock would be held as long as it.
            let fate = self.0.gather().fate(upto);
            match fate {
                Fate::Written => return Ok(Written(upto)),
                Fate::Withdrawn => return Err(self.0.refusal()),
                Fate::Gathering => {}
            }
            if steps > 0 && self.0.try_flush(steps > STEPS_BACK) {
                continue;
            }
            steps += 1;
            tokio::task::yield_now().await;
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
        let Pending { inner, ticket } = pending;
        // A proof from before or after an outage says nothing of this ticket; the log knows.
        if written.0.covers(ticket) || self.0.gather().fate(ticket) == Fate::Written {
            return Ok(Recorded { inner, ticket });
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
        self.0.healthy.load(Ordering::Relaxed) && !self.0.sync_failed.load(Ordering::Relaxed)
    }

    /// Writes so far; groups, not records.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.0.writes.load(Ordering::Relaxed)
    }

    /// The number of the last record that the operating system has.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.0.gather().written_seq()
    }
}

impl Inner {
    fn gather(&self) -> MutexGuard<'_, Gather> {
        self.gather.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, standing: Standing, body: impl FnOnce(&mut Vec<u8>)) -> Ticket {
        let mut gather = self.gather();
        // Asked under the lock, so that times stand in the order of the records.
        let ticket = gather.append(standing, clock::since_epoch(), body);
        let full = gather.is_full();
        let arm = !std::mem::replace(&mut gather.awaited, true);
        drop(gather);
        if arm {
            self.arm();
        }
        if full {
            self.flush_now();
        }
        ticket
    }

    /// Writes what gathers if no other thread is writing; with `wait` also then. Returns whether
    /// it did.
    fn try_flush(&self, wait: bool) -> bool {
        let mut writer = match self.writer.try_lock() {
            Ok(writer) => writer,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) if wait => self.writer(),
            Err(TryLockError::WouldBlock) => return false,
        };
        self.flush(&mut writer);
        true
    }

    fn flush_now(&self) {
        self.flush(&mut self.writer());
    }

    /// As [`Self::flush_now`], and an outage is tried again at once.
    fn flush_at_once(&self) {
        let mut writer = self.writer();
        writer.retry_at = None;
        self.flush(&mut writer);
        // The record that says that an outage is over comes behind what ended it.
        self.flush(&mut writer);
    }

    fn flush(&self, writer: &mut Writer) {
        {
            let mut gather = self.gather();
            if gather.is_empty() {
                return;
            }
            if writer.retry_at.is_some_and(|at| clock::monotonic() < at) {
                return gather.withdraw();
            }
            gather.take(&mut writer.group);
        }
        match writer.write() {
            Ok(()) => {
                let ended = self.gather().wrote(&writer.group, clock::since_epoch());
                writer.retry_at = None;
                self.writes.fetch_add(1, Ordering::Relaxed);
                self.recovered(ended.as_ref());
                self.arm_sync();
            }
            Err((done, failure)) => {
                let cause = failure.cause.clone();
                let (good, now) = (writer.good, clock::since_epoch());
                let begins = self
                    .gather()
                    .failed(&mut writer.group, done, good, failure, now);
                writer.retry_at = Some(clock::monotonic() + self.retry_after);
                self.healthy.store(false, Ordering::Relaxed);
                if begins {
                    tracing::error!(
                        "the audit log `{}` cannot be written: {cause}; calls are refused until it can",
                        self.path
                    );
                }
            }
        }
        writer.group.clear();
    }

    fn recovered(&self, ended: Option<&Outage>) {
        let Some(outage) = ended else { return };
        self.healthy.store(true, Ordering::Relaxed);
        tracing::warn!(
            "the audit log `{}` is written again; since {} {} calls were refused and {} records lost",
            self.path,
            outage.since,
            outage.withdrawn,
            outage.lost
        );
    }

    fn unwritable(&self, cause: String) -> AuditError {
        AuditError::Unwritable {
            path: self.path.clone(),
            cause,
        }
    }

    /// Why a record was withdrawn.
    fn refusal(&self) -> AuditError {
        match &self.gather().outage {
            Some(outage) if outage.broken => AuditError::Broken {
                path: self.path.clone(),
                cause: outage.cause.clone(),
            },
            Some(outage) => self.unwritable(outage.cause.clone()),
            None => self.unwritable(String::from("a write failed a moment ago")),
        }
    }

    fn all_written(&self) -> Result<(), AuditError> {
        if self.gather().is_empty() {
            Ok(())
        } else {
            Err(self.refusal())
        }
    }

    /// Sees to it that somebody writes what gathers, even if nobody commits. Without a runtime
    /// only a commit or `close` does.
    fn arm(&self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            self.gather().awaited = false;
            return;
        };
        runtime.spawn(
            Attendant {
                log: self.me.clone(),
                done: false,
            }
            .run(),
        );
    }

    fn arm_sync(&self) {
        if self.sync == SyncMode::Never || self.sync_due.swap(true, Ordering::Relaxed) {
            return;
        }
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(SyncDue(self.me.clone()).run())),
            Err(_) => self.sync_due.store(false, Ordering::Relaxed),
        }
    }

    fn synced(&self, result: Result<(), String>) {
        let failed = result.is_err();
        let before = self.sync_failed.swap(failed, Ordering::Relaxed);
        match result {
            Err(error) if !before => {
                tracing::error!(
                    "the audit log `{}` cannot be flushed to the disk: {error}",
                    self.path
                );
            }
            Ok(()) if before => {
                tracing::warn!("the audit log `{}` is flushed to the disk again", self.path);
            }
            _ => {}
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.flush_at_once();
        if let Err(error) = self.all_written() {
            tracing::error!("records are lost: {error}");
        }
    }
}

/// Waits [`OUTCOME_DELAY`], writes what gathered, and goes when nothing does any more. It is born
/// with the first record that waits, so an idle log has no timer.
struct Attendant {
    log: Weak<Inner>,
    done: bool,
}

impl Attendant {
    async fn run(mut self) {
        let mut delay = OUTCOME_DELAY;
        loop {
            tokio::time::sleep(delay).await;
            let Some(log) = self.log.upgrade() else {
                return;
            };
            log.flush_now();
            let healthy = log.healthy.load(Ordering::Relaxed);
            delay = if healthy {
                OUTCOME_DELAY
            } else {
                (delay * 2).min(RETRY_SLOWEST)
            };
            let mut gather = log.gather();
            if gather.is_empty() {
                gather.awaited = false;
                self.done = true;
                return;
            }
        }
    }
}

impl Drop for Attendant {
    /// A runtime that ends drops its tasks; the next append then finds somebody else.
    fn drop(&mut self) {
        if !self.done
            && let Some(log) = self.log.upgrade()
        {
            log.gather().awaited = false;
        }
    }
}

/// A flush to the disk that is due.
struct SyncDue(Weak<Inner>);

impl SyncDue {
    async fn run(self) {
        tokio::time::sleep(SYNC_DELAY).await;
        let Some(log) = self.0.upgrade() else { return };
        // What is written from here on asks for a flush of its own.
        drop(self);
        let syncer = log.writer().sink.syncer();
        let weak = Arc::downgrade(&log);
        drop(log);
        let result = match syncer {
            Ok(sync) => match tokio::task::spawn_blocking(sync).await {
                Ok(done) => done.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            },
            Err(error) => Err(error.to_string()),
        };
        if let Some(log) = weak.upgrade() {
            log.synced(result);
        }
    }
}

impl Drop for SyncDue {
    fn drop(&mut self) {
        if let Some(log) = self.0.upgrade() {
            log.sync_due.store(false, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
