//! Signed CRLs (RFC 5280 section 5): what other relying parties read, and what still says "revoked"
//! after the registry was lost. What puts a revocation in force is the registry, not this file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    CertificateRevocationListParams, CrlDistributionPoint, CrlIssuingDistributionPoint, Issuer,
    KeyIdMethod, RevocationReason, RevokedCertParams, SerialNumber,
};
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{
    CertificateRevocationList, DistributionPointName, FromDer, GeneralName,
    IssuingDistributionPoint, ParsedExtension,
};

use crate::cert::{FileError, pem, write_atomic};
use crate::clock::UnixTime;
use crate::registry::{Enrolment, Reason, Store, StoreError};

use super::authority::Authority;
use super::bundle::write_bundle;
use super::certificate::{BuildError, date};
use super::files::CaFiles;
use super::lock::{FolderLock, LockError};
use super::signer::Signer;

/// How long a CRL counts: relying parties that insist on a fresh one refuse everybody after that.
pub(super) const FRESH: Duration = Duration::from_secs(30 * 86_400);

/// A timer writes a new one after so long, also when there is nothing new to say.
const REWRITE: Duration = Duration::from_secs(86_400);

/// Why there is no new CRL.
#[derive(Debug, thiserror::Error)]
pub enum CrlError {
    /// Making it.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// Writing it.
    #[error(transparent)]
    File(#[from] FileError),
    /// The last one is damaged: its number and entries must not be lost, so it is not replaced.
    #[error("`{path}` is not a CRL in PEM: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Somebody else's CRL.
    #[error("`{path}` is the CRL of another CA")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Two writers.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The registry.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A CRL that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenCrl {
    /// Where.
    pub path: PathBuf,
    /// Grows with every one.
    pub number: u64,
    /// How many certificates it names.
    pub entries: usize,
    /// When the next is due.
    pub next_update: UnixTime,
}

/// Serial number to the time and reason.
type Entries = BTreeMap<Vec<u8>, (UnixTime, Reason)>;

/// What a CRL file says.
#[derive(Debug)]
pub(super) struct Read {
    pub number: u64,
    pub next_update: UnixTime,
    this_update: UnixTime,
    distribution_point: Option<String>,
    entries: Entries,
}

/// Writes the CRL of one CA: every certificate that the registry knows as revoked and issued by it,
/// and every entry of the CRL before, unless the registry knows that it has expired since.
///
/// # Errors
/// The last CRL is damaged or another CA's, the registry cannot be read, or the file not written.
pub async fn write_crl(
    authority: &Authority,
    path: &Path,
    store: &dyn Store,
    now: UnixTime,
) -> Result<WrittenCrl, CrlError> {
    write(authority, path, store, None, now).await
}

/// As [`write_crl`], saying at which address relying parties find it (the issuing distribution
/// point, RFC 5280 section 5.2.5). Every later CRL of the file says the same. A relying party may
/// then insist that a certificate names the same address.
///
/// # Errors
/// As [`write_crl`]; the address cannot stand in a CRL.
pub async fn write_crl_at(
    authority: &Authority,
    path: &Path,
    store: &dyn Store,
    address: &str,
    now: UnixTime,
) -> Result<WrittenCrl, CrlError> {
    write(authority, path, store, Some(address), now).await
}

/// Writes the CRL if there is something new to say, or it is more than a day old.
///
/// # Errors
/// As [`write_crl`].
pub async fn refresh_crl(
    authority: &Authority,
    path: &Path,
    store: &dyn Store,
    now: UnixTime,
) -> Result<Option<WrittenCrl>, CrlError> {
    if let Some(last) = read(path, authority.der())? {
        let mut entries = last.entries.clone();
        collect(authority, store, now, &mut entries).await?;
        let young = (0..REWRITE.as_secs().cast_signed()).contains(&(now.0 - last.this_update.0));
        if young && entries == last.entries {
            return Ok(None);
        }
    }
    write_crl(authority, path, store, now).await.map(Some)
}

/// Refreshes the CRLs of those CAs of a folder that are open here, wherever their files are, and
/// the bundle when one was written. For a timer, and after every change of the registry.
///
/// # Errors
/// As [`write_crl`]; those before it are written.
pub async fn refresh_crls(
    files: &CaFiles,
    open: &[Authority],
    store: &dyn Store,
    oid: &str,
    now: UnixTime,
) -> Result<Vec<WrittenCrl>, CrlError> {
    let mut written = Vec::new();
    for authority in open {
        let Some(path) = files.crl_of(authority.fingerprint()) else {
            continue;
        };
        written.extend(refresh_crl(authority, &path, store, now).await?);
    }
    if !written.is_empty() || !files.bundle().exists() {
        write_bundle(files, oid, now)?;
    }
    Ok(written)
}

async fn write(
    authority: &Authority,
    path: &Path,
    store: &dyn Store,
    address: Option<&str>,
    now: UnixTime,
) -> Result<WrittenCrl, CrlError> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // Held over the reading of the registry on purpose: of two writers at the same time the later
    // must read after the earlier wrote, or an entry could be lost.
    let _lock = FolderLock::take(folder)?;
    let last = read(path, authority.der())?;
    let (number, mut entries, known_address) = last.map_or_else(
        || (0, Entries::new(), None),
        |last| (last.number, last.entries, last.distribution_point),
    );
    collect(authority, store, now, &mut entries).await?;
    // The clock gives a number that grows even when the file was lost.
    let number = (number + 1).max(now.0.unsigned_abs());
    let issuer = authority.issuer().map_err(BuildError::from)?;
    let text = encode(
        &issuer,
        authority.der(),
        &Content {
            entries: &entries,
            number,
            address: address.or(known_address.as_deref()),
            now,
        },
    )?;
    write_atomic(path, text.as_bytes(), 0o644)?;
    Ok(WrittenCrl {
        path: path.to_owned(),
        number,
        entries: entries.len(),
        next_update: now.plus(FRESH),
    })
}

/// The first, empty CRL of a new CA, as PEM.
pub(super) fn first_crl(der: &[u8], signer: &Signer, now: UnixTime) -> Result<String, CrlError> {
    let issuer = Issuer::from_ca_cert_der(&der.into(), signer).map_err(BuildError::from)?;
    encode(
        &issuer,
        der,
        &Content {
            entries: &Entries::new(),
            number: now.0.unsigned_abs(),
            address: None,
            now,
        },
    )
}

/// What the file at `path` says, or nothing when there is none.
pub(super) fn read(path: &Path, issuer: &[u8]) -> Result<Option<Read>, CrlError> {
    let damaged = |what: String| CrlError::Damaged {
        path: path.to_owned(),
        what,
    };
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => {
            return Err(FileError::Read {
                path: path.to_owned(),
                cause,
            }
            .into());
        }
    };
    let der = CertificateRevocationListDer::from_pem_slice(&text)
        .map_err(|error| damaged(error.to_string()))?;
    let (_, crl) =
        CertificateRevocationList::from_der(&der).map_err(|error| damaged(error.to_string()))?;
    if !is_of(&crl, issuer) {
        return Err(CrlError::Foreign {
            path: path.to_owned(),
        });
    }
    let number = crl
        .crl_number()
        .and_then(|number| u64::try_from(number).ok());
    let mut entries = Entries::new();
    for entry in crl.iter_revoked_certificates() {
        let at = UnixTime(entry.revocation_date.timestamp());
        let reason = entry
            .reason_code()
            .map_or(Reason::Unspecified, |(_, code)| reason(code.0));
        entries.insert(entry.raw_serial().to_vec(), (at, reason));
    }
    Ok(Some(Read {
        number: number.ok_or_else(|| damaged(String::from("it has no number")))?,
        next_update: UnixTime(crl.next_update().map_or(0, |time| time.timestamp())),
        this_update: UnixTime(crl.last_update().timestamp()),
        distribution_point: distribution_point(&crl),
        entries,
    }))
}

fn is_of(crl: &CertificateRevocationList<'_>, issuer: &[u8]) -> bool {
    let Ok((_, issuer)) = x509_parser::parse_x509_certificate(issuer) else {
        return false;
    };
    crl.issuer().as_raw() == issuer.subject().as_raw()
        && crl.verify_signature(issuer.public_key()).is_ok()
}

/// What the registry says takes the place of what the last CRL said. An entry that only the last
/// CRL has stays, for the registry may have been lost since; it goes when the registry knows that
/// its certificate has expired (RFC 5280 section 3.3: not before one more CRL named it).
async fn collect(
    authority: &Authority,
    store: &dyn Store,
    now: UnixTime,
    entries: &mut Entries,
) -> Result<(), StoreError> {
    let ending = UnixTime(now.0.saturating_sub(FRESH.as_secs().cast_signed()));
    let revoked = store.revoked(authority.fingerprint(), ending).await?;
    let known: Entries = revoked
        .into_iter()
        .filter_map(|one| {
            Some((
                hex::decode(one.serial).ok()?,
                (one.revocation.at, one.revocation.reason),
            ))
        })
        .collect();
    let unknown: Vec<Vec<u8>> = entries
        .keys()
        .filter(|serial| !known.contains_key(*serial))
        .cloned()
        .collect();
    for serial in unknown {
        match store.find(&hex::encode(&serial), now).await {
            Ok(enrolment) if end_of(&enrolment) < ending => drop(entries.remove(&serial)),
            Ok(_) | Err(StoreError::NotFound(_) | StoreError::Ambiguous(_)) => {}
            Err(error) => return Err(error),
        }
    }
    entries.extend(known);
    Ok(())
}

/// The certificate's own end: on record it may have been brought nearer.
fn end_of(enrolment: &Enrolment) -> UnixTime {
    x509_parser::parse_x509_certificate(&enrolment.der)
        .map_or(enrolment.not_after, |(_, parsed)| {
            UnixTime(parsed.validity().not_after.timestamp()).max(enrolment.not_after)
        })
}

/// The first URI of the issuing distribution point.
fn distribution_point(crl: &CertificateRevocationList<'_>) -> Option<String> {
    crl.extensions()
        .iter()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::IssuingDistributionPoint(IssuingDistributionPoint {
                distribution_point: Some(DistributionPointName::FullName(names)),
                ..
            }) => names.iter().find_map(|name| match name {
                GeneralName::URI(uri) => Some((*uri).to_owned()),
                _ => None,
            }),
            _ => None,
        })
}

/// What differs from CRL to CRL.
struct Content<'a> {
    entries: &'a Entries,
    number: u64,
    address: Option<&'a str>,
    now: UnixTime,
}

fn encode(
    issuer: &Issuer<'_, &Signer>,
    der: &[u8],
    content: &Content<'_>,
) -> Result<String, CrlError> {
    let Content {
        entries,
        number,
        address,
        now,
    } = *content;
    let revoked = entries.iter().map(|(serial, (at, reason))| {
        Ok(RevokedCertParams {
            serial_number: SerialNumber::from_slice(serial),
            revocation_time: date(*at)?,
            reason_code: Some(code(*reason)),
            invalidity_date: None,
        })
    });
    let parameters = CertificateRevocationListParams {
        this_update: date(now)?,
        next_update: date(now.plus(FRESH))?,
        crl_number: SerialNumber::from(number),
        issuing_distribution_point: address.map(|address| CrlIssuingDistributionPoint {
            distribution_point: CrlDistributionPoint {
                uris: vec![address.to_owned()],
            },
            scope: None,
        }),
        revoked_certs: revoked.collect::<Result<_, BuildError>>()?,
        key_identifier_method: key_identifier(der),
    };
    let crl = parameters.signed_by(issuer).map_err(BuildError::from)?;
    Ok(pem::block("X509 CRL", crl.der()).to_string())
}

/// The authority key identifier is the subject key identifier of the CA's certificate.
fn key_identifier(der: &[u8]) -> KeyIdMethod {
    let identifier = x509_parser::parse_x509_certificate(der)
        .ok()
        .and_then(|(_, certificate)| {
            certificate
                .iter_extensions()
                .find_map(|extension| match extension.parsed_extension() {
                    ParsedExtension::SubjectKeyIdentifier(key) => Some(key.0.to_vec()),
                    _ => None,
                })
        });
    identifier.map_or(KeyIdMethod::Sha256, KeyIdMethod::PreSpecified)
}

const fn code(reason: Reason) -> RevocationReason {
    match reason {
        Reason::Unspecified => RevocationReason::Unspecified,
        Reason::KeyCompromise => RevocationReason::KeyCompromise,
        Reason::CaCompromise => RevocationReason::CaCompromise,
        Reason::AffiliationChanged => RevocationReason::AffiliationChanged,
        Reason::Superseded => RevocationReason::Superseded,
        Reason::CessationOfOperation => RevocationReason::CessationOfOperation,
        Reason::PrivilegeWithdrawn => RevocationReason::PrivilegeWithdrawn,
    }
}

const fn reason(code: u8) -> Reason {
    match code {
        1 => Reason::KeyCompromise,
        2 => Reason::CaCompromise,
        3 => Reason::AffiliationChanged,
        4 => Reason::Superseded,
        5 => Reason::CessationOfOperation,
        9 => Reason::PrivilegeWithdrawn,
        _ => Reason::Unspecified,
    }
}
