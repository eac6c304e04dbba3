//! Replacing the issuing CA or the root while certificates of the one before live on: both stay
//! trusted, both keep their CRLs, and nobody has to do anything at the same moment as somebody else.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cert::{Parsed, load_chain, pem, write_atomic};
use crate::clock::UnixTime;
use crate::registry::{Enrolment, EnrolmentKind, Store};

use super::authority::{Above, Authority, public_key};
use super::bundle::write_bundle;
use super::certificate::{BuildError, Contents, Role, signed_by, uri};
use super::create::{
    CreateError, Made, NewAuthority, ROOT_LIFETIME, authority_record, folder, make_issuing,
    make_root, sync_folder,
};
use super::crl::first_crl;
use super::files::CaFiles;
use super::lock::FolderLock;
use super::sign::BACKDATE;

/// What came of a rotation.
#[derive(Debug)]
pub struct Rotated {
    /// The new issuing CA, open.
    pub issuing: Authority,
    /// Where the one before is now, with its key: it signs its CRL until its certificates are over.
    pub retired: CaFiles,
}

/// A new issuing CA below the root of a folder, in the place of the one that is there.
///
/// # Errors
/// A step failed; up to the last one the CA before is in place, after it the new one.
pub async fn rotate_issuing(
    files: &CaFiles,
    root: &Authority,
    new: NewAuthority<'_>,
    store: &dyn Store,
    by: &str,
    now: UnixTime,
) -> Result<Rotated, CreateError> {
    // Held over the registry's transaction on purpose: of two, the second replaces the first's CA.
    let _lock = FolderLock::take(files.dir())?;
    files.settle_locked()?;
    let issuing = make_issuing(root.der(), &root.signer, new, now)?;
    refuse_same_key(&files.issuing_certificate(), &issuing)?;
    let staged = Staged::new(files)?;
    staged.issuing(&issuing, now)?;
    let retired = retire(files, &ISSUING)?;
    let mut enrolment = authority_record(&issuing.certificate, &issuing.parsed, by, now)?;
    enrolment.issuer = Some(root.fingerprint());
    store.enrol(&enrolment).await?;
    staged.put_in_place(files)?;
    finish(files, issuing, retired, new.permission_oid, now)
}

/// A new root, and a new issuing CA below it. The root before signs the new one (a cross
/// certificate), so that who trusts only the old one accepts what comes after.
///
/// # Errors
/// As [`rotate_issuing`].
pub async fn rotate_root(
    files: &CaFiles,
    old: &Authority,
    new: NewAuthority<'_>,
    store: &dyn Store,
    by: &str,
    now: UnixTime,
) -> Result<Rotated, CreateError> {
    let _lock = FolderLock::take(files.dir())?;
    files.settle_locked()?;
    let root = make_root(new, now)?;
    refuse_same_key(&files.root_certificate(), &root)?;
    let cross = cross_sign(&root, old, new, now)?;
    let issuing = make_issuing(&root.certificate, &root.signer, new, now)?;
    refuse_same_key(&files.issuing_certificate(), &issuing)?;
    let staged = Staged::new(files)?;
    staged.root(&root, &live_roots(files, new.permission_oid, now)?, now)?;
    staged.certificate("cross.crt", &cross)?;
    staged.issuing(&issuing, now)?;
    let retired = retire(files, &ALL)?;
    for (certificate, issuer) in [
        (&cross, old.fingerprint()),
        (&issuing.certificate, root.parsed.fingerprint),
    ] {
        let parsed = Parsed::from_der(certificate, new.permission_oid)?;
        let mut enrolment = authority_record(certificate, &parsed, by, now)?;
        enrolment.issuer = Some(issuer);
        store.enrol(&kept(enrolment)).await?;
    }
    staged.put_in_place(files)?;
    finish(files, issuing, retired, new.permission_oid, now)
}

/// A name of a key in a token may be one that is there: the certificates of two CAs with one key
/// could not be told apart by their key.
fn refuse_same_key(before: &Path, made: &Made) -> Result<(), CreateError> {
    let before = load_chain(before)?.swap_remove(0);
    if public_key(&before).is_some_and(|key| key == made.signer.public_key()) {
        return Err(CreateError::SameKey);
    }
    Ok(())
}

/// On record so that it can be revoked, and never pinned.
fn kept(enrolment: Enrolment) -> Enrolment {
    Enrolment {
        kind: EnrolmentKind::Authority,
        pinned: false,
        ..enrolment
    }
}

fn finish(
    files: &CaFiles,
    issuing: Made,
    retired: CaFiles,
    oid: &str,
    now: UnixTime,
) -> Result<Rotated, CreateError> {
    write_bundle(files, oid, now)?;
    let above = Above::load(&files.issuing_certificate(), &files.root_certificate(), oid)?;
    Ok(Rotated {
        issuing: Authority::of(above, issuing.signer),
        retired,
    })
}

/// The new root's name and key in a certificate of the root before, for as long as that one lives.
/// It counts as one CA of the old root's path, so the new root's issuing CAs fit below, and their
/// delegates do not: those need the new root to be trusted.
fn cross_sign(
    root: &Made,
    old: &Authority,
    new: NewAuthority<'_>,
    now: UnixTime,
) -> Result<Vec<u8>, CreateError> {
    let name = root
        .parsed
        .common_names
        .first()
        .unwrap_or(&root.parsed.subject);
    let domain = new.trust_domain;
    let contents = Contents {
        common_name: name,
        organization: Some(&domain[..domain.len().min(64)]),
        names: vec![uri(&format!("spiffe://{domain}"))?],
        not_before: UnixTime(now.0 - BACKDATE.as_secs().cast_signed()).max(old.parsed.not_before),
        not_after: now.plus(ROOT_LIFETIME).min(old.not_after),
        role: Role::Authority(1),
        permissions: None,
    };
    let issuer = old.issuer().map_err(BuildError::from)?;
    Ok(signed_by(&contents, &root.signer, &issuer)?.der().to_vec())
}

/// The roots that are trusted now and have not ended.
fn live_roots(files: &CaFiles, oid: &str, now: UnixTime) -> Result<Vec<Vec<u8>>, CreateError> {
    let roots = load_chain(&files.root_certificate())?;
    let lives = |der: &Vec<u8>| Parsed::from_der(der, oid).is_ok_and(|root| root.not_after > now);
    Ok(roots.into_iter().filter(lives).collect())
}

/// The new files, made beside the folder's own.
struct Staged(PathBuf);

impl Staged {
    /// What a killed run left there goes first.
    fn new(files: &CaFiles) -> Result<Self, CreateError> {
        let dir = files.dir().join(".next.making");
        remove(&dir)?;
        fs::create_dir(&dir).map_err(folder(&dir))?;
        Ok(Self(dir))
    }

    fn issuing(&self, made: &Made, now: UnixTime) -> Result<(), CreateError> {
        let at = CaFiles::new(&self.0);
        write_atomic(&at.issuing_key(), made.key_file.as_bytes(), 0o600)?;
        self.certificate("issuing.crt", &made.certificate)?;
        let crl = first_crl(&made.certificate, &made.signer, now)?;
        Ok(write_atomic(&at.issuing_crl(), crl.as_bytes(), 0o644)?)
    }

    fn root(&self, made: &Made, before: &[Vec<u8>], now: UnixTime) -> Result<(), CreateError> {
        let at = CaFiles::new(&self.0);
        write_atomic(&at.root_key(), made.key_file.as_bytes(), 0o600)?;
        let roots = pem::certificates([&made.certificate].into_iter().chain(before));
        write_atomic(&at.root_certificate(), roots.as_bytes(), 0o644)?;
        let crl = first_crl(&made.certificate, &made.signer, now)?;
        Ok(write_atomic(&at.root_crl(), crl.as_bytes(), 0o644)?)
    }

    fn certificate(&self, name: &str, der: &[u8]) -> Result<(), CreateError> {
        let text = pem::block("CERTIFICATE", der);
        Ok(write_atomic(&self.0.join(name), text.as_bytes(), 0o644)?)
    }

    /// From the first rename on the new files count, whatever happens.
    fn put_in_place(self, files: &CaFiles) -> Result<(), CreateError> {
        let next = files.next();
        fs::rename(&self.0, &next).map_err(folder(&next))?;
        sync_folder(files.dir())?;
        Ok(files.settle_locked()?)
    }
}

/// Files of an issuing CA that is replaced: name, and whether it holds a key.
const ISSUING: [(&str, bool); 5] = [
    ("issuing.crt", false),
    ("issuing.key", true),
    ("issuing.crl", false),
    ("root.crt", false),
    ("cross.crt", false),
];
/// With the root above it.
const ALL: [(&str, bool); 7] = [
    ("issuing.crt", false),
    ("issuing.key", true),
    ("issuing.crl", false),
    ("root.crt", false),
    ("cross.crt", false),
    ("root.key", true),
    ("root.crl", false),
];

/// Copies what is about to be replaced into a folder of its own, named for the issuing CA.
fn retire(files: &CaFiles, names: &[(&str, bool)]) -> Result<CaFiles, CreateError> {
    let issuing = load_chain(&files.issuing_certificate())?.swap_remove(0);
    let short = crate::identity::Fingerprint::of_der(&issuing).short();
    let retired = files.retired();
    fs::create_dir_all(&retired).map_err(folder(&retired))?;
    let (place, staged) = (
        retired.join(&short),
        retired.join(format!(".{short}.making")),
    );
    remove(&staged)?;
    fs::create_dir(&staged).map_err(folder(&staged))?;
    // A passphrase that lies beside the keys (the quickstart's) goes with them.
    for (name, private) in names.iter().copied().chain([("passphrase", true)]) {
        copy(&files.dir().join(name), &staged.join(name), private)?;
    }
    // What a run left that was killed after this step: the same CA, and perhaps an older CRL.
    remove(&place)?;
    fs::rename(&staged, &place).map_err(folder(&place))?;
    sync_folder(&retired)?;
    Ok(CaFiles::new(&place))
}

fn copy(from: &Path, to: &Path, private: bool) -> Result<(), CreateError> {
    let content = match fs::read(from) {
        Ok(content) => zeroize::Zeroizing::new(content),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(folder(from)(error)),
    };
    Ok(write_atomic(
        to,
        &content,
        if private { 0o600 } else { 0o644 },
    )?)
}

fn remove(dir: &Path) -> Result<(), CreateError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(folder(dir)(error)),
        _ => Ok(()),
    }
}
