//! A private key in a token, as those see it who have something signed. It is a handle: copies of it
//! use the same session.

use std::fmt;
#[cfg(feature = "cryptoki")]
use std::sync::Arc;

#[cfg(feature = "cryptoki")]
use super::link::Link;
use super::refusal::TokenError;
use super::uri::KeyUri;
use crate::cert::kind::KeyKind;
use crate::secret::Secret;

/// What a key in a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKeyKind {
    /// ECDSA or Ed25519.
    Curve(KeyKind),
    /// RSA, 2048 bits or more.
    Rsa,
}

/// How something is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Scheme {
    EcdsaSha256,
    EcdsaSha384,
    Ed25519,
    PssSha256,
    PssSha384,
    PssSha512,
    Pkcs1Sha256,
    Pkcs1Sha384,
    Pkcs1Sha512,
}

/// A private key that stays where it is.
#[derive(Clone)]
pub struct TokenKey {
    #[cfg(feature = "cryptoki")]
    link: Arc<Link>,
    kind: TokenKeyKind,
    /// The point, or the DER of RSA's modulus and exponent.
    public: Vec<u8>,
    uri: KeyUri,
}

impl TokenKey {
    /// Opens the key that the URI names. `pin`: what was given for it, unless the URI says where the
    /// PIN is; without one only a token that needs none opens.
    ///
    /// # Errors
    /// As [`TokenError`] says; within seconds, whatever the token does.
    pub fn open(uri: &KeyUri, pin: Option<&Secret>) -> Result<Self, TokenError> {
        Self::find(uri, pin, None)
    }

    /// As [`Self::open`]; a key that is not there is made, in the token, so that it cannot be taken
    /// out.
    ///
    /// # Errors
    /// As [`Self::open`]; or the token makes no such key.
    pub fn open_or_make(
        uri: &KeyUri,
        pin: Option<&Secret>,
        kind: KeyKind,
    ) -> Result<Self, TokenError> {
        Self::find(uri, pin, Some(kind))
    }

    #[cfg(not(feature = "cryptoki"))]
    fn find(_: &KeyUri, _: Option<&Secret>, _: Option<KeyKind>) -> Result<Self, TokenError> {
        Err(TokenError::NotBuilt)
    }

    #[cfg(feature = "cryptoki")]
    fn find(uri: &KeyUri, pin: Option<&Secret>, make: Option<KeyKind>) -> Result<Self, TokenError> {
        let pin = match uri.pin()? {
            Some(pin) => Some(pin),
            None => pin.cloned(),
        };
        let name = uri.clone();
        let open = move || super::slot::Slot::open(name, pin, make);
        let (link, (kind, public)) = Link::start(uri.token_name(), open)?;
        let key = Self {
            link: Arc::new(link),
            kind,
            public,
            uri: uri.clone(),
        };
        key.prove()?;
        Ok(key)
    }

    /// That the public key beside it is its own: certificates would be made for another one.
    #[cfg(feature = "cryptoki")]
    fn prove(&self) -> Result<(), TokenError> {
        use ring::signature::{
            ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256,
            UnparsedPublicKey, VerificationAlgorithm,
        };
        const MESSAGE: &[u8] = b"countersign: is this the key's own public key?";
        let algorithm: &dyn VerificationAlgorithm = match self.kind {
            TokenKeyKind::Curve(KeyKind::P256) => &ECDSA_P256_SHA256_ASN1,
            TokenKeyKind::Curve(KeyKind::P384) => &ECDSA_P384_SHA384_ASN1,
            TokenKeyKind::Curve(KeyKind::Ed25519) => &ED25519,
            TokenKeyKind::Rsa => &RSA_PKCS1_2048_8192_SHA256,
        };
        let signature = self.sign(self.scheme(), MESSAGE)?;
        UnparsedPublicKey::new(algorithm, &self.public)
            .verify(MESSAGE, &signature)
            .map_err(|_| TokenError::Strangers {
                token: self.uri.token_name(),
                key: self.uri.key_name(),
            })
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> TokenKeyKind {
        self.kind
    }

    /// Where it is.
    #[must_use]
    pub fn uri(&self) -> &KeyUri {
        &self.uri
    }

    /// The public key as DER `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn public_key(&self) -> Vec<u8> {
        rcgen::PublicKeyData::subject_public_key_info(self)
    }

    /// How certificates and requests are signed with it.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        match self.kind {
            TokenKeyKind::Curve(KeyKind::P256) => Scheme::EcdsaSha256,
            TokenKeyKind::Curve(KeyKind::P384) => Scheme::EcdsaSha384,
            TokenKeyKind::Curve(KeyKind::Ed25519) => Scheme::Ed25519,
            TokenKeyKind::Rsa => Scheme::Pkcs1Sha256,
        }
    }

    /// Has the token sign; ECDSA comes as DER. Waits for seconds at most, and only as many callers
    /// at once as the queue has room for.
    ///
    /// # Errors
    /// The token refuses, is gone, or does not answer.
    #[cfg(feature = "cryptoki")]
    pub fn sign(&self, scheme: Scheme, message: &[u8]) -> Result<Vec<u8>, TokenError> {
        self.link.sign(scheme, message)
    }

    /// This build has no token.
    ///
    /// # Errors
    /// Always.
    #[cfg(not(feature = "cryptoki"))]
    pub fn sign(&self, _: Scheme, _: &[u8]) -> Result<Vec<u8>, TokenError> {
        Err(TokenError::NotBuilt)
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenKey({}, {:?})", self.uri, self.kind)
    }
}

impl rcgen::PublicKeyData for TokenKey {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        match self.kind {
            TokenKeyKind::Curve(kind) => kind.algorithm(),
            TokenKeyKind::Rsa => &rcgen::PKCS_RSA_SHA256,
        }
    }
}

impl rcgen::SigningKey for TokenKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        // The encoder's error holds no text: the reason goes to the log.
        TokenKey::sign(self, self.scheme(), message).map_err(|error| {
            tracing::error!(%error, "nothing was signed");
            rcgen::Error::RemoteKeyError
        })
    }
}
