//! Reading a log that may be written meanwhile: its last lines, and those that come.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::chain::Head;
use super::files::{log_files, rotated};

/// The last `count` whole lines of the log at `path`, oldest first, without their line feeds; the
/// rotated files are read where the current one has too few.
///
/// # Errors
/// A file cannot be read; none is there.
pub fn last_lines(path: &Path, count: usize) -> io::Result<Vec<Vec<u8>>> {
    let mut lines = VecDeque::new();
    let files = log_files(path)?;
    if files.is_empty() {
        return Err(io::ErrorKind::NotFound.into());
    }
    for file in files.iter().rev() {
        if lines.len() >= count {
            break;
        }
        for line in last_of(file, count - lines.len())?.into_iter().rev() {
            lines.push_front(line);
        }
    }
    Ok(lines.into())
}

/// The last lines of one file, oldest first. Reads twice as much of its end until that is enough.
fn last_of(path: &Path, count: usize) -> io::Result<Vec<Vec<u8>>> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    let mut want = 64 << 10;
    loop {
        let start = len.saturating_sub(want);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        (&mut file).take(len - start).read_to_end(&mut bytes)?;
        let whole = memchr::memrchr(b'\n', &bytes).map_or(0, |at| at + 1);
        let mut lines: Vec<&[u8]> = bytes[..whole].split_inclusive(|&b| b == b'\n').collect();
        if start > 0 && !lines.is_empty() {
            // Its beginning may lie before what was read.
            lines.remove(0);
        }
        if start == 0 || lines.len() >= count {
            let surplus = lines.len().saturating_sub(count);
            return Ok(lines[surplus..]
                .iter()
                .map(|line| line[..line.len() - 1].to_vec())
                .collect());
        }
        want *= 2;
    }
}

/// Follows a log across rotations, from one record on.
pub struct Follow {
    path: PathBuf,
    file: Option<BufReader<File>>,
    /// The beginning of a line that is not whole yet.
    begun: Vec<u8>,
    /// The number of the last record that was handed out.
    last: u64,
}

impl Follow {
    /// Hands out what comes behind record `last`; 0 for everything.
    #[must_use]
    pub fn new(path: &Path, last: u64) -> Self {
        Self {
            path: path.to_path_buf(),
            file: None,
            begun: Vec::new(),
            last,
        }
    }

    /// Calls `each` with every whole line that has come since, without its line feed. Returns at
    /// the end of what is there; call it again later.
    ///
    /// # Errors
    /// A file cannot be read, or `each` fails.
    pub fn poll(&mut self, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        if self.file.is_some() {
            // Looked at before the last read, so that nothing that a rotation put aside is missed.
            let current = self.is_current()?;
            self.read(each)?;
            if current {
                return Ok(());
            }
            self.begun.clear();
            self.file = None;
        }
        let mut files: Vec<PathBuf> = rotated(&self.path)?.into_iter().map(|(_, p)| p).collect();
        files.push(self.path.clone());
        for path in files {
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if path != self.path && self.has_passed(&path)? {
                continue;
            }
            self.begun.clear();
            self.file = Some(BufReader::new(file));
            self.read(each)?;
            if path != self.path {
                self.file = None;
            }
        }
        Ok(())
    }

    /// Whether the last record of a rotated file was handed out already.
    fn has_passed(&self, path: &Path) -> io::Result<bool> {
        let last = last_of(path, 1)?;
        let seq = last
            .first()
            .and_then(|line| Head::read(line))
            .map(|head| head.seq);
        Ok(seq.is_none_or(|seq| seq <= self.last))
    }

    fn is_current(&self) -> io::Result<bool> {
        let Some(reader) = &self.file else {
            return Ok(false);
        };
        let ours = reader.get_ref().metadata()?;
        match std::fs::metadata(&self.path) {
            Ok(there) => Ok(ours.ino() == there.ino() && ours.dev() == there.dev()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn read(&mut self, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let Some(reader) = &mut self.file else {
            return Ok(());
        };
        let at = reader.stream_position()?;
        if reader.get_ref().metadata()?.len() < at {
            // A group that failed was cut off again; its records were never acknowledged.
            self.begun.clear();
            reader.seek(SeekFrom::End(0))?;
        }
        loop {
            reader.read_until(b'\n', &mut self.begun)?;
            if self.begun.last() != Some(&b'\n') {
                return Ok(());
            }
            self.begun.pop();
            let seq = Head::read(&self.begun).map(|head| head.seq);
            if seq.is_none_or(|seq| seq > self.last) {
                self.last = seq.unwrap_or(self.last);
                each(&self.begun)?;
            }
            self.begun.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{deny, facts};
    use super::super::log::AuditLog;
    use super::super::open::AuditOptions;
    use super::*;

    fn open(path: &Path, rotate_bytes: u64) -> AuditLog {
        AuditLog::open(AuditOptions {
            rotate_bytes,
            ..AuditOptions::new(path)
        })
        .unwrap()
        .0
    }

    fn write(log: &AuditLog, count: u64) {
        for id in 0..count {
            log.denied(&facts(1), &deny("a", id));
        }
        log.close().unwrap();
    }

    fn seq(line: &[u8]) -> u64 {
        Head::read(line).unwrap().seq
    }

    #[test]
    fn the_last_lines_reach_back_into_rotated_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        assert_eq!(
            last_lines(&path, 3).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        let log = open(&path, 1500);
        write(&log, 30);
        let total = log.written();
        for count in [0, 1, 2, 7, 25, 1000] {
            let seqs: Vec<u64> = last_lines(&path, count)
                .unwrap()
                .iter()
                .map(|l| seq(l))
                .collect();
            let from = (total + 1).saturating_sub(count as u64).max(1);
            assert_eq!(seqs, (from..=total).collect::<Vec<_>>());
        }
    }

    #[test]
    fn lines_longer_than_a_read_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let long = "x".repeat(200_000);
        std::fs::write(&path, format!("a\n{long}\n{long}\nbegun")).unwrap();
        let lines = last_lines(&path, 2).unwrap();
        assert_eq!(lines, [long.as_bytes(), long.as_bytes()]);
        assert_eq!(last_lines(&path, 3).unwrap()[0], b"a");
    }

    #[test]
    fn following_misses_nothing_over_rotations_and_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let mut log = open(&path, 1500);
        write(&log, 2);
        let mut follow = Follow::new(&path, 1);
        let mut seen = Vec::new();
        for round in [0, 1, 0, 3, 40, 1, 2, 100, 1] {
            write(&log, round);
            if round == 2 {
                drop(log);
                log = open(&path, 1500);
            }
            follow
                .poll(&mut |line| {
                    seen.push(seq(line));
                    Ok(())
                })
                .unwrap();
            assert_eq!(seen, (2..=log.written()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn half_a_line_waits_for_its_end_and_a_cut_is_survived() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        write(&open(&path, 0), 3);
        let whole = std::fs::read(&path).unwrap();
        let last = whole[..whole.len() - 1]
            .iter()
            .rposition(|&b| b == b'\n')
            .unwrap()
            + 1;
        let mut follow = Follow::new(&path, 0);
        let mut poll = || {
            let mut seen = Vec::new();
            let each = &mut |line: &[u8]| {
                seen.push(seq(line));
                Ok(())
            };
            follow.poll(each).unwrap();
            seen
        };
        let put = |bytes: &[u8]| {
            use std::os::unix::fs::FileExt as _;
            let file = File::options().write(true).open(&path).unwrap();
            file.write_all_at(bytes, 0).unwrap();
            file.set_len(bytes.len() as u64).unwrap();
        };
        put(&whole[..last + 9]);
        assert_eq!(poll(), [1, 2, 3]);
        put(&whole[..last]);
        assert_eq!(poll(), [0; 0]);
        put(&whole);
        assert_eq!(poll(), [4]);
    }
}
