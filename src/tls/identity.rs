//! Our own certificate chain and key, from PEM files with checked modes; the key may also stay in a
//! token. Both sides use it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SigningKey};

use super::provider::signing_key;
use super::token;
use crate::cert::{self, DEFAULT_PERMISSION_OID, Parsed, TokenKey};
use crate::clock::UnixTime;
use crate::identity::Fingerprint;
use crate::secret::Secret;

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The certificates cannot be read.
    #[error(transparent)]
    Chain(#[from] cert::FileError),
    /// The key cannot be read.
    #[error(transparent)]
    Key(#[from] cert::KeyError),
    /// Read, and unusable.
    #[error("`{path}`: {cause}")]
    File {
        /// The file.
        path: String,
        /// What is wrong with it.
        cause: String,
    },
}

/// Chain and key, leaf first. Cheap to clone; `Debug` shows nothing of the key.
#[derive(Clone)]
pub struct Identity {
    certified: Arc<CertifiedKey>,
    fingerprint: Fingerprint,
    name: Arc<str>,
    not_before: UnixTime,
    not_after: UnixTime,
    in_token: bool,
}

impl Identity {
    /// `cert`: PEM chain, leaf first; `key`: PKCS#8 PEM, plain or encrypted (then `passphrase` is
    /// needed), or a PKCS#11 URI or a file with one (then `passphrase` is the PIN, unless the URI
    /// says where that is).
    ///
    /// # Errors
    /// Unreadable, a key that others can read, a key that does not fit the certificate, a token
    /// that is not there or does not answer.
    pub fn load(
        cert: &Path,
        key: &Path,
        passphrase: Option<&Secret>,
    ) -> Result<Self, IdentityError> {
        match Self::load_once(cert, key, passphrase) {
            // A renewal may have come between the two files; it takes no second one.
            Err(IdentityError::File { .. }) => Self::load_once(cert, key, passphrase),
            loaded => loaded,
        }
    }

    fn load_once(
        cert: &Path,
        key: &Path,
        passphrase: Option<&Secret>,
    ) -> Result<Self, IdentityError> {
        let chain = cert::load_chain(cert)?;
        if let Some(uri) = cert::uri_of(key)? {
            let held = TokenKey::open(&uri, passphrase).map_err(cert::KeyError::from)?;
            let mut identity = Self::with(cert, chain, key, [Ok(token::signing_key(held))])?;
            identity.in_token = true;
            return Ok(identity);
        }
        let keys = cert::load_keys(key, passphrase)?;
        let keys = keys.iter().map(|private| signer(key, private));
        Self::with(cert, chain, key, keys)
    }

    /// From what is in memory already: nothing of the key is written anywhere to try it.
    ///
    /// # Errors
    /// The key does not fit the certificate.
    pub fn of(
        cert: &Path,
        chain: &[Vec<u8>],
        key: &Path,
        private: &cert::PrivateKey,
    ) -> Result<Self, IdentityError> {
        Self::with(cert, chain.to_vec(), key, [signer(key, private)])
    }

    /// The first of the keys that fits the chain.
    fn with(
        cert: &Path,
        chain: Vec<Vec<u8>>,
        key: &Path,
        keys: impl IntoIterator<Item = Result<Arc<dyn SigningKey>, IdentityError>>,
    ) -> Result<Self, IdentityError> {
        let leaf = chain.first().map(Vec::as_slice).unwrap_or_default();
        let leaf = Parsed::from_der(leaf, DEFAULT_PERMISSION_OID)
            .map_err(|cause| file_error(cert, &cause))?;
        let chain: Vec<_> = chain.into_iter().map(CertificateDer::from).collect();
        let mut fitting = None;
        for signing in keys {
            let certified = CertifiedKey::new(chain.clone(), signing?);
            if certified.keys_match().is_ok() {
                fitting = Some(certified);
                break;
            }
        }
        let certified = fitting.ok_or_else(|| {
            file_error(key, &format!("it is not the key of `{}`", cert.display()))
        })?;
        Ok(Self {
            certified: Arc::new(certified),
            fingerprint: leaf.fingerprint,
            name: leaf.display_name().into(),
            not_before: leaf.not_before,
            not_after: leaf.not_after,
            in_token: false,
        })
    }

    /// The leaf's fingerprint.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// What people call the leaf: its SPIFFE ID, else its CN.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The leaf's first second.
    #[must_use]
    pub fn not_before(&self) -> UnixTime {
        self.not_before
    }

    /// The leaf's last second.
    #[must_use]
    pub fn not_after(&self) -> UnixTime {
        self.not_after
    }

    /// Whether the key is in a token, whose signatures have to be waited for.
    pub(super) fn in_token(&self) -> bool {
        self.in_token
    }

    /// The chain and the key as rustls takes them.
    pub(super) fn certified(&self) -> Arc<CertifiedKey> {
        self.certified.clone()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("name", &self.name)
            .field("fingerprint", &self.fingerprint)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

fn signer(path: &Path, key: &cert::PrivateKey) -> Result<Arc<dyn SigningKey>, IdentityError> {
    let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.0.expose()));
    signing_key(&der).map_err(|cause| file_error(path, &cause))
}

fn file_error(path: &Path, cause: &dyn fmt::Display) -> IdentityError {
    IdentityError::File {
        path: path.display().to_string(),
        cause: cause.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cert::{KeyKind, MemoryKey, pem, write_atomic};
    use crate::secret::on_wiped_stack;
    use crate::secret::residue::{Sought, rsa_pkcs8};
    use rustls::SignatureScheme;

    fn self_signed(key: &impl rcgen::SigningKey) -> String {
        let made = rcgen::CertificateParams::new(vec!["a".into()]).unwrap();
        made.self_signed(key).unwrap().pem()
    }

    #[test]
    fn nothing_of_a_key_is_left_when_an_identity_goes() {
        for kind in [KeyKind::P256, KeyKind::P384, KeyKind::Ed25519] {
            leaves_nothing(on_wiped_stack(|| {
                let key = MemoryKey::generate(kind).unwrap();
                with_forms(self_signed(&key), key.private().clone())
            }));
        }
        leaves_nothing(on_wiped_stack(|| {
            let private = rsa_pkcs8();
            let pair = rcgen::KeyPair::try_from(private.as_slice()).unwrap();
            with_forms(self_signed(&pair), cert::PrivateKey(Secret::new(private)))
        }));
    }

    type Made = (String, cert::PrivateKey, Vec<Sought>);

    fn with_forms(chain: String, key: cert::PrivateKey) -> Made {
        let forms = Sought::forms_of(key.0.expose());
        (chain, key, forms)
    }

    fn leaves_nothing((chain, private, sought): Made) {
        let folder = tempfile::tempdir().unwrap();
        let (cert, path) = (folder.path().join("a.crt"), folder.path().join("a.key"));
        write_atomic(&cert, chain.as_bytes(), 0o644).unwrap();
        let block = pem::block("PRIVATE KEY", private.0.expose());
        write_atomic(&path, block.as_bytes(), 0o600).unwrap();
        drop((private, block));
        let copies = || sought.iter().map(Sought::copies).sum::<usize>();
        assert_eq!(copies(), 0, "none is left of making it");
        let identity = Identity::load(&cert, &path, None).unwrap();
        let signer = identity.certified().key.clone();
        let all = [
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::ECDSA_NISTP384_SHA384,
            SignatureScheme::ED25519,
            SignatureScheme::RSA_PSS_SHA256,
        ];
        for _ in 0..3 {
            signer
                .choose_scheme(&all)
                .unwrap()
                .sign(b"message")
                .unwrap();
        }
        assert!(copies() > 0, "it is in use");
        drop((identity, signer));
        assert_eq!(copies(), 0);
    }
}
