//! From a signed certificate to files in somebody's hands, in the one order that loses nothing:
//! record and pin, then write.

use std::path::{Path, PathBuf};

use crate::cert::{FileError, Parsed, PrivateKey, load_chain, write_atomic};
use crate::clock::UnixTime;
use crate::identity::{Name, NameError};
use crate::registry::{Enrolment, Reason, Revocation, Store, StoreError};

use super::pem;
use super::sign::Signed;

/// Why nothing was issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The name as the registry keeps it.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The registry did not take it; no certificate left.
    #[error("nothing was issued: {0}")]
    Store(#[from] StoreError),
    /// A file is in the way.
    #[error("`{0}` is there already")]
    InTheWay(PathBuf),
    /// `ca.pem` of another CA is in the way.
    #[error("`{0}` holds the root of another CA")]
    OtherRoot(PathBuf),
    /// The folder cannot be made.
    #[error("cannot make the folder `{path}`: {cause}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the operating system said.
        cause: std::io::Error,
    },
    /// Recorded, but a file could not be written.
    #[error(
        "certificate {serial} was recorded and could not be written, so it was revoked: {error}"
    )]
    Write {
        /// Its serial number.
        serial: String,
        /// What went wrong.
        error: FileError,
    },
}

/// A certificate that is on record.
#[derive(Debug)]
pub struct Issued {
    /// As recorded, with the certificate.
    pub enrolment: Enrolment,
    /// What the certificate says.
    pub parsed: Parsed,
    /// The entry of the change feed.
    pub seq: u64,
    /// What a person should know.
    pub notes: Vec<String>,
    chain: Vec<Vec<u8>>,
    root: Vec<u8>,
}

impl Issued {
    /// The certificate and the CAs below the root, PEM.
    #[must_use]
    pub fn chain_pem(&self) -> String {
        pem::certificates([&self.enrolment.der].into_iter().chain(&self.chain))
    }

    /// The root, PEM.
    #[must_use]
    pub fn root_pem(&self) -> String {
        pem::certificates([&self.root])
    }
}

/// Records a signed certificate in the registry, pinned where it is a client's. Only what this
/// returns can be handed out.
///
/// # Errors
/// The registry did not take it.
pub async fn issue(
    store: &dyn Store,
    signed: Signed,
    by: &str,
    now: UnixTime,
) -> Result<Issued, IssueError> {
    let mut issued = to_record(signed, by, now)?;
    let note = namesake(store, &issued.enrolment.name, now).await?;
    issued.notes.extend(note);
    issued.seq = store.enrol(&issued.enrolment).await?;
    Ok(issued)
}

/// As it will be recorded; it must not leave before it is.
pub(super) fn to_record(signed: Signed, by: &str, now: UnixTime) -> Result<Issued, IssueError> {
    let enrolment = Enrolment {
        fingerprint: signed.parsed.fingerprint,
        kind: signed.kind,
        name: Name::new(signed.name.as_str())?,
        serial: signed.parsed.serial.clone(),
        issuer: Some(signed.issuer),
        profile: signed.profile,
        grants: None,
        not_before: signed.parsed.not_before,
        not_after: signed.parsed.not_after,
        pinned: signed.pinned,
        revocation: None,
        created_at: now,
        created_by: by.to_owned(),
        der: signed.der,
    };
    Ok(Issued {
        enrolment,
        parsed: signed.parsed,
        seq: 0,
        notes: signed.notes,
        chain: signed.chain,
        root: signed.root,
    })
}

/// Another live certificate of the same name is fine (a renewal overlaps), but never unsaid.
async fn namesake(
    store: &dyn Store,
    name: &Name,
    now: UnixTime,
) -> Result<Option<String>, StoreError> {
    let others = store.named(name.as_str(), now).await?;
    Ok(match others.as_slice() {
        [] => None,
        [other] => Some(format!(
            "`{name}` has another live certificate, {}, until {}",
            other.fingerprint.short(),
            other.not_after
        )),
        several => Some(format!(
            "`{name}` has {} other live certificates",
            several.len()
        )),
    })
}

/// Where a certificate and its key go: `<dir>/<base>.crt`, `<dir>/<base>.key`, `<dir>/ca.pem`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    dir: PathBuf,
    base: String,
}

/// Files that were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The chain.
    pub certificate: PathBuf,
    /// The key.
    pub key: PathBuf,
    /// The root.
    pub ca: PathBuf,
}

impl Output {
    fn files(&self) -> Written {
        Written {
            certificate: self.dir.join(format!("{}.crt", self.base)),
            key: self.dir.join(format!("{}.key", self.base)),
            ca: self.dir.join("ca.pem"),
        }
    }
}

/// Makes the folder and looks for what would be in the way, before anything is recorded.
///
/// # Errors
/// Files of this name are there and `replace` was not said, or the folder cannot be made.
pub fn prepare_output(
    dir: &Path,
    base: &str,
    root: &[u8],
    replace: bool,
) -> Result<Output, IssueError> {
    let error = |cause| IssueError::Folder {
        path: dir.to_owned(),
        cause,
    };
    std::fs::create_dir_all(dir).map_err(error)?;
    let output = Output {
        dir: dir.to_owned(),
        base: base.to_owned(),
    };
    let files = output.files();
    if !replace {
        for path in [files.key, files.certificate] {
            if path.exists() {
                return Err(IssueError::InTheWay(path));
            }
        }
        if files.ca.exists() && load_chain(&files.ca).is_ok_and(|chain| chain != [root]) {
            return Err(IssueError::OtherRoot(files.ca));
        }
    }
    Ok(output)
}

/// Writes what was issued and its key. Nobody has a certificate that could not be written, so it is
/// revoked then, as good as the registry allows.
///
/// # Errors
/// A file could not be written.
pub async fn write_out(
    store: &dyn Store,
    output: &Output,
    issued: &Issued,
    key: &PrivateKey,
    now: UnixTime,
) -> Result<Written, IssueError> {
    let files = output.files();
    let Err(error) = write_files(&files, issued, key) else {
        return Ok(files);
    };
    let by = issued.enrolment.created_by.clone();
    let revocation = Revocation {
        at: now,
        reason: Reason::CessationOfOperation,
        by,
    };
    store
        .revoke(issued.enrolment.fingerprint, &revocation)
        .await?;
    Err(IssueError::Write {
        serial: issued.enrolment.serial.clone(),
        error,
    })
}

fn write_files(files: &Written, issued: &Issued, key: &PrivateKey) -> Result<(), FileError> {
    let key = pem::block("PRIVATE KEY", key.0.expose());
    write_atomic(&files.key, key.as_bytes(), 0o600)?;
    write_atomic(&files.certificate, issued.chain_pem().as_bytes(), 0o644)?;
    write_atomic(&files.ca, issued.root_pem().as_bytes(), 0o644)
}
