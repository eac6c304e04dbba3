//! CRL files: read, and asked. A signature is verified by webpki, against the issuer's key, when a
//! path is built; here it is the file that is judged.

use std::fmt;
use std::path::Path;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use webpki::{CertRevocationList, OwnedCertRevocationList};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use crate::clock::UnixTime;
use crate::identity::Fingerprint;

/// The largest CRL file that is read: 256 MiB, some millions of entries.
const LARGEST: u64 = 256 * 1024 * 1024;

/// Every CRL of one file, the newest of an issuer first.
#[derive(Default)]
pub(super) struct Crls {
    entries: Vec<Crl>,
}

struct Crl {
    list: CertRevocationList<'static>,
    this_update: UnixTime,
    next_update: UnixTime,
}

impl Crls {
    /// Reads a file of PEM sections, or one CRL in DER.
    pub(super) fn load(path: &Path) -> Result<Self, String> {
        let cannot = |cause: &dyn fmt::Display| format!("CRL `{}`: {cause}", path.display());
        let size = std::fs::metadata(path).map_err(|e| cannot(&e))?.len();
        if size > LARGEST {
            return Err(cannot(&"it is larger than 256 MiB"));
        }
        let content = std::fs::read(path).map_err(|e| cannot(&e))?;
        let mut entries = Vec::new();
        for der in sections(&content).map_err(|e| cannot(&e))? {
            entries.push(Crl::read(&der).map_err(|e| cannot(&e))?);
        }
        if entries.is_empty() {
            return Err(cannot(&"it holds no CRL"));
        }
        entries.sort_by_key(|crl| std::cmp::Reverse(crl.this_update));
        Ok(Self { entries })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// As webpki takes them.
    pub(super) fn lists(&self) -> Vec<&CertRevocationList<'static>> {
        self.entries.iter().map(|crl| &crl.list).collect()
    }

    /// Whether one is of this issuer (its name's DER).
    pub(super) fn cover(&self, issuer: &[u8]) -> bool {
        self.entries.iter().any(|crl| crl.list.issuer() == issuer)
    }

    /// Whether one of this issuer names this serial.
    pub(super) fn revoke(&self, issuer: &[u8], serial: &[u8]) -> bool {
        let of_issuer = self
            .entries
            .iter()
            .filter(|crl| crl.list.issuer() == issuer);
        // What cannot be looked up counts as revoked.
        of_issuer
            .into_iter()
            .any(|crl| !matches!(crl.list.find_serial(serial), Ok(None)))
    }

    /// Until when what they say of these issuers is fresh.
    pub(super) fn fresh_until<'a>(&self, issuers: impl Iterator<Item = &'a [u8]>) -> UnixTime {
        let first_of = |issuer| self.entries.iter().find(|crl| crl.list.issuer() == issuer);
        issuers
            .filter_map(|issuer| first_of(issuer).map(|crl| crl.next_update))
            .min()
            .unwrap_or(UnixTime::MAX)
    }

    /// The first `nextUpdate` of all.
    pub(super) fn next_update(&self) -> UnixTime {
        self.entries
            .iter()
            .map(|crl| crl.next_update)
            .min()
            .unwrap_or(UnixTime::MAX)
    }
}

impl Crl {
    fn read(der: &[u8]) -> Result<Self, String> {
        let list = OwnedCertRevocationList::from_der(der).map_err(|e| e.to_string())?;
        let (_, parsed) = CertificateRevocationList::from_der(der).map_err(|e| e.to_string())?;
        // webpki has refused a list without `nextUpdate` already.
        let next = parsed.next_update().ok_or("it has no next update")?;
        Ok(Self {
            list: list.into(),
            this_update: UnixTime(parsed.last_update().timestamp()),
            next_update: UnixTime(next.timestamp()),
        })
    }
}

/// A CA certificate, and the serials (big-endian bytes) that its CRL lists.
pub type Listed = (Fingerprint, Vec<Vec<u8>>);

/// What the CRLs of a file name, by the fingerprint of the certificate that signed each: the file
/// holds these certificates too. A CRL that none of them signed is an error, for what it names would
/// be lost without a word.
///
/// # Errors
/// Unreadable, no CRL in it, or a CRL without its signer.
pub fn own_revocations(path: &Path) -> Result<Vec<Listed>, String> {
    let cannot = |cause: &dyn fmt::Display| format!("CRL `{}`: {cause}", path.display());
    let size = std::fs::metadata(path).map_err(|e| cannot(&e))?.len();
    if size > LARGEST {
        return Err(cannot(&"it is larger than 256 MiB"));
    }
    let content = std::fs::read(path).map_err(|e| cannot(&e))?;
    let signers: Vec<_> = CertificateDer::pem_slice_iter(&content)
        .filter_map(Result::ok)
        .collect();
    let mut found = Vec::new();
    for der in sections(&content).map_err(|e| cannot(&e))? {
        let (_, crl) = CertificateRevocationList::from_der(&der).map_err(|e| cannot(&e))?;
        let signer = signers.iter().find(|signer| signed(&crl, signer));
        let signer = signer.ok_or_else(|| {
            cannot(&format_args!(
                "no certificate in it signed the CRL of `{}`",
                crl.issuer()
            ))
        })?;
        let serials = crl.iter_revoked_certificates();
        let serials = serials.map(|entry| entry.raw_serial().to_vec()).collect();
        found.push((Fingerprint::of_der(signer), serials));
    }
    if found.is_empty() {
        return Err(cannot(&"it holds no CRL"));
    }
    Ok(found)
}

fn signed(crl: &CertificateRevocationList<'_>, signer: &[u8]) -> bool {
    X509Certificate::from_der(signer).is_ok_and(|(_, signer)| {
        crl.issuer().as_raw() == signer.subject().as_raw()
            && crl.verify_signature(signer.public_key()).is_ok()
    })
}

fn sections(content: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    // A DER sequence starts with 0x30, which PEM text could only by starting with `0`.
    if content.first() == Some(&0x30) {
        return Ok(vec![content.to_vec()]);
    }
    CertificateRevocationListDer::pem_slice_iter(content)
        .map(|section| {
            section
                .map(|der| der.as_ref().to_vec())
                .map_err(|e| e.to_string())
        })
        .collect()
}

impl fmt::Debug for Crls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Crls({})", self.entries.len())
    }
}
