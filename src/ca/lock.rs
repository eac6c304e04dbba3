//! One writer at a time in a folder: an advisory lock on the folder itself, so that nothing is left
//! behind and a killed process holds nothing.

use std::fs::File;
use std::path::{Path, PathBuf};

/// The folder cannot be locked.
#[derive(Debug, thiserror::Error)]
#[error("cannot lock the folder `{path}`: {cause}")]
pub struct LockError {
    /// The folder.
    pub path: PathBuf,
    /// What the operating system said.
    pub cause: std::io::Error,
}

/// Held until dropped.
pub struct FolderLock {
    _folder: File,
}

impl FolderLock {
    /// Waits for other writers of this folder.
    pub fn take(folder: &Path) -> Result<Self, LockError> {
        let error = |cause| LockError {
            path: folder.to_owned(),
            cause,
        };
        let file = File::open(folder).map_err(error)?;
        file.lock().map_err(error)?;
        Ok(Self { _folder: file })
    }
}
