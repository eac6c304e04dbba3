//! Where a CA keeps its files, and how a set of them is replaced as one: the new set is made whole in
//! a folder `next`, whose appearing is the moment from which it counts; moving its files to their
//! places can be interrupted anywhere and is then finished by whoever looks next.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::cert::load_chain;
use crate::identity::Fingerprint;

use super::lock::{FolderLock, LockError};

/// The folder of one CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaFiles {
    dir: PathBuf,
}

/// Whether a folder holds a CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing of a CA: the folder is not there, or empty.
    Absent,
    /// All four files are there.
    Complete,
    /// Some are there, these are not.
    Partial {
        /// File names.
        missing: Vec<&'static str>,
    },
    /// Something else is in it.
    Foreign,
}

/// A replacement that was interrupted cannot be finished.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    /// Moving a file to its place.
    #[error("cannot finish the rotation in `{path}`: {cause}")]
    Move {
        /// The folder with what is new.
        path: PathBuf,
        /// What the operating system said.
        cause: io::Error,
    },
    /// Two at once.
    #[error(transparent)]
    Lock(#[from] LockError),
}

const NEEDED: [&str; 4] = ["root.crt", "root.key", "issuing.crt", "issuing.key"];

impl CaFiles {
    /// The CA in this folder.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
        }
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The root's certificate.
    #[must_use]
    pub fn root_certificate(&self) -> PathBuf {
        self.dir.join("root.crt")
    }

    /// The root's key, encrypted.
    #[must_use]
    pub fn root_key(&self) -> PathBuf {
        self.dir.join("root.key")
    }

    /// The root's CRL.
    #[must_use]
    pub fn root_crl(&self) -> PathBuf {
        self.dir.join("root.crl")
    }

    /// The issuing CA's certificate.
    #[must_use]
    pub fn issuing_certificate(&self) -> PathBuf {
        self.dir.join("issuing.crt")
    }

    /// The issuing CA's key, encrypted.
    #[must_use]
    pub fn issuing_key(&self) -> PathBuf {
        self.dir.join("issuing.key")
    }

    /// The issuing CA's CRL.
    #[must_use]
    pub fn issuing_crl(&self) -> PathBuf {
        self.dir.join("issuing.crl")
    }

    /// The root as the root before it signed it (`ca rotate root`).
    #[must_use]
    pub fn cross_certificate(&self) -> PathBuf {
        self.dir.join("cross.crt")
    }

    /// Everything for a server's anchor in one file: certificates and CRLs of all CAs of this
    /// folder, also of those that were replaced and still count.
    #[must_use]
    pub fn bundle(&self) -> PathBuf {
        self.dir.join("bundle.pem")
    }

    /// Where the CAs are that were replaced, each in a folder of its own.
    #[must_use]
    pub fn retired(&self) -> PathBuf {
        self.dir.join("retired")
    }

    /// The folders that hold CAs: this one, and those that were replaced, oldest name first.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub fn generations(&self) -> io::Result<Vec<Self>> {
        let mut all = vec![self.clone()];
        let entries = match fs::read_dir(self.retired()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(all),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let path = entry?.path();
            let hidden = path
                .file_name()
                .is_some_and(|name| name.as_encoded_bytes()[0] == b'.');
            if path.is_dir() && !hidden {
                all.push(Self::new(&path));
            }
        }
        all[1..].sort_by(|one, other| one.dir.cmp(&other.dir));
        Ok(all)
    }

    /// The folder of the CA with this certificate among the folder's generations, and whether it
    /// is the root there.
    #[must_use]
    pub fn holder_of(&self, certificate: Fingerprint) -> Option<(Self, bool)> {
        let generations = self.generations().ok()?;
        let is = |path: &Path| {
            load_chain(path).is_ok_and(|chain| Fingerprint::of_der(&chain[0]) == certificate)
        };
        generations.into_iter().find_map(|generation| {
            if is(&generation.issuing_certificate()) {
                return Some((generation, false));
            }
            // A copy of the root's certificate lies in every generation; the key in one.
            let root = generation.root_key().exists() || generation.root_crl().exists();
            (root && is(&generation.root_certificate())).then_some((generation, true))
        })
    }

    /// Where the CRL of the CA with this certificate is.
    #[must_use]
    pub fn crl_of(&self, certificate: Fingerprint) -> Option<PathBuf> {
        let (holder, root) = self.holder_of(certificate)?;
        Some(if root {
            holder.root_crl()
        } else {
            holder.issuing_crl()
        })
    }

    pub(super) fn next(&self) -> PathBuf {
        self.dir.join("next")
    }

    /// Finishes a replacement that was interrupted; nothing to do is the usual case.
    ///
    /// # Errors
    /// A file cannot be moved.
    pub fn settle(&self) -> Result<(), SettleError> {
        if !self.next().exists() {
            return Ok(());
        }
        let _lock = FolderLock::take(&self.dir)?;
        self.settle_locked()
    }

    /// As [`Self::settle`], for the holder of the folder's lock.
    pub(super) fn settle_locked(&self) -> Result<(), SettleError> {
        let next = self.next();
        let error = |cause| SettleError::Move {
            path: next.clone(),
            cause,
        };
        let entries = match fs::read_dir(&next) {
            Ok(entries) => entries,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(cause) => return Err(error(cause)),
        };
        for entry in entries {
            let entry = entry.map_err(error)?;
            fs::rename(entry.path(), self.dir.join(entry.file_name())).map_err(error)?;
        }
        fs::remove_dir(&next).map_err(error)?;
        File::open(&self.dir)
            .and_then(|dir| dir.sync_all())
            .map_err(error)
    }

    /// What is there.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn state(&self) -> io::Result<State> {
        let mut entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(State::Absent),
            Err(error) => return Err(error),
        };
        let missing: Vec<&str> = NEEDED
            .into_iter()
            .filter(|name| !self.dir.join(name).exists())
            .collect();
        Ok(match missing.len() {
            0 => State::Complete,
            4 if entries.next().is_none() => State::Absent,
            4 => State::Foreign,
            _ => State::Partial { missing },
        })
    }
}
