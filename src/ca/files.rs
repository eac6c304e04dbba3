//! Where a CA keeps its files.

use std::path::{Path, PathBuf};

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

    /// What is there.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn state(&self) -> std::io::Result<State> {
        let mut entries = match std::fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(State::Absent),
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
