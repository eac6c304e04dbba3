//! Delegating: a short-lived CA below the issuing CA, with a ceiling, that signs for its own agents
//! without a registry. It is pinned, and its pin covers what it signs; revoking it revokes all that.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::SubjectPublicKeyInfo;

use crate::cert::{FileError, Parsed, write_atomic};
use crate::clock::UnixTime;
use crate::grant::WrittenGrants;
use crate::identity::SpiffeId;
use crate::registry::{EnrolmentKind, Store, StoreError};

use super::authority::Authority;
use super::certificate::{BuildError, Contents, Role, signed_by, uri};
use super::files::CaFiles;
use super::issue::{Issued, revoke_unwritten};
use super::serial::token;
use super::sign::{Rules, SignError, Signed};
use super::subject_key;

/// A delegate is renewed by its own automation, not by hand: a quarter is already long.
pub const LONGEST_DELEGATION: Duration = Duration::from_secs(90 * 86_400);

/// What is delegated.
#[derive(Clone, Debug)]
pub struct Delegation<'a> {
    /// The name that it is known by.
    pub name: SpiffeId,
    /// Its key, DER `SubjectPublicKeyInfo`.
    pub subject_key: &'a [u8],
    /// Beyond this nothing that it signs can go.
    pub ceiling: WrittenGrants,
    /// How long.
    pub ttl: Duration,
}

impl Authority {
    /// Signs the CA certificate of a delegate.
    ///
    /// # Errors
    /// A delegate cannot delegate; the ceiling is empty or wider than this CA's; a lifetime of less
    /// than a minute or more than 90 days; a weak key.
    pub fn delegate(
        &self,
        delegation: &Delegation<'_>,
        rules: Rules<'_>,
        now: UnixTime,
    ) -> Result<Signed, SignError> {
        let Delegation {
            name,
            subject_key,
            ceiling,
            ttl,
        } = delegation;
        if self.parsed.path_len == Some(0) {
            return Err(SignError::PathLength(self.common_name()));
        }
        if ceiling.is_empty() {
            return Err(SignError::NoGrants(name.clone()));
        }
        subject_key::check(subject_key)?;
        self.check_name(name)?;
        self.check_ceilings(ceiling, rules.roles)?;
        let mut notes = super::sign::unknown_roles(ceiling, rules.roles);
        let (not_before, not_after) =
            self.span("delegate", *ttl, LONGEST_DELEGATION, now, &mut notes)?;
        // Two CAs never share a subject, so that a successor is not taken for the one before.
        let short = name.last_segment();
        let short = &short[..short.len().min(48)];
        let common_name = format!("{short} CA {}", token(4).map_err(BuildError::from)?);
        let domain = self.trust_domain();
        let contents = Contents {
            common_name: &common_name,
            organization: Some(&domain[..domain.len().min(64)]),
            // X.509-SVID section 3.2: the ID of a signing certificate has no path.
            names: vec![uri(&format!("spiffe://{domain}"))?],
            not_before,
            not_after,
            role: Role::Authority(0),
            permissions: Some((rules.permission_oid, ceiling)),
        };
        let key = SubjectPublicKeyInfo::from_der(subject_key).map_err(BuildError::from)?;
        let issuer = self.issuer().map_err(BuildError::from)?;
        let der = signed_by(&contents, &key, &issuer)?.der().to_vec();
        Ok(Signed {
            parsed: Parsed::from_der(&der, rules.permission_oid)?,
            der,
            kind: EnrolmentKind::Authority,
            pinned: true,
            name: name.clone(),
            profile: String::from("delegate"),
            issuer: self.fingerprint(),
            by_delegate: false,
            pin: None,
            // Without the cross-certificate: below the old root the path would be too long, and whoever
            // trusts the new one has no use for it.
            chain: self.chain.clone(),
            root: self.roots.clone(),
            notes,
        })
    }
}

/// Why a delegate's folder was not written.
#[derive(Debug, thiserror::Error)]
pub enum DelegateError {
    /// There is something in the folder.
    #[error("`{0}` is there already, and a CA is never overwritten")]
    Exists(PathBuf),
    /// The folder cannot be made.
    #[error("cannot make the folder `{path}`: {cause}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the operating system said.
        cause: std::io::Error,
    },
    /// The registry.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file; the delegate was revoked.
    #[error("the delegate was recorded and could not be written, so it was revoked: {0}")]
    Write(FileError),
}

/// Looks whether a delegate's folder can be made, before anything is recorded.
///
/// # Errors
/// There is something.
pub fn prepare_delegate(dir: &Path) -> Result<CaFiles, DelegateError> {
    let files = CaFiles::new(dir);
    for path in [
        files.issuing_certificate(),
        files.issuing_key(),
        files.root_certificate(),
    ] {
        if path.exists() {
            return Err(DelegateError::Exists(path));
        }
    }
    std::fs::create_dir_all(dir).map_err(|cause| DelegateError::Folder {
        path: dir.to_owned(),
        cause,
    })?;
    Ok(files)
}

/// Writes a folder that `ca issue --ca DIR --offline` signs from: the delegate's chain, the root,
/// and what the key's file holds, unless the key is elsewhere: the key under a passphrase, or its URI.
///
/// # Errors
/// A file could not be written; the delegate is revoked then.
pub async fn write_delegate(
    store: &dyn Store,
    files: &CaFiles,
    issued: &Issued,
    key_file: Option<&str>,
    now: UnixTime,
) -> Result<(), DelegateError> {
    let write = || {
        if let Some(held) = key_file {
            write_atomic(&files.issuing_key(), held.as_bytes(), 0o600)?;
        }
        write_atomic(
            &files.root_certificate(),
            issued.root_pem().as_bytes(),
            0o644,
        )?;
        write_atomic(
            &files.issuing_certificate(),
            issued.chain_pem().as_bytes(),
            0o644,
        )
    };
    let Err(error) = write() else { return Ok(()) };
    revoke_unwritten(store, issued, now).await?;
    Err(DelegateError::Write(error))
}
