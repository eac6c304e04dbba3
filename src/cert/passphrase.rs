//! Reading a passphrase from a file (a systemd credential is one, too). The environment and the
//! terminal are the command line's business.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::files::{FileError, check_mode};
use crate::secret::Secret;

/// More than this is not a passphrase but the wrong file.
const LONGEST: usize = 4096;

/// Why there is no passphrase.
#[derive(Debug, thiserror::Error)]
pub enum PassphraseError {
    /// Others can read it, or it cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It cannot be read.
    #[error("cannot read the passphrase from `{path}`: {cause}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        cause: std::io::Error,
    },
    /// Nothing in it, or more than 4096 bytes.
    #[error("`{path}` holds no passphrase of 1 to 4096 bytes")]
    Length {
        /// The file.
        path: PathBuf,
    },
    /// Nobody gave one.
    #[error("the key `{key}` is encrypted and no passphrase was given")]
    Missing {
        /// The key that it would open.
        key: PathBuf,
    },
    /// Nobody gave one that is not the CA's.
    #[error("no {what} was given")]
    Wanted {
        /// What is missing, and for which file or key.
        what: String,
        /// Where it would be said, besides at a terminal.
        place: &'static str,
    },
    /// The terminal could not be read, or the two entries differ.
    #[error("no passphrase for `{key}` from the terminal: {cause}")]
    Prompt {
        /// The key that it would open.
        key: PathBuf,
        /// What went wrong.
        cause: String,
    },
}

/// The passphrase in a file; one trailing line end is not part of it. A regular file must not be
/// readable by others; a pipe is its reader's own affair.
///
/// # Errors
/// Unreadable, too open, empty, or longer than 4096 bytes.
pub fn read_passphrase(path: &Path) -> Result<Secret, PassphraseError> {
    let read = |cause| PassphraseError::Read {
        path: path.to_owned(),
        cause,
    };
    let file = std::fs::File::open(path).map_err(read)?;
    let about = file.metadata().map_err(read)?;
    if about.is_file() {
        check_mode(path, about.mode())?;
    }
    // Room for all of it at once: a buffer that grows leaves copies behind. One byte more shows
    // that it is too long, and another one that its end was reached.
    let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST + 3 + 32));
    file.take(LONGEST as u64 + 3)
        .read_to_end(&mut bytes)
        .map_err(read)?;
    let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    if text.is_empty() || text.len() > LONGEST {
        return Err(PassphraseError::Length {
            path: path.to_owned(),
        });
    }
    Ok(Secret::new(text.to_vec()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file(content: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passphrase");
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        (dir, path)
    }

    #[test]
    fn one_line_end_is_not_part_of_it() {
        for content in [&b"a b"[..], b"a b\n", b"a b\r\n"] {
            let (_dir, path) = file(content, 0o600);
            assert_eq!(read_passphrase(&path).unwrap().expose(), b"a b");
        }
    }

    #[test]
    fn empty_endless_or_open_files_are_refused() {
        for (content, mode) in [
            (&b"\n"[..], 0o600),
            (&[b'a'; 5000][..], 0o600),
            (b"a", 0o644),
        ] {
            let (_dir, path) = file(content, mode);
            let error = read_passphrase(&path).unwrap_err().to_string();
            assert!(error.contains(path.to_str().unwrap()), "{error}");
        }
    }
}
