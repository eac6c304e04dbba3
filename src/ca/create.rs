//! Making a CA: a root, an issuing CA below it, their first CRLs. The folder appears as a whole or
//! not at all: everything is written beside it and moved into place, so a killed run leaves nothing
//! that looks like a CA.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cert::{FileError, KeyError, KeyKind, ParseError, Parsed, pem, write_atomic};
use crate::clock::UnixTime;
use crate::grant::WrittenGrants;
use crate::identity::{Name, NameError, SpiffeError, SpiffeId};
use crate::registry::{Enrolment, EnrolmentKind, Store, StoreError};

use super::authority::{Above, Authority, AuthorityError};
use super::bundle::write_bundle;
use super::certificate::{BuildError, Contents, Role, self_signed, signed_by, uri};
use super::crl::{CrlError, first_crl};
use super::files::{CaFiles, SettleError, State};
use super::keeping::Keeping;
use super::lock::{FolderLock, LockError};
use super::serial::token;
use super::sign::BACKDATE;
use super::signer::{Signer, SignerError};

const DAY: Duration = Duration::from_secs(86_400);
/// Ten years.
pub(super) const ROOT_LIFETIME: Duration = Duration::from_secs(3652 * DAY.as_secs());
/// One year.
const ISSUING_LIFETIME: Duration = Duration::from_secs(365 * DAY.as_secs());

/// Why there is no new CA.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// There is one.
    #[error("`{0}` holds a CA already, and a CA is never overwritten")]
    Exists(PathBuf),
    /// There is part of one.
    #[error("`{dir}` holds part of a CA: {missing} is missing")]
    Partial {
        /// The folder.
        dir: PathBuf,
        /// File names.
        missing: String,
    },
    /// There is something else.
    #[error("`{0}` is not empty and holds no CA")]
    Foreign(PathBuf),
    /// The folder cannot be made, moved or removed.
    #[error("cannot make the folder `{path}`: {cause}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the operating system said.
        cause: std::io::Error,
    },
    /// The trust domain's spelling.
    #[error("`{domain}`: {error}")]
    TrustDomain {
        /// As given.
        domain: String,
        /// What is wrong with it.
        error: SpiffeError,
    },
    /// Two writers.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Writing a file.
    #[error(transparent)]
    File(#[from] FileError),
    /// Encrypting a key, or a key in a token.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A rotation to the key that is there.
    #[error("the new CA would have the key of the one before")]
    SameKey,
    /// Making a key.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// Making a certificate.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A rotation before this one cannot be finished.
    #[error(transparent)]
    Settle(#[from] SettleError),
    /// Reading back the chain that was made.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// Making a CRL.
    #[error(transparent)]
    Crl(#[from] CrlError),
    /// Reading back what was made.
    #[error("the certificate that was made cannot be read back: {0}")]
    ReadBack(#[from] ParseError),
    /// The CA's name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The registry.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How a new CA is to be.
#[derive(Clone, Copy, Debug)]
pub struct NewAuthority<'a> {
    /// Whose names it gives out.
    pub trust_domain: &'a str,
    /// Both keys' kind.
    pub key: KeyKind,
    /// Where the root's key is kept.
    pub root: Keeping<'a>,
    /// Where the issuing CA's key is kept.
    pub issuing: Keeping<'a>,
    /// The permission extension's identifier.
    pub permission_oid: &'a str,
    /// Beyond this nothing that the issuing CA signs can go. The root has no ceiling: it could not
    /// be taken back for ten years.
    pub ceiling: Option<&'a WrittenGrants>,
    /// Written into the folder with the rest: name, content, mode 0600.
    pub beside: Option<(&'a str, &'a [u8])>,
}

/// What was made.
#[derive(Debug)]
pub struct Created {
    /// Where.
    pub files: CaFiles,
    /// The root's certificate.
    pub root: Parsed,
    /// The issuing CA, open.
    pub issuing: Authority,
}

/// Makes a CA in a folder that holds none.
///
/// # Errors
/// There is one, or part of one, or something else; or a step failed, and then there is none.
pub async fn create(
    files: &CaFiles,
    new: NewAuthority<'_>,
    store: &dyn Store,
    by: &str,
    now: UnixTime,
) -> Result<Created, CreateError> {
    let parent = parent(files.dir());
    fs::create_dir_all(parent).map_err(folder(parent))?;
    // Held over the registry's transaction on purpose: the second of two must find the first's CA.
    let _lock = FolderLock::take(parent)?;
    create_in_locked(files, new, store, by, now).await
}

/// As [`create`], for a caller that holds the lock of the folder above.
pub(super) async fn create_in_locked(
    files: &CaFiles,
    new: NewAuthority<'_>,
    store: &dyn Store,
    by: &str,
    now: UnixTime,
) -> Result<Created, CreateError> {
    refuse_existing(files)?;
    let domain = new.trust_domain;
    SpiffeId::check_trust_domain(domain).map_err(|error| CreateError::TrustDomain {
        domain: domain.to_owned(),
        error,
    })?;
    let root = make_root(new, now)?;
    let issuing = make_issuing(&root.certificate, &root.signer, new, now)?;
    let staged = stage(files, new, &root, &issuing, now)?;
    store.enrol(&record(&issuing, &root, by, now)?).await?;
    fs::rename(&staged, files.dir()).map_err(folder(files.dir()))?;
    sync_folder(parent(files.dir()))?;
    let above = above(files, new.permission_oid)?;
    let issuing = Authority::of(above, issuing.signer);
    Ok(Created {
        files: files.clone(),
        root: root.parsed,
        issuing,
    })
}

fn above(files: &CaFiles, oid: &str) -> Result<Above, AuthorityError> {
    Above::load(&files.issuing_certificate(), &files.root_certificate(), oid)
}

/// A key and its certificate, not written yet.
pub(super) struct Made {
    pub signer: Signer,
    /// What its file holds: nothing that is secret.
    pub key_file: String,
    pub certificate: Vec<u8>,
    pub parsed: Parsed,
}

fn refuse_existing(files: &CaFiles) -> Result<(), CreateError> {
    let dir = files.dir().to_owned();
    match files.state().map_err(folder(&dir))? {
        State::Absent => Ok(()),
        State::Complete => Err(CreateError::Exists(dir)),
        State::Foreign => Err(CreateError::Foreign(dir)),
        State::Partial { missing } => {
            let missing = missing
                .iter()
                .map(|name| format!("`{name}`"))
                .collect::<Vec<_>>();
            Err(CreateError::Partial {
                dir,
                missing: missing.join(", "),
            })
        }
    }
}

/// The common name ends in eight random digits: two CAs of one trust domain never share a subject,
/// so that no verifier takes one for the other while both are trusted.
fn contents<'a>(
    new: &NewAuthority<'a>,
    common_name: &'a str,
    below: u8,
    lifetime: Duration,
    now: UnixTime,
) -> Result<Contents<'a>, BuildError> {
    let domain = new.trust_domain;
    Ok(Contents {
        common_name,
        // RFC 5280 appendix A: at most 64 characters (`ub-organization-name`).
        organization: Some(&domain[..domain.len().min(64)]),
        names: vec![uri(&format!("spiffe://{domain}"))?],
        not_before: UnixTime(now.0 - BACKDATE.as_secs().cast_signed()),
        not_after: now.plus(lifetime),
        role: Role::Authority(below),
        permissions: None,
    })
}

pub(super) fn make_root(new: NewAuthority<'_>, now: UnixTime) -> Result<Made, CreateError> {
    let (signer, key_file) = new.root.make(new.key)?;
    let name = format!(
        "Countersign Root CA {}",
        token(4).map_err(BuildError::from)?
    );
    let certificate = self_signed(&contents(&new, &name, 2, ROOT_LIFETIME, now)?, &signer)?;
    let certificate = certificate.der().to_vec();
    let parsed = Parsed::from_der(&certificate, new.permission_oid)?;
    Ok(Made {
        signer,
        key_file,
        certificate,
        parsed,
    })
}

pub(super) fn make_issuing(
    root: &[u8],
    root_signer: &Signer,
    new: NewAuthority<'_>,
    now: UnixTime,
) -> Result<Made, CreateError> {
    let (signer, key_file) = new.issuing.make(new.key)?;
    let name = format!(
        "Countersign Issuing CA {}",
        token(4).map_err(BuildError::from)?
    );
    let mut contents = contents(&new, &name, 1, ISSUING_LIFETIME, now)?;
    contents.permissions = new.ceiling.map(|ceiling| (new.permission_oid, ceiling));
    let above = Parsed::from_der(root, new.permission_oid)?;
    contents.not_after = contents.not_after.min(above.not_after);
    let issuer =
        rcgen::Issuer::from_ca_cert_der(&root.into(), root_signer).map_err(BuildError::from)?;
    let certificate = signed_by(&contents, &signer, &issuer)?.der().to_vec();
    let parsed = Parsed::from_der(&certificate, new.permission_oid)?;
    Ok(Made {
        signer,
        key_file,
        certificate,
        parsed,
    })
}

/// Writes everything into a folder beside the wanted one; what a killed run left there goes first.
fn stage(
    files: &CaFiles,
    new: NewAuthority<'_>,
    root: &Made,
    issuing: &Made,
    now: UnixTime,
) -> Result<PathBuf, CreateError> {
    let name = files
        .dir()
        .file_name()
        .map(|name| name.to_string_lossy())
        .unwrap_or_default();
    let staged = parent(files.dir()).join(format!(".{name}.making"));
    if staged.exists() {
        fs::remove_dir_all(&staged).map_err(folder(&staged))?;
    }
    fs::create_dir(&staged).map_err(folder(&staged))?;
    let at = CaFiles::new(&staged);
    let certificate = |made: &Made| pem::block("CERTIFICATE", &made.certificate);
    write_atomic(&at.root_key(), root.key_file.as_bytes(), 0o600)?;
    write_atomic(&at.root_certificate(), certificate(root).as_bytes(), 0o644)?;
    write_atomic(&at.issuing_key(), issuing.key_file.as_bytes(), 0o600)?;
    write_atomic(
        &at.issuing_certificate(),
        certificate(issuing).as_bytes(),
        0o644,
    )?;
    let crl = |made: &Made| first_crl(&made.certificate, &made.signer, now);
    write_atomic(&at.root_crl(), crl(root)?.as_bytes(), 0o644)?;
    write_atomic(&at.issuing_crl(), crl(issuing)?.as_bytes(), 0o644)?;
    write_bundle(&at, new.permission_oid, now)?;
    if let Some((name, content)) = new.beside {
        write_atomic(&staged.join(name), content, 0o600)?;
    }
    Ok(staged)
}

fn record(issuing: &Made, root: &Made, by: &str, now: UnixTime) -> Result<Enrolment, NameError> {
    let mut enrolment = authority_record(&issuing.certificate, &issuing.parsed, by, now)?;
    enrolment.issuer = Some(root.parsed.fingerprint);
    Ok(enrolment)
}

/// On record so that it can be revoked; not pinned, for that would admit everything below it.
pub(super) fn authority_record(
    certificate: &[u8],
    parsed: &Parsed,
    by: &str,
    now: UnixTime,
) -> Result<Enrolment, NameError> {
    let name = parsed.common_names.first().unwrap_or(&parsed.subject);
    Ok(Enrolment {
        fingerprint: parsed.fingerprint,
        kind: EnrolmentKind::Authority,
        name: Name::new(name)?,
        serial: parsed.serial.clone(),
        issuer: None,
        profile: String::from("issuing"),
        grants: None,
        not_before: parsed.not_before,
        not_after: parsed.not_after,
        pinned: false,
        revocation: None,
        created_at: now,
        created_by: by.to_owned(),
        der: certificate.to_vec(),
    })
}

fn parent(dir: &Path) -> &Path {
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

pub(super) fn folder(path: &Path) -> impl FnOnce(std::io::Error) -> CreateError + use<> {
    let path = path.to_owned();
    move |cause| CreateError::Folder { path, cause }
}

pub(super) fn sync_folder(path: &Path) -> Result<(), CreateError> {
    fs::File::open(path)
        .and_then(|dir| dir.sync_all())
        .map_err(folder(path))
}
