//! The group that is gathering: records are chained here, in memory, and nowhere else.
//!
//! No I/O, no lock: the log drives it, and says what moment it is. What it settles is what happens to
//! each record when its group cannot be written. A record that lets something happen (a *claim*: an allowed
//! call, an admission) is withdrawn, and whoever waits for it is told so. A record of what happened
//! already (a *fact*: an outcome, a denial, a closed connection) stays, gets a new place behind the
//! last written record, and goes out when the log can be written again.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::clock::TimeOfDay;

use super::chain::{self, Head, Link};
use super::counts::Counts;
use super::encode::{Stamp, field, number};

/// Bytes of a gathering group at which it is written without waiting for a commit.
pub(super) const GROUP_MAX: usize = 1 << 20;
/// Bytes of facts that are kept while the log cannot be written; outcomes may use twice this, so
/// that a flood of denials cannot displace the outcome of a call that ran.
pub(super) const KEPT_MAX: usize = 4 << 20;
/// Bytes by which a file may outgrow its limit after a rotation that failed, before the next try.
const ROTATE_AGAIN: u64 = 1 << 20;
/// Runs of records whose end is remembered for those who still ask. A failed write is followed by a
/// pause, so this is minutes.
const HISTORY: usize = 1024;

/// Numbers the runs of records between failures, for all logs of the process, so that a ticket of
/// one log or of a withdrawn record never passes for another's.
static RUNS: AtomicU64 = AtomicU64::new(0);

fn next_run() -> u64 {
    RUNS.fetch_add(1, Ordering::Relaxed)
}

/// A place in the log. Ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket {
    run: u64,
    seq: u64,
}

impl Ticket {
    /// The record's number in the log, once it is written.
    #[must_use]
    pub const fn seq(self) -> u64 {
        self.seq
    }

    /// Whether it is of this run and not behind `written`.
    pub(super) const fn is_within(self, run: u64, written: u64) -> bool {
        self.run == run && self.seq <= written
    }

    /// Whether a log that is written up to here has `other` for certain.
    pub(super) const fn covers(self, other: Self) -> bool {
        other.is_within(self.run, self.seq)
    }
}

/// What becomes of a record when its group cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// An allowed call: withdrawn, and counted.
    Decision,
    /// Something else that the caller then does not do: withdrawn.
    Claim,
    /// The first line of a file: goes with the file.
    Header,
    /// How a call that ran has ended: kept, before everything else.
    Outcome,
    /// What happened: kept.
    Fact,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    len: usize,
    standing: Standing,
}

/// A place inside a group: so many bytes, so many records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) bytes: usize,
    pub(super) records: usize,
}

/// Records that go to the operating system together.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) bytes: Vec<u8>,
    marks: Vec<Mark>,
    /// Where a new file begins.
    pub(super) cuts: Vec<Cut>,
    first: u64,
    end: Option<Link>,
    /// What survived a failure already and need not be looked at again.
    settled: Cut,
}

impl Group {
    /// The end of the group.
    pub(super) fn whole(&self) -> Cut {
        Cut {
            bytes: self.bytes.len(),
            records: self.marks.len(),
        }
    }

    /// Forgets everything and keeps a sensible amount of memory.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(GROUP_MAX);
        self.marks.clear();
        self.cuts.clear();
        self.end = None;
        self.settled = Cut::default();
    }

    fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }
}

/// What became of a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Gathering,
    Written,
    Withdrawn,
}

/// Why a group could not be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) cause: String,
    pub(super) kind: FailureKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// The write failed and what it left was cut off.
    Write,
    /// What a failed write left could not be cut off.
    Uncut,
    /// The next file could not be begun.
    Rotate,
}

/// A time during which the log could not be written.
#[derive(Clone, Debug)]
pub(super) struct Outage {
    pub(super) since: String,
    pub(super) cause: String,
    pub(super) broken: bool,
    pub(super) withdrawn: u64,
    pub(super) lost: u64,
}

/// The gathering group and the end of the chain.
#[derive(Debug)]
pub(super) struct Gather {
    group: Group,
    run: u64,
    next: u64,
    link: Link,
    written: u64,
    written_link: Link,
    /// What was written when the run began.
    run_start: u64,
    /// Where earlier runs ended, of which something was written.
    history: VecDeque<(u64, u64)>,
    /// Bytes of the current file that are written.
    on_disk: u64,
    /// Bytes of the file that the last record belongs to, with what gathers for it.
    file_bytes: u64,
    rotate_bytes: u64,
    rotate_at: u64,
    stamp: Stamp,
    /// Of the records, under one lock with them, so that they stand in order.
    pub(super) times: TimeOfDay,
    pub(super) outage: Option<Outage>,
    /// Whether somebody will come and write what gathers.
    pub(super) awaited: bool,
    pub(super) counts: Counts,
}

impl Gather {
    /// Continues behind record `written` in a file of `file_bytes`. `rotate_bytes` 0 never rotates.
    pub(super) fn new(written: u64, link: Link, file_bytes: u64, rotate_bytes: u64) -> Self {
        let rotate_bytes = if rotate_bytes == 0 {
            u64::MAX
        } else {
            rotate_bytes
        };
        Self {
            group: Group::default(),
            run: next_run(),
            run_start: written,
            next: written + 1,
            link,
            written,
            written_link: link,
            history: VecDeque::new(),
            on_disk: file_bytes,
            file_bytes,
            rotate_bytes,
            rotate_at: rotate_bytes,
            stamp: Stamp::new(),
            times: TimeOfDay::default(),
            outage: None,
            awaited: false,
            counts: Counts::default(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.group.is_empty()
    }

    /// Whether the group is so large that it should not wait.
    pub(super) fn is_full(&self) -> bool {
        self.group.bytes.len() >= GROUP_MAX
    }

    /// The number of the run that gathers.
    pub(super) const fn run(&self) -> u64 {
        self.run
    }

    /// The number of the last record that the operating system has.
    pub(super) const fn written_seq(&self) -> u64 {
        self.written
    }

    /// Chains one record. `body` appends `,"event":…` and what follows, without the closing brace.
    pub(super) fn append(
        &mut self,
        standing: Standing,
        now: Duration,
        body: impl FnOnce(&mut Vec<u8>),
    ) -> Ticket {
        if self.file_bytes == 0 {
            self.header(now);
        } else if self.file_bytes >= self.rotate_at {
            let cut = self.group.whole();
            self.group.cuts.push(cut);
            self.rotate_at = self.rotate_bytes;
            self.file_bytes = 0;
            self.header(now);
        }
        self.record(standing, now, body)
    }

    /// The first line of a file.
    fn header(&mut self, now: Duration) {
        let before = self.next - 1;
        self.record(Standing::Header, now, |out| {
            field(
                out,
                "event",
                if before == 0 {
                    "log_started"
                } else {
                    "log_continued"
                },
            );
            number(out, "format", 1);
            field(out, "version", env!("CARGO_PKG_VERSION"));
            if before > 0 {
                number(out, "previous", before);
            }
        });
    }

    fn record(
        &mut self,
        standing: Standing,
        now: Duration,
        body: impl FnOnce(&mut Vec<u8>),
    ) -> Ticket {
        let seq = self.next;
        if self.group.is_empty() {
            self.group.first = seq;
        }
        let out = &mut self.group.bytes;
        let start = out.len();
        out.reserve(1024);
        chain::begin(out, seq, &self.link);
        out.extend_from_slice(b",\"time\":\"");
        self.stamp.write(out, now);
        out.push(b'"');
        body(out);
        out.push(b'}');
        self.link = chain::link_at(out, start);
        out.push(b'\n');
        let len = out.len() - start;
        self.group.marks.push(Mark { len, standing });
        self.file_bytes += len as u64;
        self.next += 1;
        Ticket { run: self.run, seq }
    }

    /// What became of a ticket. One whose run is long forgotten counts as withdrawn: the safe side.
    pub(super) fn fate(&self, ticket: Ticket) -> Fate {
        let (end, live) = if ticket.run == self.run {
            (self.written, true)
        } else {
            let past = self
                .history
                .iter()
                .rev()
                .find(|(run, _)| *run == ticket.run);
            (past.map_or(0, |(_, end)| *end), false)
        };
        match (ticket.seq <= end, live) {
            (true, _) => Fate::Written,
            (false, true) => Fate::Gathering,
            (false, false) => Fate::Withdrawn,
        }
    }

    /// Hands the group over to be written; `spare` is a cleared one.
    pub(super) fn take(&mut self, spare: &mut Group) {
        self.group.end = Some(self.link);
        std::mem::swap(&mut self.group, spare);
    }

    /// The operating system has all of `group`, as of this moment. Returns the outage that this ends.
    pub(super) fn wrote(&mut self, group: &Group, moment: Instant) -> Option<Outage> {
        self.written = group.first + group.marks.len() as u64 - 1;
        self.written_link = group.end.unwrap_or(self.link);
        let before = if group.cuts.is_empty() {
            self.on_disk
        } else {
            0
        };
        let last = group.cuts.last().map_or(0, |cut| cut.bytes);
        self.on_disk = before + (group.bytes.len() - last) as u64;
        let outage = self.outage.take()?;
        let now = self.times.at(moment);
        self.append(Standing::Fact, now, |out| {
            field(out, "event", "log_recovered");
            field(out, "since", &outage.since);
            field(out, "cause", &outage.cause);
            number(out, "refused_calls", outage.withdrawn);
            number(out, "lost_records", outage.lost);
        });
        Some(outage)
    }

    /// The operating system has `group` up to `done` and not the rest; the file has `on_disk`
    /// bytes. Returns whether this begins an outage.
    pub(super) fn failed(
        &mut self,
        group: &mut Group,
        done: Cut,
        on_disk: u64,
        failure: Failure,
        now: Duration,
    ) -> bool {
        if done.records > 0 {
            self.written = group.first + done.records as u64 - 1;
            // The first record behind the cut names the last one before it.
            self.written_link =
                Head::read(&group.bytes[done.bytes..]).map_or(self.written_link, |h| *h.prev);
            group.bytes.drain(..done.bytes);
            group.marks.drain(..done.records);
            group.settled = Cut::default();
        }
        group.bytes.extend_from_slice(&self.group.bytes);
        group.marks.append(&mut self.group.marks);
        std::mem::swap(&mut self.group, group);
        self.on_disk = on_disk;
        if failure.kind == FailureKind::Rotate {
            self.rotate_at = on_disk.saturating_add(ROTATE_AGAIN);
        }
        let begins = self.outage.is_none();
        self.begin_outage(failure, now);
        self.withdraw();
        begins
    }

    fn begin_outage(&mut self, failure: Failure, now: Duration) {
        let Failure { cause, kind } = failure;
        let broken = kind == FailureKind::Uncut;
        if let Some(outage) = &mut self.outage {
            outage.cause = cause;
            outage.broken = broken;
            return;
        }
        let mut since = Vec::new();
        self.stamp.write(&mut since, now);
        let since = String::from_utf8_lossy(&since).into_owned();
        self.outage = Some(Outage {
            since,
            cause,
            broken,
            withdrawn: 0,
            lost: 0,
        });
    }

    /// Withdraws every claim that gathers and gives the facts new places behind the last record
    /// that is written. For use while the log cannot be written.
    pub(super) fn withdraw(&mut self) {
        let settled = self.group.settled;
        if settled != self.group.whole() {
            self.end_run();
            self.rebuild(settled);
        }
        self.file_bytes = self.on_disk + self.group.bytes.len() as u64;
    }

    fn end_run(&mut self) {
        if self.written > self.run_start {
            self.history.push_back((self.run, self.written));
            if self.history.len() > HISTORY {
                self.history.pop_front();
            }
        }
        self.run = next_run();
        self.run_start = self.written;
    }

    /// Chains everything behind `settled` again, without the claims.
    fn rebuild(&mut self, settled: Cut) {
        let tail = self.group.bytes.split_off(settled.bytes);
        let marks = self.group.marks.split_off(settled.records);
        self.group.cuts.clear();
        self.group.first = self.written + 1;
        self.next = self.group.first + settled.records as u64;
        self.link = self.last_link();
        let mut rest = tail.as_slice();
        for mark in marks {
            let (line, after) = rest.split_at(mark.len);
            rest = after;
            if self.keeps(mark) {
                self.rechain(line, mark.standing);
            }
        }
        self.group.settled = self.group.whole();
    }

    /// The hash of the last record that gathers, or of the last written one.
    fn last_link(&self) -> Link {
        let Some(mark) = self.group.marks.last() else {
            return self.written_link;
        };
        let end = self.group.bytes.len();
        chain::link(&self.group.bytes[end - mark.len..end - 1])
    }

    fn keeps(&mut self, mark: Mark) -> bool {
        let room = match mark.standing {
            // A file that is there and empty still needs its first line.
            Standing::Header => return self.on_disk == 0 && self.group.is_empty(),
            Standing::Claim => return false,
            Standing::Decision => {
                if let Some(outage) = &mut self.outage {
                    outage.withdrawn += 1;
                }
                return false;
            }
            Standing::Fact => KEPT_MAX,
            Standing::Outcome => 2 * KEPT_MAX,
        };
        let fits = self.group.bytes.len() + mark.len <= room;
        if !fits && let Some(outage) = &mut self.outage {
            outage.lost += 1;
        }
        fits
    }

    /// Appends a line that was chained before, with its time and body as they are.
    fn rechain(&mut self, line: &[u8], standing: Standing) {
        // Every line that gathers was begun by `chain::begin`, so there is a head to read.
        let Some(head) = Head::read(line) else { return };
        let out = &mut self.group.bytes;
        let start = out.len();
        chain::begin(out, self.next, &self.link);
        out.extend_from_slice(head.rest);
        let len = out.len() - start;
        self.link = chain::link(&out[start..start + len - 1]);
        self.group.marks.push(Mark { len, standing });
        self.next += 1;
    }
}
