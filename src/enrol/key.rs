//! A key and the request for it (PKCS#10). The key is made here and goes into a file and nowhere
//! else, or it stays in its token.

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType, SigningKey};
use rustls::pki_types::PrivatePkcs8KeyDer;
use zeroize::Zeroizing;

use super::error::EnrolError;
use crate::cert::{KeyKind, MemoryKey, PrivateKey, TokenKey};
use crate::secret::on_wiped_stack;

/// A key with its request.
pub(super) struct Asking {
    /// PKCS#8; none of a key in a token.
    pub key: Option<PrivateKey>,
    /// DER `SubjectPublicKeyInfo`.
    pub public: Vec<u8>,
    /// DER.
    pub request: Vec<u8>,
}

impl Asking {
    /// With a fresh key; of the kind of `like`, where it is ECDSA, else on P-256.
    pub fn fresh(name: &str, like: Option<&PrivateKey>) -> Result<Self, EnrolError> {
        let old = like.and_then(|key| MemoryKey::open(key.clone()).ok());
        let kind = match old.map(|old| old.kind()) {
            Some(KeyKind::P384) => KeyKind::P384,
            _ => KeyKind::P256,
        };
        let made = MemoryKey::generate(kind).map_err(|error| wrong(&error))?;
        let key = made.private().clone();
        Self::of(name, &made, Some(key))
    }

    /// With the key that is there.
    pub fn same(name: &str, key: &PrivateKey) -> Result<Self, EnrolError> {
        if let Ok(held) = MemoryKey::open(key.clone()) {
            return Self::of(name, &held, Some(key.clone()));
        }
        // RSA: the encoder wipes its PKCS#8; the numbers that `ring` keeps are wiped by the allocator.
        on_wiped_stack(|| {
            let der = PrivatePkcs8KeyDer::from(key.0.expose());
            let pair = Zeroizing::new(KeyPair::try_from(&der).map_err(|error| wrong(&error))?);
            Self::of(name, &*pair, Some(key.clone()))
        })
    }

    /// With a key that stays in its token.
    pub fn of_token(name: &str, key: &TokenKey) -> Result<Self, EnrolError> {
        Self::of(name, key, None)
    }

    fn of(name: &str, pair: &impl SigningKey, key: Option<PrivateKey>) -> Result<Self, EnrolError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let common = name.rsplit('/').next().unwrap_or(name);
        params.distinguished_name.push(DnType::CommonName, common);
        let uri = name.try_into().map_err(|e: rcgen::Error| wrong(&e))?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        let request = params.serialize_request(pair).map_err(|e| wrong(&e))?;
        Ok(Self {
            key,
            public: rcgen::PublicKeyData::subject_public_key_info(pair),
            request: request.der().to_vec(),
        })
    }
}

fn wrong(error: &dyn std::fmt::Display) -> EnrolError {
    EnrolError::Request(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;
    use crate::secret::residue::{Sought, rsa_pkcs8};

    #[test]
    fn nothing_of_an_rsa_key_is_left_of_asking_with_it() {
        let key = PrivateKey(Secret::new(rsa_pkcs8()));
        let sought = Sought::forms_of(key.0.expose()).remove(0);
        let asking = Asking::same("spiffe://example.org/a", &key).unwrap();
        assert_eq!(sought.copies(), 2, "the one that is kept, and its clone");
        drop(key);
        assert_eq!(sought.copies(), 1);
        drop(asking);
        assert_eq!(sought.copies(), 0);
    }
}
