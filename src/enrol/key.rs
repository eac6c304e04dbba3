//! A key and the request for it (PKCS#10). The key is made here and goes into a file and nowhere
//! else, or it stays in its token.

use rcgen::{
    CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, SanType, SigningKey,
};
use rustls::pki_types::PrivatePkcs8KeyDer;

use super::error::EnrolError;
use crate::cert::{PrivateKey, TokenKey};
use crate::secret::Secret;
use zeroize::Zeroizing;

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
        let old = like.and_then(|key| open(key).ok());
        let algorithm = match old {
            Some(old) if old.is_compatible(&PKCS_ECDSA_P384_SHA384) => &PKCS_ECDSA_P384_SHA384,
            _ => &PKCS_ECDSA_P256_SHA256,
        };
        let pair = Zeroizing::new(KeyPair::generate_for(algorithm).map_err(|e| wrong(&e))?);
        let key = PrivateKey(Secret::new(pair.serialize_der()));
        Self::of(name, &*pair, Some(key))
    }

    /// With the key that is there.
    pub fn same(name: &str, key: &PrivateKey) -> Result<Self, EnrolError> {
        let pair = open(key)?;
        Self::of(name, &*pair, Some(key.clone()))
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

fn open(key: &PrivateKey) -> Result<Zeroizing<KeyPair>, EnrolError> {
    let der = PrivatePkcs8KeyDer::from(key.0.expose());
    let pair = KeyPair::try_from(&der).map_err(|error| wrong(&error))?;
    Ok(Zeroizing::new(pair))
}

fn wrong(error: &rcgen::Error) -> EnrolError {
    EnrolError::Request(error.to_string())
}
