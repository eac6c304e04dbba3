//! Files with checked modes, written atomically.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ring::rand::{SecureRandom, SystemRandom};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};
use zeroize::Zeroizing;

/// The largest PEM or key file that is read: 16 MiB, thousands of certificates.
const LARGEST: u64 = 16 * 1024 * 1024;

/// What can be wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Not there, not ours to read, or too large.
    #[error("cannot read `{path}`: {cause}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// The old content, if there was one, is untouched.
    #[error("cannot write `{path}`: {cause}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// Group or world may read or write a file that holds a secret.
    #[error("`{path}` can be read by others than its owner (mode {mode:04o}): `chmod 600 {path}`")]
    Mode {
        /// The file.
        path: PathBuf,
        /// The permission bits that were found.
        mode: u32,
    },
    /// The file was read, and holds none.
    #[error("`{path}` holds no certificate in PEM")]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The PEM is damaged.
    #[error("`{path}`: {cause}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// Where the reading stopped.
        cause: String,
    },
}

/// Refuses a file that group or world can read or write.
///
/// # Errors
/// [`FileError::Mode`], or the file is not there.
pub fn check_private(path: &Path) -> Result<(), FileError> {
    let found = fs::metadata(path).map_err(|cause| read_error(path, cause))?;
    check_mode(path, found.mode())
}

/// Every certificate of a PEM file, DER, in file order; at least one. Other sections are skipped.
///
/// # Errors
/// Unreadable, not PEM, or none in it.
pub fn load_chain(path: &Path) -> Result<Vec<Vec<u8>>, FileError> {
    let text = read_bounded(path, &open(path)?)?;
    let mut chain = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        match certificate {
            Ok(der) => chain.push(der.as_ref().to_vec()),
            Err(pem::Error::NoItemsFound) => break,
            Err(cause) => {
                return Err(FileError::Pem {
                    path: path.into(),
                    cause: cause.to_string(),
                });
            }
        }
    }
    if chain.is_empty() {
        return Err(FileError::NoCertificate { path: path.into() });
    }
    Ok(chain)
}

/// Reads a file that only its owner may read; the mode is that of the very file that is read.
pub(super) fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let file = open(path)?;
    let found = file.metadata().map_err(|cause| read_error(path, cause))?;
    check_mode(path, found.mode())?;
    read_bounded(path, &file).map(Zeroizing::new)
}

/// Writes a file as a whole: temporary file of the same folder, mode, sync, rename, sync of the
/// folder. `mode`: permission bits such as `0o600`, whatever the umask says.
///
/// # Errors
/// The old content is still there.
pub fn write_atomic(path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    let error = |cause| FileError::Write {
        path: path.into(),
        cause,
    };
    let (folder, temporary) = beside(path).map_err(error)?;
    let written = write_and_rename(path, &temporary, content, mode);
    if let Err(cause) = written {
        // Best effort: the write's own failure is the one to report.
        let _ = fs::remove_file(&temporary);
        return Err(error(cause));
    }
    let sync = || {
        point()?;
        File::open(folder)?.sync_all()
    };
    sync().map_err(error)
}

fn write_and_rename(path: &Path, temporary: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    point()?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(temporary)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    point()?;
    // In two halves where a test looks on, so that one of them can be all that was written.
    let (first, second) = content.split_at(if cfg!(test) { content.len() / 2 } else { 0 });
    file.write_all(first)?;
    point()?;
    file.write_all(second)?;
    point()?;
    file.sync_all()?;
    point()?;
    fs::rename(temporary, path)
}

/// Where a test can make the disk fail or the process end.
#[cfg(test)]
fn point() -> io::Result<()> {
    super::fault::point()
}

#[cfg(not(test))]
#[expect(clippy::unnecessary_wraps, reason = "the same shape as in tests")]
const fn point() -> io::Result<()> {
    Ok(())
}

/// The folder of a file, and a name in it that nobody else uses.
fn beside(path: &Path) -> io::Result<(PathBuf, PathBuf)> {
    let name = path.file_name().ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, "it is not the name of a file")
    })?;
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    };
    let mut random = [0; 8];
    SystemRandom::new()
        .fill(&mut random)
        .map_err(|_| io::Error::other("the system gives no random numbers"))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}.tmp", hex::encode(random)));
    let temporary = folder.join(hidden);
    Ok((folder, temporary))
}

fn open(path: &Path) -> Result<File, FileError> {
    File::open(path).map_err(|cause| read_error(path, cause))
}

fn read_bounded(path: &Path, file: &File) -> Result<Vec<u8>, FileError> {
    // Room for all of it at once: a buffer that grows leaves copies of a key behind.
    let length = file.metadata().map_or(0, |about| about.len());
    let length = usize::try_from(length.min(LARGEST)).unwrap_or(0);
    let mut content = Vec::with_capacity(length + 64);
    file.take(LARGEST + 1)
        .read_to_end(&mut content)
        .map_err(|cause| read_error(path, cause))?;
    if content.len() as u64 > LARGEST {
        let cause = io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 16 MiB");
        return Err(read_error(path, cause));
    }
    Ok(content)
}

pub(super) fn check_mode(path: &Path, mode: u32) -> Result<(), FileError> {
    let mode = mode & 0o7777;
    if mode & 0o077 != 0 {
        return Err(FileError::Mode {
            path: path.into(),
            mode,
        });
    }
    Ok(())
}

fn read_error(path: &Path, cause: io::Error) -> FileError {
    FileError::Read {
        path: path.into(),
        cause,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_file_is_one_that_only_its_owner_reads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        write_atomic(&path, b"secret", 0o600).unwrap();
        check_private(&path).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o602] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let error = check_private(&path).unwrap_err();
            assert!(
                matches!(error, FileError::Mode { mode: m, .. } if m == mode),
                "{error}"
            );
            assert!(matches!(read_private(&path), Err(FileError::Mode { .. })));
        }
    }

    #[test]
    fn a_write_replaces_the_whole_and_leaves_nothing_beside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pem");
        write_atomic(&path, b"first, and longer", 0o644).unwrap();
        write_atomic(&path, b"second", 0o644).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o644);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_write_that_fails_keeps_the_old_content() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("taken");
        fs::create_dir(&place).unwrap();
        fs::write(place.join("inside"), b"old").unwrap();
        assert!(matches!(
            write_atomic(&place, b"new", 0o600),
            Err(FileError::Write { .. })
        ));
        assert_eq!(fs::read(place.join("inside")).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_chain_needs_a_certificate() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chain.pem");
        let key = rcgen::KeyPair::generate().unwrap();
        let one = rcgen::CertificateParams::new(vec!["a".into()])
            .unwrap()
            .self_signed(&key)
            .unwrap();
        fs::write(
            &path,
            format!(
                "a comment\n{}{}{}",
                one.pem(),
                key.serialize_pem(),
                one.pem()
            ),
        )
        .unwrap();
        let chain = load_chain(&path).unwrap();
        assert_eq!(chain, vec![one.der().to_vec(), one.der().to_vec()]);
        fs::write(&path, key.serialize_pem()).unwrap();
        assert!(matches!(
            load_chain(&path),
            Err(FileError::NoCertificate { .. })
        ));
        fs::write(
            &path,
            "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n",
        )
        .unwrap();
        assert!(matches!(load_chain(&path), Err(FileError::Pem { .. })));
    }
}
