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

#[cfg(test)]
mod tests {
    use super::super::files::log_files;
    use super::super::fixture::{assert_intact, deny, facts};
    use super::super::log::AuditLog;
    use super::super::open::AuditOptions;
    use super::*;

    const RECORDS: usize = 9;

    /// The lines of a log with so many records, without their line feeds.
    fn lines(name: &str) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let (log, _) = AuditLog::open(AuditOptions::new(&path)).unwrap();
        for id in 1..RECORDS as u64 {
            log.denied(&facts(1), &deny(name, id));
        }
        log.close().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn check_bytes(bytes: &[u8]) -> Report {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        std::fs::write(&path, bytes).unwrap();
        let report = verify_files(&[&path]).unwrap();
        for finding in &report.findings {
            // Wherever a finding points to, a line begins.
            let offset = usize::try_from(finding.offset).unwrap();
            let before = bytes[..offset].iter().filter(|&&b| b == b'\n').count() as u64;
            assert!(offset == 0 || bytes[offset - 1] == b'\n');
            assert_eq!(finding.line, before + 1);
        }
        report
    }

    fn joined<S: AsRef<str>>(lines: &[S]) -> Vec<u8> {
        lines
            .iter()
            .flat_map(|l| [l.as_ref().as_bytes(), b"\n"].concat())
            .collect()
    }

    /// Line and text of each finding.
    #[track_caller]
    fn findings<S: AsRef<str>>(lines: &[S]) -> Vec<(u64, String)> {
        let report = check_bytes(&joined(lines));
        assert_eq!(report.intact(), report.findings.is_empty());
        report
            .findings
            .into_iter()
            .map(|f| (f.line, f.what))
            .collect()
    }

    fn found(line: u64, what: &str) -> Vec<(u64, String)> {
        vec![(line, what.to_owned())]
    }

    #[test]
    fn every_byte_that_is_changed_is_found_in_its_line() {
        let lines = lines("a");
        assert!(check_bytes(&joined(&lines)).intact());
        let whole = joined(&lines);
        let mut offset = 0;
        for (n, line) in lines.iter().enumerate().take(RECORDS - 1) {
            let looked_at = [0, 3, RECORDS - 2].contains(&n);
            for at in (offset..=offset + line.len()).filter(|_| looked_at) {
                let mut bytes = whole.clone();
                bytes[at] ^= 1;
                let report = check_bytes(&bytes);
                let lines: Vec<u64> = report.findings.iter().map(|f| f.line).collect();
                // A line feed less makes one line of two.
                let expected = if bytes[at] == b'\x0b' { 2 } else { 1 };
                assert!(lines.len() <= expected, "byte {at}: {:?}", report.findings);
                assert_eq!(lines.first(), Some(&(n as u64 + 1)), "byte {at}");
            }
            offset += line.len() + 1;
        }
    }

    #[test]
    fn a_record_that_was_rewritten_well_is_found() {
        let mut lines = lines("a");
        lines[4] = lines[4].replace("false", "true");
        assert_eq!(
            findings(&lines),
            found(5, "altered: the next record names another hash")
        );
        lines[5] = lines[5].replace("false", "true");
        let what = "altered: neither does it name the record before, nor the next one it";
        assert_eq!(findings(&lines), found(6, what));
    }

    #[test]
    fn the_newest_record_is_vouched_for_by_its_hash_alone() {
        let mut lines = lines("a");
        let hash = check_bytes(&joined(&lines)).last.unwrap().hash;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let held = |lines: &[String]| {
            std::fs::write(&path, joined(lines)).unwrap();
            verify_files_holding(&[&path], Some(&hash)).unwrap()
        };
        assert!(held(&lines).intact());
        assert_eq!(held(&lines[..RECORDS - 1]).held, Some(false));
        lines[RECORDS - 1] = lines[RECORDS - 1].replace("false", "true");
        let altered = held(&lines);
        assert!(altered.findings.is_empty() && !altered.intact());
        // And with the record's own beginning altered, the two last records contradict.
        lines[RECORDS - 1] = lines[RECORDS - 1].replace("\"prev\":\"", "\"prev\":\"00");
        assert_eq!(held(&lines).findings[0].line, RECORDS as u64);
    }

    #[test]
    fn missing_records_are_counted_and_placed() {
        let mut one = lines("a");
        one.remove(4);
        assert_eq!(
            findings(&one),
            found(5, "record 5 is missing before this line")
        );
        let mut some = lines("a");
        some.drain(2..6);
        assert_eq!(
            findings(&some),
            found(3, "records 3 to 6 are missing before this line")
        );
        let head = lines("a").split_off(3);
        let what = "the file does not begin with its first line, but with record 4";
        assert_eq!(findings(&head), found(1, what));
    }

    #[test]
    fn records_in_another_order_are_told_from_missing_ones() {
        let mut swapped = lines("a");
        swapped.swap(4, 5);
        assert_eq!(
            findings(&swapped),
            found(5, "reordered: record 6 stands too early")
        );
        let mut late = lines("a");
        let moved = late.remove(2);
        late.insert(6, moved);
        assert_eq!(
            findings(&late),
            found(7, "reordered: record 3 stands too late")
        );
        let mut early = lines("a");
        let moved = early.remove(6);
        early.insert(2, moved);
        assert_eq!(
            findings(&early),
            found(3, "reordered: record 7 stands too early")
        );
    }

    #[test]
    fn what_was_put_there_is_found_and_nothing_else() {
        let (ours, other) = (lines("a"), lines("b"));
        let with = |at: usize, line: &str| {
            let mut lines = ours.clone();
            lines.insert(at, line.to_owned());
            findings(&lines)
        };
        let no_record = "not a record of an audit log: altered, or put there";
        assert_eq!(with(4, "{\"forged\":true}"), found(5, no_record));
        assert_eq!(with(4, ""), found(5, no_record));
        assert_eq!(with(RECORDS, "x"), found(RECORDS as u64 + 1, no_record));
        let here = |n| format!("record {n} does not belong here: put there");
        let again = |n| format!("record {n} again: a copy, or of another log");
        assert_eq!(with(4, &other[4]), found(5, &here(5)));
        assert_eq!(with(4, &other[7]), found(5, &here(8)));
        assert_eq!(with(4, &other[2]), found(5, &again(3)));
        assert_eq!(with(4, &ours[2]), found(5, &again(3)));
        assert_eq!(with(4, &ours[3]), found(5, &again(4)));
        assert_eq!(
            with(RECORDS, &other[5]),
            found(RECORDS as u64 + 1, &again(6))
        );
    }

    #[test]
    fn a_torn_last_line_is_told_with_its_length() {
        let mut bytes = joined(&lines("a"));
        bytes.truncate(bytes.len() - 10);
        let report = check_bytes(&bytes);
        assert_eq!(report.findings.len(), 1);
        assert!(report.findings[0].what.starts_with("torn last line: "));
        assert_eq!(report.findings[0].line, RECORDS as u64);
        assert_eq!(report.records, RECORDS as u64 - 1);
        assert!(check_bytes(b"").intact());
    }

    #[test]
    fn a_file_that_is_gone_or_of_another_log_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let mut options = AuditOptions::new(&path);
        options.rotate_bytes = 1500;
        let (log, _) = AuditLog::open(options).unwrap();
        for id in 0..30 {
            log.denied(&facts(1), &deny("a", id));
        }
        log.close().unwrap();
        let mut files = log_files(&path).unwrap();
        assert_intact(&files);
        // Given twice, and with what lies beside it, is fine.
        files.extend([path.clone(), dir.path().join("audit.jsonl.lock")]);
        let report = assert_intact(&files);
        assert_eq!(report.skipped.len(), 1);
        let gone = files.remove(1);
        let report = verify_files(&files).unwrap();
        assert_eq!(report.findings.len(), 1);
        assert_eq!(
            (&report.findings[0].file, report.findings[0].line),
            (&files[1], 1)
        );
        assert!(report.findings[0].what.contains("missing"));
        files.push(gone);
        let foreign = dir.path().join("foreign.jsonl");
        std::fs::write(&foreign, joined(&lines("b"))).unwrap();
        files.push(foreign.clone());
        let report = verify_files(&files).unwrap();
        assert_eq!(report.findings.len(), 1, "{report:#?}");
        assert_eq!(report.findings[0].file, foreign);
        assert!(
            report.findings[0]
                .what
                .starts_with("another log begins here")
        );
        files.push(dir.path().join("none"));
        let error = verify_files(&files).unwrap_err();
        assert!(error.to_string().contains("none"), "{error}");
    }

    #[test]
    fn a_log_that_is_wrong_everywhere_has_a_bounded_report() {
        let report = check_bytes(&b"x\n".repeat(5000));
        assert_eq!((report.findings.len(), report.more), (1000, 4000));
        assert!(!report.intact());
    }
}
