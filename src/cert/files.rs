//! Files with checked modes, written atomically.
use std::path::{Path, PathBuf};
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot read `{path}`: {cause}")] Read { path: PathBuf, cause: std::io::Error },
    #[error("cannot write `{path}`: {cause}")] Write { path: PathBuf, cause: std::io::Error },
    #[error("`{path}` can be read by others than its owner (mode {mode:04o}); it must be 0600")] Mode { path: PathBuf, mode: u32 },
    #[error("`{path}` holds no certificate in PEM")] NoCertificate { path: PathBuf },
    #[error("`{path}`: {cause}")] Pem { path: PathBuf, cause: String },
}
/// Refuses a file that group or world can read or write.
/// # Errors
/// [`FileError::Mode`], or the file is not there.
pub fn check_private(path: &Path) -> Result<(), FileError> { todo!("{}", path.display()) }
/// Every certificate of a PEM file, DER, in file order; at least one.
/// # Errors
/// Unreadable, not PEM, or none in it.
pub fn load_chain(path: &Path) -> Result<Vec<Vec<u8>>, FileError> { todo!("{}", path.display()) }
/// Writes a file as a whole: temporary file of the same folder, mode, sync, rename, sync of the folder.
/// # Errors
/// The old content is still there.
pub fn write_atomic(path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> { todo!("{}{}{mode}", path.display(), content.len()) }
