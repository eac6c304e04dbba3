//! From a signed certificate to files in somebody's hands, in the one order that loses nothing:
//! record and pin, then write.

use std::path::PathBuf;

use crate::cert::{FileError, Parsed, pem};
use crate::clock::UnixTime;
use crate::identity::{Name, NameError};
use crate::registry::{Enrolment, Reason, Revocation, Store, StoreError, TokenDigest};

use super::pkcs12::Pkcs12Error;
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
    /// Only what a delegate signs can do without the registry.
    #[error("`{0}` was not signed by a delegate: it must be recorded before it leaves")]
    MustRecord(String),
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
    /// The PKCS#12 file could not be put together.
    #[error(transparent)]
    Pkcs12(#[from] Pkcs12Error),
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
    pub(super) chain: Vec<Vec<u8>>,
    pub(super) root: Vec<Vec<u8>>,
}

impl Issued {
    /// The certificate and the CAs below the root, DER, the certificate first.
    pub fn chain_der(&self) -> impl Iterator<Item = &[u8]> {
        let own = std::iter::once(self.enrolment.der.as_slice());
        own.chain(self.chain.iter().map(Vec::as_slice))
    }

    /// The roots to trust, DER: the one that leads here first, then those before it that still
    /// count (while a root is being replaced).
    pub fn roots_der(&self) -> impl Iterator<Item = &[u8]> {
        self.root.iter().map(Vec::as_slice)
    }

    /// The certificate and the CAs below the root, PEM.
    #[must_use]
    pub fn chain_pem(&self) -> String {
        pem::certificates([&self.enrolment.der].into_iter().chain(&self.chain))
    }

    /// The roots to trust, PEM.
    #[must_use]
    pub fn root_pem(&self) -> String {
        pem::certificates(&self.root)
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
    let mut issued = announced(store, signed, by, now).await?;
    issued.seq = store.enrol(&issued.enrolment).await?;
    Ok(issued)
}

/// As [`issue`], with a one-time token: using it and recording the certificate are one step.
///
/// # Errors
/// As [`issue`]; the token is used, expired or unknown.
pub async fn issue_with_token(
    store: &dyn Store,
    signed: Signed,
    token: TokenDigest,
    by: &str,
    now: UnixTime,
) -> Result<Issued, IssueError> {
    let mut issued = announced(store, signed, by, now).await?;
    issued.seq = store.take_token(token, &issued.enrolment, now).await?;
    Ok(issued)
}

/// What a delegate signs: it has no registry, and needs none, for its own pin covers what it signs.
/// A server knows such a certificate by its chain alone, and it is revoked with its delegate.
///
/// # Errors
/// The signer is no delegate (path length 0 and a ceiling): its certificates must be recorded.
pub fn issue_offline(signed: Signed, by: &str, now: UnixTime) -> Result<Issued, IssueError> {
    if !signed.by_delegate {
        return Err(IssueError::MustRecord(signed.name.to_string()));
    }
    draft(signed, by, now)
}

/// A draft, with a word about who has its name already.
async fn announced(
    store: &dyn Store,
    signed: Signed,
    by: &str,
    now: UnixTime,
) -> Result<Issued, IssueError> {
    let mut draft = draft(signed, by, now)?;
    let namesake = namesake(store, &draft.enrolment.name, now).await?;
    draft.notes.extend(namesake);
    Ok(draft)
}

/// All but the place in the feed, which the registry gives. It leaves this file with one, or as what
/// a delegate signed, which has none.
fn draft(signed: Signed, by: &str, now: UnixTime) -> Result<Issued, IssueError> {
    let enrolment = Enrolment {
        fingerprint: signed.parsed.fingerprint,
        kind: signed.kind,
        name: Name::new(signed.name.as_str())?,
        serial: signed.parsed.serial.clone(),
        issuer: Some(signed.issuer),
        profile: signed.profile,
        grants: signed.pin,
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

/// Nobody has a certificate that could not be written, so it is revoked.
///
/// # Errors
/// The registry did not take it.
pub(super) async fn revoke_unwritten(
    store: &dyn Store,
    issued: &Issued,
    now: UnixTime,
) -> Result<(), StoreError> {
    let revocation = Revocation {
        at: now,
        reason: Reason::CessationOfOperation,
        by: issued.enrolment.created_by.clone(),
    };
    let fingerprint = issued.enrolment.fingerprint;
    store.revoke(fingerprint, &revocation).await.map(drop)
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
