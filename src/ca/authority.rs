//! A CA that is ready to sign: its key, its certificate, and what stands above it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use x509_parser::prelude::{FromDer, X509Certificate};

use crate::cert::{
    FileError, KeyError, ParseError, Parsed, PassphraseError, TokenKey, load_chain, load_key,
    uri_of,
};
use crate::clock::UnixTime;
use crate::grant::WrittenGrants;
use crate::identity::Fingerprint;
use crate::secret::Secret;

use super::files::{CaFiles, SettleError};
use super::signer::{Signer, SignerError};

/// How often a folder is looked at for another CA.
const LOOK: Duration = Duration::from_secs(2);

/// Finds the passphrase of the key at a path; called only when the key is encrypted.
pub type Unlock<'a> = &'a dyn Fn(&Path) -> Result<Secret, PassphraseError>;

/// Why a CA cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A certificate file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The key file.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The key's algorithm.
    #[error("`{path}`: {error}")]
    Signer {
        /// The key file.
        path: PathBuf,
        /// What is wrong with it.
        error: SignerError,
    },
    /// No passphrase.
    #[error(transparent)]
    Passphrase(#[from] PassphraseError),
    /// A rotation that was interrupted cannot be finished.
    #[error(transparent)]
    Settle(#[from] SettleError),
    /// Not a certificate.
    #[error("`{path}`: {error}")]
    Parse {
        /// The certificate file.
        path: PathBuf,
        /// What is wrong with it.
        error: ParseError,
    },
    /// A certificate that may not sign.
    #[error("`{path}` is not the certificate of a CA")]
    NotAuthority {
        /// The certificate file.
        path: PathBuf,
    },
    /// Key and certificate are not a pair.
    #[error("the key `{key}` does not belong to the certificate `{certificate}`")]
    Mismatch {
        /// The key file.
        key: PathBuf,
        /// The certificate file.
        certificate: PathBuf,
    },
    /// A certificate is not signed by the one above it.
    #[error("the certificate `{certificate}` is not signed by `{issuer}`")]
    Chain {
        /// The certificate file.
        certificate: PathBuf,
        /// The file that should hold its issuer.
        issuer: PathBuf,
    },
    /// No `spiffe://<trust domain>` in it.
    #[error("the CA certificate `{path}` names no trust domain (a URI `spiffe://<trust domain>`)")]
    TrustDomain {
        /// The certificate file.
        path: PathBuf,
    },
}

/// What a CA certificate of the path allows at most.
#[derive(Clone, Debug)]
pub(super) struct Ceiling {
    pub holder: String,
    pub grants: WrittenGrants,
}

/// A CA certificate with its key opened.
#[derive(Debug)]
pub struct Authority {
    pub(super) signer: Signer,
    /// From the signing certificate upwards, without the root.
    pub(super) chain: Vec<Vec<u8>>,
    pub(super) root: Vec<u8>,
    /// All that are trusted at the top, `root` first.
    pub(super) roots: Vec<Vec<u8>>,
    /// The root as the one before it signed it: for whoever does not trust the new one yet.
    pub(super) cross: Option<Vec<u8>>,
    pub(super) parsed: Parsed,
    pub(super) trust_domain: String,
    /// Of every certificate of the path that has one.
    pub(super) ceilings: Vec<Ceiling>,
    /// The earliest end of the path.
    pub(super) not_after: UnixTime,
}

impl Authority {
    /// The issuing CA of a folder.
    ///
    /// # Errors
    /// Files, passphrase, or parts that do not fit together.
    pub fn issuing(files: &CaFiles, unlock: Unlock<'_>, oid: &str) -> Result<Self, AuthorityError> {
        files.settle()?;
        let (certificate, key) = (files.issuing_certificate(), files.issuing_key());
        Self::open(&certificate, &key, &files.root_certificate(), unlock, oid)
    }

    /// The root of a folder.
    ///
    /// # Errors
    /// As [`Self::issuing`].
    pub fn root(files: &CaFiles, unlock: Unlock<'_>, oid: &str) -> Result<Self, AuthorityError> {
        files.settle()?;
        let root = files.root_certificate();
        Self::open(&root, &files.root_key(), &root, unlock, oid)
    }

    /// A CA from its chain (its own certificate first), its key, and the root above it. Every link
    /// of the chain is checked before the key is opened.
    ///
    /// # Errors
    /// As [`Self::issuing`].
    pub fn open(
        certificate: &Path,
        key: &Path,
        root: &Path,
        unlock: Unlock<'_>,
        oid: &str,
    ) -> Result<Self, AuthorityError> {
        let above = Above::load(certificate, root, oid)?;
        let signer = open_key(key, unlock)?;
        if signer.public_key() != above.public_key {
            let (key, certificate) = (key.to_owned(), certificate.to_owned());
            return Err(AuthorityError::Mismatch { key, certificate });
        }
        Ok(Self::of(above, signer))
    }

    /// From a key that is known to belong to the certificate.
    pub(super) fn of(above: Above, signer: Signer) -> Self {
        Self {
            signer,
            chain: above.chain,
            root: above.root,
            roots: above.roots,
            cross: above.cross,
            parsed: above.parsed,
            trust_domain: above.trust_domain,
            ceilings: above.ceilings,
            not_after: above.not_after,
        }
    }

    /// Whether it is a delegate: it signs leaves only, within a ceiling of its own, and is pinned
    /// in the place of what it signs.
    #[must_use]
    pub fn is_delegate(&self) -> bool {
        self.parsed.path_len == Some(0) && self.parsed.permissions.is_some()
    }

    /// The trust domain whose names it gives out.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// What its own certificate says.
    #[must_use]
    pub const fn certificate(&self) -> &Parsed {
        &self.parsed
    }

    /// Its own certificate, DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        self.chain.first().unwrap_or(&self.root)
    }

    /// The root's certificate, DER.
    #[must_use]
    pub fn root_der(&self) -> &[u8] {
        &self.root
    }

    /// Whether another CA has taken this one's place in its folder, or what is trusted above it is another.
    #[must_use]
    pub fn is_replaced(&self, files: &CaFiles) -> bool {
        let other = |chain: Vec<Vec<u8>>| chain.first().is_none_or(|der| der != self.der());
        load_chain(&files.issuing_certificate()).is_ok_and(other)
            || load_chain(&files.root_certificate()).is_ok_and(|roots| roots != self.roots)
    }

    /// Ready when another CA [has taken this one's place](Self::is_replaced), a moment after it has.
    pub async fn replaced(&self, files: &CaFiles) {
        loop {
            tokio::time::sleep(LOOK).await;
            if self.is_replaced(files) {
                return;
            }
        }
    }

    /// What the holder of a certificate of this CA presents above it.
    pub(super) fn presented(&self) -> Vec<Vec<u8>> {
        self.chain.iter().chain(&self.cross).cloned().collect()
    }

    /// For messages.
    pub(super) fn common_name(&self) -> String {
        self.parsed
            .common_names
            .first()
            .cloned()
            .unwrap_or_default()
    }

    /// The fingerprint of its own certificate.
    #[must_use]
    pub const fn fingerprint(&self) -> Fingerprint {
        self.parsed.fingerprint
    }

    /// As the encoder wants it.
    pub(super) fn issuer(&self) -> Result<rcgen::Issuer<'static, &Signer>, rcgen::Error> {
        rcgen::Issuer::from_ca_cert_der(&self.der().into(), &self.signer)
    }
}

/// Everything about a CA that can be known without its key.
pub(super) struct Above {
    pub chain: Vec<Vec<u8>>,
    pub root: Vec<u8>,
    pub roots: Vec<Vec<u8>>,
    pub cross: Option<Vec<u8>>,
    pub parsed: Parsed,
    pub public_key: Vec<u8>,
    pub trust_domain: String,
    ceilings: Vec<Ceiling>,
    not_after: UnixTime,
}

impl Above {
    /// Reads a CA's chain and its root and checks that each is signed by the next.
    pub fn load(certificate: &Path, root: &Path, oid: &str) -> Result<Self, AuthorityError> {
        // A root's file may hold the roots before it too; they are no part of its path.
        let mut chain = if certificate == root {
            Vec::new()
        } else {
            load_chain(certificate)?
        };
        let roots = load_chain(root)?;
        // `load_chain` gives at least one.
        let root_der = roots[0].clone();
        let cross = cross_certificate(&root.with_file_name("cross.crt"), &root_der);
        // A chain that was handed out may end in the root, as it is or as the one before it signed it.
        chain.retain(|der| *der != root_der && !is_cross(der, &root_der));
        let path: Vec<&[u8]> = chain.iter().chain([&root_der]).map(Vec::as_slice).collect();
        let wrong = |error| AuthorityError::Parse {
            path: certificate.to_owned(),
            error,
        };
        let mut ceilings = Vec::new();
        let mut not_after = UnixTime::MAX;
        for (at, der) in path.iter().enumerate() {
            let parsed = Parsed::from_der(der, oid).map_err(wrong)?;
            if !parsed.is_ca {
                return Err(AuthorityError::NotAuthority {
                    path: certificate.to_owned(),
                });
            }
            if !is_signed_by(der, path.get(at + 1).unwrap_or(der)) {
                let (certificate, issuer) = (certificate.to_owned(), root.to_owned());
                return Err(AuthorityError::Chain {
                    certificate,
                    issuer,
                });
            }
            not_after = not_after.min(parsed.not_after);
            if let Some(grants) = &parsed.permissions {
                let holder = parsed
                    .common_names
                    .first()
                    .unwrap_or(&parsed.subject)
                    .clone();
                ceilings.push(Ceiling {
                    holder,
                    grants: grants.clone(),
                });
            }
        }
        let parsed = Parsed::from_der(path[0], oid).map_err(wrong)?;
        let domain = parsed
            .uris
            .iter()
            .find_map(|uri| uri.strip_prefix("spiffe://"));
        let domain = domain.map(|rest| rest.trim_end_matches('/').to_owned());
        let trust_domain = domain
            .filter(|domain| crate::identity::SpiffeId::check_trust_domain(domain).is_ok())
            .ok_or_else(|| AuthorityError::TrustDomain {
                path: certificate.to_owned(),
            })?;
        let public_key = public_key(path[0]).unwrap_or_default();
        Ok(Self {
            parsed,
            public_key,
            trust_domain,
            ceilings,
            not_after,
            chain,
            root: root_der,
            roots,
            cross,
        })
    }

    /// The signing certificate, DER.
    pub fn der(&self) -> &[u8] {
        self.chain.first().unwrap_or(&self.root)
    }
}

/// The cross-certificate of this root, where there is one; of another root it is none of ours.
fn cross_certificate(path: &Path, root: &[u8]) -> Option<Vec<u8>> {
    let cross = load_chain(path).ok()?.swap_remove(0);
    is_cross(&cross, root).then_some(cross)
}

/// Whether it is this root's name and key, signed by somebody else or by itself.
fn is_cross(der: &[u8], root: &[u8]) -> bool {
    public_key(der) == public_key(root) && is_signed_by(root, der)
}

/// Whether `issuer`'s key made the signature of `der`, and the names agree.
pub(super) fn is_signed_by(der: &[u8], issuer: &[u8]) -> bool {
    let (Ok((_, subject)), Ok((_, issuer))) = (
        X509Certificate::from_der(der),
        X509Certificate::from_der(issuer),
    ) else {
        return false;
    };
    subject.issuer().as_raw() == issuer.subject().as_raw()
        && subject.verify_signature(Some(issuer.public_key())).is_ok()
}

/// The public key as DER `SubjectPublicKeyInfo`.
pub(super) fn public_key(der: &[u8]) -> Option<Vec<u8>> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some(certificate.public_key().raw.to_vec())
}

fn open_key(path: &Path, unlock: Unlock<'_>) -> Result<Signer, AuthorityError> {
    let wrong = |error| AuthorityError::Signer {
        path: path.to_owned(),
        error,
    };
    if let Some(uri) = uri_of(path)? {
        // The PIN comes from where a passphrase comes from, unless the URI says where it is.
        let pin = if uri.has_pin() {
            None
        } else {
            Some(unlock(path)?)
        };
        let key = TokenKey::open(&uri, pin.as_ref()).map_err(KeyError::from)?;
        return Signer::from_token(key).map_err(wrong);
    }
    let key = match load_key(path, None) {
        Err(KeyError::PassphraseNeeded { .. }) => load_key(path, Some(&unlock(path)?))?,
        other => other?,
    };
    Signer::from_pkcs8(&key).map_err(wrong)
}
