//! The private key of a handshake in a token: rustls hands over what is to be signed, and the wait
//! for the token has an end.

use std::sync::Arc;

use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::sign::{Signer, SigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};

use crate::cert::{KeyKind, Scheme, TokenKey, TokenKeyKind};

/// How each is called in a handshake, the preferred first.
const P256: &[(SignatureScheme, Scheme)] =
    &[(SignatureScheme::ECDSA_NISTP256_SHA256, Scheme::EcdsaSha256)];
const P384: &[(SignatureScheme, Scheme)] =
    &[(SignatureScheme::ECDSA_NISTP384_SHA384, Scheme::EcdsaSha384)];
const ED25519: &[(SignatureScheme, Scheme)] = &[(SignatureScheme::ED25519, Scheme::Ed25519)];
const RSA: &[(SignatureScheme, Scheme)] = &[
    (SignatureScheme::RSA_PSS_SHA256, Scheme::PssSha256),
    (SignatureScheme::RSA_PSS_SHA384, Scheme::PssSha384),
    (SignatureScheme::RSA_PSS_SHA512, Scheme::PssSha512),
    (SignatureScheme::RSA_PKCS1_SHA256, Scheme::Pkcs1Sha256),
    (SignatureScheme::RSA_PKCS1_SHA384, Scheme::Pkcs1Sha384),
    (SignatureScheme::RSA_PKCS1_SHA512, Scheme::Pkcs1Sha512),
];

/// A key as rustls takes it.
pub(super) fn signing_key(key: TokenKey) -> Arc<dyn SigningKey> {
    let public = key.public_key().into();
    Arc::new(Held { key, public })
}

#[derive(Debug)]
struct Held {
    key: TokenKey,
    public: SubjectPublicKeyInfoDer<'static>,
}

impl SigningKey for Held {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let known = match self.key.kind() {
            TokenKeyKind::Curve(KeyKind::P256) => P256,
            TokenKeyKind::Curve(KeyKind::P384) => P384,
            TokenKeyKind::Curve(KeyKind::Ed25519) => ED25519,
            TokenKeyKind::Rsa => RSA,
        };
        let (named, scheme) = known.iter().find(|(named, _)| offered.contains(named))?;
        Some(Box::new(Chosen {
            key: self.key.clone(),
            named: *named,
            scheme: *scheme,
        }))
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(self.public.clone())
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        match self.key.kind() {
            TokenKeyKind::Curve(KeyKind::P256 | KeyKind::P384) => SignatureAlgorithm::ECDSA,
            TokenKeyKind::Curve(KeyKind::Ed25519) => SignatureAlgorithm::ED25519,
            TokenKeyKind::Rsa => SignatureAlgorithm::RSA,
        }
    }
}

#[derive(Debug)]
struct Chosen {
    key: TokenKey,
    named: SignatureScheme,
    scheme: Scheme,
}

impl Signer for Chosen {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        self.key.sign(self.scheme, message).map_err(|error| {
            tracing::error!(%error, "a handshake was not signed");
            rustls::Error::General(error.to_string())
        })
    }

    fn scheme(&self) -> SignatureScheme {
        self.named
    }
}
