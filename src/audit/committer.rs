//! Who has the gathering group and the writer, and brings them together: on a commit, when a
//! megabyte has gathered, or after a while from the background.

use std::cell::RefCell;
use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::time::{Duration, Instant};

use crate::clock::{self, AtomicMoment};

use super::counts::Counts;
use super::gather::{Fate, Gather, Outage, Standing, Ticket};
use super::open::{self, AuditError, AuditOptions, SyncMode};
use super::writer::Writer;

/// The longest that an outcome waits for a group to go out with.
pub const OUTCOME_DELAY: Duration = Duration::from_millis(20);
/// After a failed write: no attempt for this long, so that an outage costs little.
pub(super) const RETRY_AFTER: Duration = Duration::from_millis(100);
/// The longest pause between attempts while no call comes.
const RETRY_SLOWEST: Duration = Duration::from_secs(1);
/// Between a write and the flush to the disk.
const SYNC_DELAY: Duration = Duration::from_secs(1);

/// What a thread keeps of [`SCRATCH`] between two records.
const SCRATCH_MAX: usize = 16 * 1024;

thread_local! {
    /// Where a record is put together, so that no other thread waits for that.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

pub(super) struct Committer {
    /// For the tasks in the background, which must not keep the log open.
    me: Weak<Self>,
    pub(super) path: String,
    pub(super) arguments: bool,
    sync: SyncMode,
    retry_after: Duration,
    gather: Mutex<Gather>,
    /// Taken before `gather` where both are.
    writer: Mutex<Writer>,
    /// What of the gathering run is written: its number and the last record. For who need not wait
    /// for the lock to see that.
    run: AtomicU64,
    written: AtomicU64,
    /// When that was: looked up once for all of a group.
    written_at: AtomicMoment,
    healthy: AtomicBool,
    sync_failed: AtomicBool,
    pub(super) sync_due: AtomicBool,
    writes: AtomicU64,
    /// Held as long as the log is open.
    _lock: Option<File>,
}

impl Committer {
    pub(super) fn new(
        writer: Writer,
        gather: Gather,
        options: &AuditOptions,
        lock: Option<File>,
        retry_after: Duration,
    ) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            path: open::shown(&options.path),
            arguments: options.arguments,
            sync: options.sync,
            retry_after,
            run: AtomicU64::new(gather.run()),
            written: AtomicU64::new(gather.written_seq()),
            gather: Mutex::new(gather),
            writer: Mutex::new(writer),
            written_at: AtomicMoment::of(clock::monotonic()),
            healthy: AtomicBool::new(true),
            sync_failed: AtomicBool::new(false),
            sync_due: AtomicBool::new(false),
            writes: AtomicU64::new(0),
            _lock: lock,
        })
    }

    /// Whether the last write and the last flush to the disk went well.
    pub(super) fn healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed) && !self.sync_failed.load(Ordering::Relaxed)
    }

    pub(super) fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    pub(super) fn gather(&self) -> MutexGuard<'_, Gather> {
        self.gather.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What became of a ticket.
    pub(super) fn fate(&self, ticket: Ticket) -> Fate {
        // In this order. A run only ever comes behind the records of those before it, so what was
        // written when its number still stood is of it or earlier.
        let written = self.written.load(Ordering::Acquire);
        if ticket.is_within(self.run.load(Ordering::Acquire), written) {
            return Fate::Written;
        }
        self.gather().fate(ticket)
    }

    /// When the last group was written; for who has seen by [`Self::fate`] that one was.
    pub(super) fn written_at(&self) -> Instant {
        self.written_at.get().unwrap_or_else(clock::monotonic)
    }

    /// Tells [`Self::fate`]; while the lock is held.
    fn publish(&self, gather: &Gather) {
        self.run.store(gather.run(), Ordering::Release);
        self.written.store(gather.written_seq(), Ordering::Release);
    }

    pub(super) fn append(&self, standing: Standing, body: impl FnOnce(&mut Vec<u8>)) -> Ticket {
        self.append_at(clock::monotonic(), standing, |_| (), body)
    }

    /// The same for what is counted, of a moment that was now.
    pub(super) fn append_at(
        &self,
        moment: Instant,
        standing: Standing,
        count: impl FnOnce(&mut Counts),
        body: impl FnOnce(&mut Vec<u8>),
    ) -> Ticket {
        let (ticket, full, arm) = SCRATCH.with_borrow_mut(|scratch| {
            scratch.clear();
            body(scratch);
            let mut gather = self.gather();
            count(&mut gather.counts);
            // Under the lock, so that times stand in the order of the records.
            let now = gather.times.at(moment);
            let ticket = gather.append(standing, now, |out| out.extend_from_slice(scratch));
            let full = gather.is_full();
            let arm = !std::mem::replace(&mut gather.awaited, true);
            drop(gather);
            scratch.shrink_to(SCRATCH_MAX);
            (ticket, full, arm)
        });
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
    pub(super) fn try_flush(&self, wait: bool) -> bool {
        let mut writer = match self.writer.try_lock() {
            Ok(writer) => writer,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) if wait => self.writer(),
            Err(TryLockError::WouldBlock) => return false,
        };
        self.flush(&mut writer);
        true
    }

    pub(super) fn flush_now(&self) {
        self.flush(&mut self.writer());
    }

    /// As [`Self::flush_now`], and an outage is tried again at once.
    pub(super) fn flush_at_once(&self) {
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
                gather.withdraw();
                return self.publish(&gather);
            }
            gather.take(&mut writer.group);
        }
        match writer.write() {
            Ok(()) => {
                let now = clock::monotonic();
                // Before it is published that the group is written.
                self.written_at.set(now);
                let mut gather = self.gather();
                let ended = gather.wrote(&writer.group, now);
                self.publish(&gather);
                drop(gather);
                writer.retry_at = None;
                self.writes.fetch_add(1, Ordering::Relaxed);
                self.recovered(ended.as_ref());
                self.arm_sync();
            }
            Err((done, failure)) => {
                let cause = failure.cause.clone();
                let (good, now) = (writer.good, clock::since_epoch());
                let mut gather = self.gather();
                let begins = gather.failed(&mut writer.group, done, good, failure, now);
                self.publish(&gather);
                drop(gather);
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

    pub(super) fn unwritable(&self, cause: String) -> AuditError {
        AuditError::Unwritable {
            path: self.path.clone(),
            cause,
        }
    }

    /// Why a record was withdrawn.
    pub(super) fn refusal(&self) -> AuditError {
        match &self.gather().outage {
            Some(outage) if outage.broken => AuditError::Broken {
                path: self.path.clone(),
                cause: outage.cause.clone(),
            },
            Some(outage) => self.unwritable(outage.cause.clone()),
            None => self.unwritable(String::from("a write failed a moment ago")),
        }
    }

    pub(super) fn all_written(&self) -> Result<(), AuditError> {
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

    pub(super) fn synced(&self, result: Result<(), String>) {
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

impl Drop for Committer {
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
    log: Weak<Committer>,
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
struct SyncDue(Weak<Committer>);

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
