//! Opening a log: one process at a time, and the chain goes on where it ended.
//!
//! Only the end of the newest file is read. What stands behind its last whole record (a process was
//! killed while it wrote, a power cut left zeros) was never acknowledged to anybody: it is set
//! aside, cut off and reported. Anything else that is wrong refuses to open; `audit verify` says
//! where.

use std::fs::{File, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use super::chain::{self, FIRST, Line, Link};
use super::files::{appending, beside, rotated};

/// The longest end of a file that is searched for its last records.
const END_MAX: u64 = 64 << 20;

/// When the log is flushed from the operating system to the disk. In both modes a record is with
/// the operating system before its call runs, which a killed process cannot undo; the difference
/// shows when the machine itself fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SyncMode {
    /// When the operating system sees fit; a power cut can cost the last half minute. Costs nothing.
    #[default]
    Never,
    /// Once a second in which something was written, beside the calls. Costs one `fdatasync` a
    /// second; a power cut can cost the last second.
    EverySecond,
}

/// `[audit]`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditOptions {
    /// The file; rotated ones get a number behind.
    pub path: PathBuf,
    /// Bytes after which the file is rotated; 0 never does. A file is at most one record longer.
    pub rotate_bytes: u64,
    /// Rotated files that are kept; 0 keeps all.
    pub keep: u32,
    /// Whether arguments are written out beside their digest.
    pub arguments: bool,
    /// When the file is flushed to the disk.
    pub sync: SyncMode,
}

impl AuditOptions {
    /// The defaults: rotated at 256 MiB, all files kept, arguments as digests, no syncing.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            rotate_bytes: 256 << 20,
            keep: 0,
            arguments: false,
            sync: SyncMode::Never,
        }
    }
}

/// Why the log cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    /// The operating system refused; a full disk, say. Ends by itself when it no longer does.
    #[error("the audit log `{path}` cannot be written: {cause}")]
    Unwritable {
        /// The log's file.
        path: String,
        /// What the operating system said.
        cause: String,
    },
    /// The log's end is not what this process or an earlier one wrote.
    #[error("the audit log `{path}` is broken: {cause}")]
    Broken {
        /// The log's file.
        path: String,
        /// What is wrong.
        cause: String,
    },
    /// Another process has the log open.
    #[error("the audit log `{path}` is open in another process")]
    Busy {
        /// The log's file.
        path: String,
    },
    /// A proof that does not cover the record it was shown for: a mistake of the caller.
    #[error("the audit record of this call is not written")]
    NotWritten,
}

/// What opening an existing log found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The number of the last record: how many there are since the log began.
    pub records: u64,
    /// Where a torn last line was set aside.
    pub set_aside: Option<PathBuf>,
    /// Bytes of it.
    pub torn_bytes: u64,
}

/// A log that is open, locked, and ends in a whole record.
pub(super) struct Opened {
    pub(super) lock: File,
    pub(super) file: File,
    pub(super) len: u64,
    pub(super) link: Link,
    pub(super) next_number: u64,
    pub(super) recovery: Recovery,
}

/// Locks, opens and recovers the log at `path`.
///
/// # Errors
/// As [`AuditError`] says.
pub(super) fn open(path: &Path) -> Result<Opened, AuditError> {
    let unwritable = |cause: String| AuditError::Unwritable {
        path: shown(path),
        cause,
    };
    let failed = |error: io::Error| unwritable(error.to_string());
    match std::fs::symlink_metadata(path) {
        Ok(meta) if !meta.is_file() => return Err(unwritable(String::from("it is not a file"))),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let lock = lock(path)?;
    let files = rotated(path).map_err(failed)?;
    let mut file = appending().create(true).open(path).map_err(failed)?;
    let mut end = recover(path, path, &mut file)?;
    let len = file.metadata().map_err(failed)?.len();
    // An empty file was begun when the process died, and the chain ends in the one before.
    for (_, earlier) in files.iter().rev() {
        if end.last.is_some() {
            break;
        }
        let mut earlier_file = appending().open(earlier).map_err(failed)?;
        let found = recover(path, earlier, &mut earlier_file)?;
        end.last = found.last;
        if found.set_aside.is_some() {
            (end.set_aside, end.torn_bytes) = (found.set_aside, found.torn_bytes);
        }
    }
    let (records, link) = end.last.unwrap_or((0, FIRST));
    Ok(Opened {
        lock,
        file,
        len,
        link,
        next_number: files.last().map_or(1, |(number, _)| number + 1),
        recovery: Recovery {
            records,
            set_aside: end.set_aside,
            torn_bytes: end.torn_bytes,
        },
    })
}

/// Takes the lock of the log. It is a file of its own because the log's own file changes with a
/// rotation.
fn lock(path: &Path) -> Result<File, AuditError> {
    let file = beside(path, ".lock");
    let failed = |error: io::Error| AuditError::Unwritable {
        path: shown(path),
        cause: format!("its lock `{}`: {error}", file.display()),
    };
    let lock = appending().create(true).open(&file).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(AuditError::Busy { path: shown(path) }),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// The end of one file, once it is whole.
#[derive(Default)]
struct End {
    last: Option<(u64, Link)>,
    set_aside: Option<PathBuf>,
    torn_bytes: u64,
}

/// Finds the last record of `file` and sets aside what stands behind it.
fn recover(log: &Path, path: &Path, file: &mut File) -> Result<End, AuditError> {
    let unwritable = |error: io::Error| AuditError::Unwritable {
        path: shown(path),
        cause: error.to_string(),
    };
    let broken = |cause: &str| AuditError::Broken {
        path: shown(path),
        cause: cause.to_owned(),
    };
    let (start, bytes) = end_of(file).map_err(unwritable)?;
    let whole = bytes
        .iter()
        .rposition(|&b| b == b'\n')
        .map_or(0, |at| at + 1);
    let mut lines = bytes[..whole].split_inclusive(|&b| b == b'\n').rev();
    let mut good = whole;
    let mut last = lines.next().map(without_feed);
    if whole == 0 && start > 0 {
        return Err(broken("its last line is longer than 64 MiB"));
    }
    if last.is_some_and(|line| Line::read(line).is_none()) {
        good -= last.map_or(0, |line| line.len() + 1);
        last = lines.next().map(without_feed);
        if last.is_none() && (start > 0 || good > 0) {
            return Err(broken("no record within its last 64 MiB"));
        }
    }
    let end = match last {
        None => None,
        Some(line) => {
            let read = Line::read(line).ok_or_else(|| broken("its last lines are no records"))?;
            check_before(&read, lines.next().map(without_feed), start).map_err(&broken)?;
            Some((read.head.seq, chain::link(line)))
        }
    };
    let torn = &bytes[good..];
    let mut found = End {
        last: end,
        set_aside: None,
        torn_bytes: torn.len() as u64,
    };
    if !torn.is_empty() {
        let place = format!(".torn-{}", end.map_or(1, |(seq, _)| seq + 1));
        found.set_aside = Some(set_aside(&beside(log, &place), torn).map_err(unwritable)?);
        file.set_len(start + good as u64).map_err(unwritable)?;
    }
    Ok(found)
}

/// Whether the last record is chained to the one before it, where that one is at hand.
fn check_before(last: &Line<'_>, before: Option<&[u8]>, start: u64) -> Result<(), &'static str> {
    let Some(line) = before else { return Ok(()) };
    let Some(before) = Line::read(line) else {
        // The first of the lines at hand may have lost its beginning.
        return if start > 0 {
            Ok(())
        } else {
            Err("the record before its last one is no record")
        };
    };
    if before.head.seq.checked_add(1) == Some(last.head.seq) && *last.head.prev == chain::link(line)
    {
        return Ok(());
    }
    Err("its last record is not chained to the one before it")
}

/// The end of a file: at least its last three lines, or all of it, or [`END_MAX`] bytes; and where
/// that begins.
fn end_of(file: &mut File) -> io::Result<(u64, Vec<u8>)> {
    let len = file.metadata()?.len();
    let mut want = 64 << 10;
    loop {
        let start = len.saturating_sub(want);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.take(len - start).read_to_end(&mut bytes)?;
        let enough = bytes.iter().filter(|&&b| b == b'\n').count() > 3;
        if enough || start == 0 || want >= END_MAX {
            return Ok((start, bytes));
        }
        want *= 2;
    }
}

/// Keeps `torn` in a file of its own and returns which. A second try after a crash finds the same
/// bytes there and is content.
fn set_aside(path: &Path, torn: &[u8]) -> io::Result<PathBuf> {
    for nth in 0.. {
        let place = if nth == 0 {
            path.to_path_buf()
        } else {
            beside(path, &format!("-{nth}"))
        };
        match appending().create_new(true).open(&place) {
            Ok(mut file) => {
                file.write_all(torn)?;
                file.sync_all()?;
                return Ok(place);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if std::fs::read(&place)? == torn {
                    return Ok(place);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("no name is left to set a torn line aside"))
}

fn without_feed(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\n").unwrap_or(line)
}

pub(super) fn shown(path: &Path) -> String {
    path.display().to_string()
}
