//! A signing key: in memory, or in a token.

use std::fmt;

use crate::cert::{
    KeyKind, KeyKindError, MemoryKey, MemoryKeyError, PrivateKey, TokenKey, TokenKeyKind,
};

/// Why there is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignerError {
    /// Not a word that names a kind.
    #[error(transparent)]
    Kind(#[from] KeyKindError),
    /// It cannot be made or opened.
    #[error(transparent)]
    Key(#[from] MemoryKeyError),
    /// A token can hold other keys than a CA's.
    #[error("a CA does not sign with an RSA key: p256, p384 or ed25519 are taken")]
    Rsa,
}

enum Inner {
    Memory(MemoryKey),
    Token(TokenKey),
}

/// A private key that signs; shows its kind and nothing else.
pub struct Signer {
    inner: Inner,
    kind: KeyKind,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", self.kind)
    }
}

impl Signer {
    /// A fresh key, and its PKCS#8 form for the file.
    ///
    /// # Errors
    /// The random source failed.
    pub fn generate(kind: KeyKind) -> Result<(Self, PrivateKey), SignerError> {
        let key = MemoryKey::generate(kind)?;
        let private = key.private().clone();
        Ok((Self::of(key), private))
    }

    /// Opens a key from PKCS#8 DER.
    ///
    /// # Errors
    /// Another algorithm, or damaged.
    pub fn from_pkcs8(key: &PrivateKey) -> Result<Self, SignerError> {
        Ok(Self::of(MemoryKey::open(key.clone())?))
    }

    fn of(key: MemoryKey) -> Self {
        Self {
            kind: key.kind(),
            inner: Inner::Memory(key),
        }
    }

    /// Uses a key that stays in its token.
    ///
    /// # Errors
    /// It is RSA.
    pub fn from_token(key: TokenKey) -> Result<Self, SignerError> {
        let TokenKeyKind::Curve(kind) = key.kind() else {
            return Err(SignerError::Rsa);
        };
        Ok(Self {
            inner: Inner::Token(key),
            kind,
        })
    }

    /// What kind of key it is.
    #[must_use]
    pub const fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The public key as DER `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn public_key(&self) -> Vec<u8> {
        rcgen::PublicKeyData::subject_public_key_info(self)
    }
}

impl rcgen::PublicKeyData for Signer {
    fn der_bytes(&self) -> &[u8] {
        match &self.inner {
            Inner::Memory(key) => key.der_bytes(),
            Inner::Token(key) => key.der_bytes(),
        }
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        match &self.inner {
            Inner::Memory(key) => key.algorithm(),
            Inner::Token(key) => key.algorithm(),
        }
    }
}

impl rcgen::SigningKey for Signer {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        match &self.inner {
            Inner::Memory(key) => key.sign(message),
            Inner::Token(key) => rcgen::SigningKey::sign(key, message),
        }
    }
}
