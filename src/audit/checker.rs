//! Follows a chain line by line and says where it does not hold. No I/O; memory does not grow with
//! the log.
//!
//! A link that does not hold says that one of two lines is wrong; the next link says which. A
//! record that stands where another belongs may be inserted, moved or the first behind a hole; what
//! comes later tells them apart, so a finding can be taken back.

use std::path::PathBuf;

use super::chain::{self, FIRST, Line, Link};

/// Findings that are kept; of the others only the number is.
const FINDINGS_MAX: usize = 1000;

/// Something that is wrong, and exactly where.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// The file.
    pub file: PathBuf,
    /// The line, counted from 1.
    pub line: u64,
    /// The byte at which the line begins, counted from 0.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
}

/// One end of what was read.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Edge {
    /// The record's number.
    pub seq: u64,
    /// Its time, as it says.
    pub time: String,
    /// Its hash, which the next record names.
    pub hash: String,
}

/// Where a line stands: the number of its file, its own, its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Place {
    pub(super) file: usize,
    pub(super) line: u64,
    pub(super) offset: u64,
}

/// What the next record has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Expect {
    seq: u64,
    hash: Link,
}

/// A record that stands where another belongs; the finding that says so, and what it would fit.
#[derive(Debug)]
struct Misplaced {
    seq: u64,
    prev: Link,
    hash: Link,
    finding: usize,
}

/// Records that were skipped, and the finding that says so.
#[derive(Debug)]
struct Gap {
    from: u64,
    to: u64,
    finding: usize,
}

#[derive(Debug, Default)]
pub(super) struct Checker {
    expect: Option<Expect>,
    /// What was expected before the last line.
    earlier: Option<Expect>,
    last: Place,
    /// The last record as it stands: its number, what it names, its hash.
    last_record: Option<(u64, Link, Link)>,
    /// Whether the last line is known to be wrong.
    blamed: bool,
    /// The line before the last one, where the link between the two does not hold.
    suspect: Option<Place>,
    gaps: Vec<Gap>,
    misplaced: Vec<Misplaced>,
    /// Findings may be taken back, and keep their number.
    findings: Vec<Option<(Place, String)>>,
    more: u64,
    pub(super) records: u64,
    pub(super) first: Option<Edge>,
    pub(super) end: Option<Edge>,
}

impl Checker {
    /// Looks at one whole line. Returns false when the rest of its file is of no interest.
    pub(super) fn line(&mut self, place: Place, bytes: &[u8]) -> bool {
        let hash = chain::link(bytes);
        let Some(line) = Line::read(bytes) else {
            self.unreadable(place, hash);
            return true;
        };
        let mut headless = false;
        if place.line == 1 {
            if self.begins_anew(place, &line) {
                return false;
            }
            headless = self.is_headless(place, &line);
        }
        self.records += 1;
        let edge = Edge {
            seq: line.head.seq,
            time: line.time.clone().into_owned(),
            hash: String::from_utf8_lossy(&hash).into_owned(),
        };
        if self.first.is_none() {
            self.first = Some(edge.clone());
        }
        if self.record(place, line.head.seq, *line.head.prev, hash) {
            self.end = Some(edge);
        }
        // Said already, whatever the next record names.
        self.blamed |= headless;
        true
    }

    /// A last line without its end.
    pub(super) fn torn(&mut self, place: Place, bytes: u64) {
        self.find(
            place,
            format!("torn last line: {bytes} bytes without a line feed"),
        );
    }

    /// A line so long that it was not read.
    pub(super) fn endless(&mut self, place: Place) {
        self.unreadable(place, FIRST);
    }

    /// Whatever is still undecided is said now. Returns the findings in the order of the lines,
    /// and how many more there were.
    pub(super) fn finish(&mut self) -> (Vec<(Place, String)>, u64) {
        if let Some(place) = self.suspect.take() {
            self.either(place);
        }
        let mut findings: Vec<_> = self.findings.drain(..).flatten().collect();
        findings.sort_by_key(|(place, _)| *place);
        (findings, self.more)
    }

    /// Whether another log begins where this one should go on.
    fn begins_anew(&mut self, place: Place, line: &Line<'_>) -> bool {
        let anew = line.event == "log_started" && line.head.seq == 1 && self.expect.is_some();
        if anew {
            let what = "another log begins here; the rest of the file was not looked at";
            self.find(place, String::from(what));
        }
        anew
    }

    /// Whether a file begins with something else than its first line.
    fn is_headless(&mut self, place: Place, line: &Line<'_>) -> bool {
        let headless = !matches!(&*line.event, "log_started" | "log_continued");
        if headless {
            let seq = line.head.seq;
            let what =
                format!("the file does not begin with its first line, but with record {seq}");
            self.find(place, what);
        }
        headless
    }

    fn unreadable(&mut self, place: Place, hash: Link) {
        self.find(
            place,
            String::from("not a record of an audit log: altered, or put there"),
        );
        if let Some(suspect) = self.suspect.take() {
            self.either(suspect);
        }
        self.earlier = self.expect;
        if let Some(expect) = &mut self.expect {
            *expect = Expect {
                seq: expect.seq.saturating_add(1),
                hash,
            };
        }
        self.last = place;
        self.last_record = None;
        self.blamed = true;
    }

    /// Looks at a record's place in the chain. Returns whether it is the newest one so far.
    fn record(&mut self, place: Place, seq: u64, prev: Link, hash: Link) -> bool {
        let Some(expect) = self.expect else {
            self.first_record(place, seq, prev, hash);
            return true;
        };
        let links = prev == expect.hash;
        if links {
            self.settle_suspect();
            if seq != expect.seq {
                let what = format!("altered: it says {seq} where {} belongs", expect.seq);
                self.find(place, what);
                self.advance(place, expect.seq, prev, hash);
                self.blamed = true;
                return true;
            }
        } else if seq == expect.seq {
            self.broken_link();
        } else if self.last_record.is_some_and(|(_, _, last)| last == hash) {
            self.late(place, seq);
            return false;
        } else if self.earlier.is_some_and(|e| e.seq == seq && e.hash == prev) {
            self.last_is_inserted();
        } else if seq > expect.seq {
            self.gap(place, expect, seq, prev);
        } else {
            self.late(place, seq);
            return false;
        }
        self.advance(place, seq, prev, hash);
        true
    }

    /// The first record of the log names none before it; any other may begin what was given.
    fn first_record(&mut self, place: Place, seq: u64, prev: Link, hash: Link) {
        let altered = (seq == 1) != (prev == FIRST);
        let seq = if prev == FIRST { 1 } else { seq };
        self.advance(place, seq, prev, hash);
        if altered {
            self.find(
                place,
                String::from("altered: only record 1 names none before it"),
            );
            self.blamed = true;
        }
    }

    fn advance(&mut self, place: Place, seq: u64, prev: Link, hash: Link) {
        self.earlier = self.expect;
        self.expect = Some(Expect {
            seq: seq.saturating_add(1),
            hash,
        });
        self.last = place;
        self.last_record = Some((seq, prev, hash));
        self.blamed = false;
    }

    /// The record after the last one holds, so it was the one before that is wrong.
    fn settle_suspect(&mut self) {
        if let Some(place) = self.suspect.take() {
            self.find(
                place,
                String::from("altered: the next record names another hash"),
            );
        }
    }

    fn broken_link(&mut self) {
        if self.blamed {
            // Expected: a wrong line has another hash than its successor names.
        } else if self.suspect.take().is_some() {
            let what = "altered: neither does it name the record before, nor the next one it";
            self.find(self.last, String::from(what));
        } else {
            self.suspect = Some(self.last);
        }
    }

    fn either(&mut self, place: Place) {
        let what = "altered, or the record behind it is not its successor: the hashes do not fit";
        self.find(place, String::from(what));
    }

    /// The last line is none of the chain: what comes now fits the one before it.
    fn last_is_inserted(&mut self) {
        self.suspect = None;
        if let Some((seq, prev, hash)) = self.last_record
            && !self.blamed
        {
            if self.gaps.last().is_some_and(|gap| gap.to + 1 == seq)
                && let Some(gap) = self.gaps.pop()
            {
                self.take_back(gap.finding);
            }
            let what = format!("record {seq} does not belong here: put there");
            let finding = self.find(self.last, what);
            if self.misplaced.len() < FINDINGS_MAX {
                self.misplaced.push(Misplaced {
                    seq,
                    prev,
                    hash,
                    finding,
                });
            }
        }
        self.expect = self.earlier;
    }

    fn gap(&mut self, place: Place, expect: Expect, seq: u64, prev: Link) {
        if let Some(suspect) = self.suspect.take() {
            self.either(suspect);
        }
        let moved = self.misplaced.iter().position(|m| {
            m.seq == expect.seq && seq == m.seq + 1 && m.prev == expect.hash && prev == m.hash
        });
        if let Some(at) = moved {
            let moved = self.misplaced.swap_remove(at);
            self.say_again(
                moved.finding,
                format!("reordered: record {} stands too early", moved.seq),
            );
            return;
        }
        let (from, to) = (expect.seq, seq - 1);
        let what = if from == to {
            format!("record {from} is missing before this line")
        } else {
            format!("records {from} to {to} are missing before this line")
        };
        let finding = self.find(place, what);
        if self.gaps.len() < FINDINGS_MAX {
            self.gaps.push(Gap { from, to, finding });
        }
    }

    /// A record with a number that was passed already.
    fn late(&mut self, place: Place, seq: u64) {
        let Some(at) = self.gaps.iter().position(|g| g.from <= seq && seq <= g.to) else {
            let what = format!("record {seq} again: a copy, or of another log");
            self.find(place, what);
            return;
        };
        self.find(place, format!("reordered: record {seq} stands too late"));
        let Gap { from, to, finding } = self.gaps.swap_remove(at);
        if from == to {
            self.take_back(finding);
            return;
        }
        for (from, to) in [(from, seq - 1), (seq + 1, to)] {
            if from <= to {
                self.gaps.push(Gap { from, to, finding });
            }
        }
        let left: Vec<String> = self
            .gaps
            .iter()
            .filter(|g| g.finding == finding)
            .map(|g| {
                if g.from == g.to {
                    g.from.to_string()
                } else {
                    format!("{} to {}", g.from, g.to)
                }
            })
            .collect();
        self.say_again(
            finding,
            format!("records {} are missing before this line", left.join(", ")),
        );
    }

    /// Keeps a finding and returns its number.
    fn find(&mut self, place: Place, what: String) -> usize {
        if self.findings.len() == FINDINGS_MAX {
            self.more += 1;
            return FINDINGS_MAX;
        }
        self.findings.push(Some((place, what)));
        self.findings.len() - 1
    }

    fn say_again(&mut self, finding: usize, what: String) {
        if let Some(Some(found)) = self.findings.get_mut(finding) {
            found.1 = what;
        }
    }

    fn take_back(&mut self, finding: usize) {
        match self.findings.get_mut(finding) {
            Some(found) => *found = None,
            None => self.more = self.more.saturating_sub(1),
        }
    }
}
