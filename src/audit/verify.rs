//! `audit verify`: what is intact, and where exactly it is not.
//!
//! Reads each file once, line by line. It cannot know a log that was rewritten as a whole, or that
//! lost its newest records, from a log that was always so: for that, keep the hash of a record
//! somewhere else and look for it ([`verify_files_holding`]).

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::chain::Head;
use super::checker::{Checker, Edge, Finding, Place};

/// The longest line that is read.
const LINE_MAX: u64 = 64 << 20;
/// How often, and after what pause, a last line without its end is read again: a server may be
/// writing it.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(20);

/// What was read and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// Files that were read, in the order of their records.
    pub files: Vec<PathBuf>,
    /// Files that were passed over: what the log set aside, and its lock.
    pub skipped: Vec<PathBuf>,
    /// Records that were read.
    pub records: u64,
    /// The first record. If its number is not 1, the log has earlier files.
    pub first: Option<Edge>,
    /// The newest record that is in its place.
    pub last: Option<Edge>,
    /// What is wrong, in the order of the lines.
    pub findings: Vec<Finding>,
    /// Findings beyond the first thousand.
    pub more: u64,
    /// Whether the record that was looked for is there, if one was.
    pub held: Option<bool>,
}

impl Report {
    /// Nothing is wrong.
    #[must_use]
    pub fn intact(&self) -> bool {
        self.findings.is_empty() && self.more == 0 && self.held != Some(false)
    }
}

/// Checks one log that may lie in several files, given in any order.
///
/// # Errors
/// A file cannot be read; the error names it.
pub fn verify_files<P: AsRef<Path>>(files: &[P]) -> io::Result<Report> {
    verify_files_holding(files, None)
}

/// As [`verify_files`], and looks for the record with this hash (64 lower-case hex digits), which
/// somebody noted before: then nothing up to it was removed or rewritten.
///
/// # Errors
/// A file cannot be read; the error names it.
pub fn verify_files_holding<P: AsRef<Path>>(files: &[P], hash: Option<&str>) -> io::Result<Report> {
    let mut report = Report {
        held: hash.map(|_| false),
        ..Report::default()
    };
    let mut ordered = Vec::new();
    let mut seen = BTreeSet::new();
    for file in files {
        let path = file.as_ref();
        if is_aside(path) {
            report.skipped.push(path.to_path_buf());
        } else if seen.insert(std::fs::canonicalize(path).map_err(|e| named(path, &e))?) {
            ordered.push((
                first_seq(path).map_err(|e| named(path, &e))?,
                path.to_path_buf(),
            ));
        }
    }
    ordered.sort();
    report.files = ordered.into_iter().map(|(_, path)| path).collect();
    let mut checker = Checker::default();
    for (number, path) in report.files.iter().enumerate() {
        let mut look = Look {
            checker: &mut checker,
            hash,
            held: false,
        };
        look.file(number, path).map_err(|e| named(path, &e))?;
        if look.held {
            report.held = Some(true);
        }
    }
    let (findings, more) = checker.finish();
    report.findings = findings
        .into_iter()
        .map(|(place, what)| Finding {
            file: report.files[place.file].clone(),
            line: place.line,
            offset: place.offset,
            what,
        })
        .collect();
    report.more = more;
    report.records = checker.records;
    report.first = checker.first;
    report.last = checker.end;
    Ok(report)
}

struct Look<'a> {
    checker: &'a mut Checker,
    hash: Option<&'a str>,
    held: bool,
}

impl Look<'_> {
    fn file(&mut self, number: usize, path: &Path) -> io::Result<()> {
        let mut reader = BufReader::with_capacity(256 << 10, File::open(path)?);
        let mut place = Place {
            file: number,
            line: 1,
            offset: 0,
        };
        let mut line = Vec::new();
        loop {
            line.clear();
            read_line(&mut reader, &mut line)?;
            if line.is_empty() {
                return Ok(());
            }
            let mut length = line.len() as u64;
            if line.last() == Some(&b'\n') {
                line.pop();
                if !self.line(place, &line) {
                    return Ok(());
                }
            } else if length == LINE_MAX {
                self.checker.endless(place);
                length += skip_line(&mut reader)?;
            } else {
                self.checker.torn(place, length);
            }
            place.line += 1;
            place.offset += length;
        }
    }

    fn line(&mut self, place: Place, line: &[u8]) -> bool {
        if let Some(hash) = self.hash
            && !self.held
        {
            self.held = super::chain::link(line) == hash.as_bytes();
        }
        self.checker.line(place, line)
    }
}

/// Reads up to and with the next line feed, at most [`LINE_MAX`] bytes.
fn read_line(reader: &mut BufReader<File>, line: &mut Vec<u8>) -> io::Result<()> {
    for attempt in 0..TRIES {
        let left = LINE_MAX - line.len() as u64;
        let read = reader.take(left).read_until(b'\n', line)?;
        if line.is_empty() || line.last() == Some(&b'\n') || line.len() as u64 == LINE_MAX {
            break;
        }
        if read == 0 || attempt == 0 {
            std::thread::sleep(PAUSE);
        }
    }
    Ok(())
}

fn skip_line(reader: &mut BufReader<File>) -> io::Result<u64> {
    let mut skipped = 0;
    loop {
        let mut piece = Vec::new();
        skipped += reader.take(1 << 20).read_until(b'\n', &mut piece)? as u64;
        if piece.is_empty() || piece.last() == Some(&b'\n') {
            return Ok(skipped);
        }
    }
}

/// The number of the first record that can be read near the beginning of a file.
fn first_seq(path: &Path) -> io::Result<u64> {
    let mut reader = BufReader::new(File::open(path)?);
    let mut line = Vec::new();
    for _ in 0..16 {
        line.clear();
        (&mut reader).take(LINE_MAX).read_until(b'\n', &mut line)?;
        if let Some(head) = Head::read(&line) {
            return Ok(head.seq);
        }
    }
    Ok(u64::MAX)
}

/// Whether a file lies beside a log and is none: `FILE.lock`, `FILE.torn-N`.
fn is_aside(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|n| n.to_str()) else {
        return false;
    };
    let torn = name
        .rsplit_once(".torn-")
        .is_some_and(|(_, n)| n.bytes().all(|b| b.is_ascii_digit() || b == b'-') && !n.is_empty());
    torn || path.extension().is_some_and(|e| e == "lock")
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("`{}`: {error}", path.display()))
}
