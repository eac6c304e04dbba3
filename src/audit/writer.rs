//! The one who writes: a group goes to the operating system whole or is cut off again.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::files::{appending, beside, folder, rotated};
use super::gather::{Cut, Failure, FailureKind, Group};

/// Flushes what the operating system has to the disk; runs on a thread that may wait.
pub(super) type Syncer = Box<dyn FnOnce() -> io::Result<()> + Send>;

/// Where bytes go. A trait so that a test can make it fail.
pub(super) trait Sink: Send {
    /// Appends all of `bytes`, or fails with some of them appended.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes the current file `len` bytes long again.
    fn cut_back(&mut self, len: u64) -> io::Result<()>;
    /// Puts the current file aside and begins an empty one; on failure nothing has changed.
    fn rotate(&mut self) -> io::Result<()>;
    /// What flushes the current file to the disk.
    fn syncer(&self) -> io::Result<Syncer>;
}

/// The log's files.
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    number: u64,
    keep: u32,
    durable: bool,
}

impl LogFile {
    /// Appends to `file`, which is open at `path`. `number`: of the next rotated file; `keep`: how
    /// many stay, 0 for all; `durable`: whether a file is flushed to the disk when it is put aside.
    pub(super) fn new(path: &Path, file: File, number: u64, keep: u32, durable: bool) -> Self {
        Self {
            path: path.to_path_buf(),
            file,
            number,
            keep,
            durable,
        }
    }

    /// Deletes the oldest files beyond `keep`. A failure costs disk space only, so it is told and
    /// tried again with the next rotation.
    fn prune(&self) {
        if self.keep == 0 {
            return;
        }
        let files = match rotated(&self.path) {
            Ok(files) => files,
            Err(error) => {
                let path = self.path.display();
                tracing::warn!(
                    "the rotated files of the audit log `{path}` cannot be listed: {error}"
                );
                return;
            }
        };
        let surplus = files.len().saturating_sub(self.keep as usize);
        for (_, path) in files.into_iter().take(surplus) {
            if let Err(error) = std::fs::remove_file(&path) {
                let path = path.display();
                tracing::warn!("the old audit log `{path}` cannot be removed: {error}");
            }
        }
    }
}

impl Sink for LogFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    fn cut_back(&mut self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn rotate(&mut self) -> io::Result<()> {
        let mut aside = beside(&self.path, &format!(".{}", self.number));
        while aside.try_exists()? {
            self.number += 1;
            aside = beside(&self.path, &format!(".{}", self.number));
        }
        if self.durable {
            self.file.sync_data()?;
        }
        // Dying between these two leaves no current file: opening continues from the newest
        // rotated one.
        std::fs::rename(&self.path, &aside)?;
        match appending().create_new(true).open(&self.path) {
            Ok(file) => self.file = file,
            Err(error) => {
                // Without a way back the old file goes on under its new name, which opening
                // finds as well.
                let _ = std::fs::rename(&aside, &self.path);
                return Err(error);
            }
        }
        self.number += 1;
        if self.durable {
            // The rotation has happened, whether or not the disk knows the new names yet.
            let synced = File::open(folder(&self.path)).and_then(|folder| folder.sync_all());
            if let Err(error) = synced {
                let path = self.path.display();
                tracing::warn!("the folder of the audit log `{path}` cannot be synced: {error}");
            }
        }
        self.prune();
        Ok(())
    }

    fn syncer(&self) -> io::Result<Syncer> {
        let file = self.file.try_clone()?;
        Ok(Box::new(move || file.sync_data()))
    }
}

/// A sink, and how much of it is good.
pub(super) struct Writer {
    pub(super) sink: Box<dyn Sink>,
    /// The group that is being written; empty in between.
    pub(super) group: Group,
    /// Bytes of the current file that are whole groups.
    pub(super) good: u64,
    /// Whether bytes of a failed write may stand behind the good ones.
    uncut: bool,
    /// After a failure: when the next attempt is due.
    pub(super) retry_at: Option<Instant>,
}

impl Writer {
    pub(super) fn new(sink: Box<dyn Sink>, good: u64) -> Self {
        Self {
            sink,
            group: Group::default(),
            good,
            uncut: false,
            retry_at: None,
        }
    }

    /// Writes the group; a rotation lies before each of its cuts.
    ///
    /// # Errors
    /// How far the group is written (a whole file's worth at a time), and why no further.
    pub(super) fn write(&mut self) -> Result<(), (Cut, Failure)> {
        let mut done = Cut::default();
        self.cut().map_err(|failure| (done, failure))?;
        let whole = self.group.whole();
        for nth in 0..self.group.cuts.len() {
            let end = self.group.cuts[nth];
            self.segment(done, end).map_err(|failure| (done, failure))?;
            done = end;
            self.rotate().map_err(|failure| (done, failure))?;
        }
        self.segment(done, whole).map_err(|failure| (done, failure))
    }

    fn rotate(&mut self) -> Result<(), Failure> {
        self.sink.rotate().map_err(|error| Failure {
            cause: format!("it cannot be rotated: {error}"),
            kind: FailureKind::Rotate,
        })?;
        self.good = 0;
        Ok(())
    }

    fn segment(&mut self, from: Cut, to: Cut) -> Result<(), Failure> {
        let bytes = &self.group.bytes[from.bytes..to.bytes];
        if let Err(error) = self.sink.append(bytes) {
            self.uncut = true;
            self.cut()?;
            return Err(Failure {
                cause: error.to_string(),
                kind: FailureKind::Write,
            });
        }
        self.good += bytes.len() as u64;
        Ok(())
    }

    /// Cuts off what a failed write left.
    fn cut(&mut self) -> Result<(), Failure> {
        if self.uncut {
            self.sink.cut_back(self.good).map_err(|error| Failure {
                cause: format!("what a failed write left cannot be cut off: {error}"),
                kind: FailureKind::Uncut,
            })?;
            self.uncut = false;
        }
        Ok(())
    }
}
