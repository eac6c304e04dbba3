//! A signing key: made here, opened from PKCS#8, or in a token. Keeps no copy of the PKCS#8 bytes.

use std::fmt;
use std::str::FromStr;

use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair,
};
use zeroize::Zeroizing;

use crate::cert::{Curve, PrivateKey, TokenKey, TokenKeyKind};
use crate::secret::Secret;

/// The kinds of key that this CA makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA on P-256 with SHA-256: the default, understood by everything.
    #[default]
    P256,
    /// ECDSA on P-384 with SHA-384.
    P384,
    /// Ed25519.
    Ed25519,
}

/// Why there is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignerError {
    /// Not a word that names a kind.
    #[error("`{0}` is not a kind of key: p256, p384 or ed25519")]
    Kind(String),
    /// The random source failed.
    #[error("the operating system gives no random numbers")]
    Random,
    /// PKCS#8 of some other algorithm, or damaged.
    #[error("the key is neither ECDSA on P-256 or P-384 nor Ed25519")]
    Unsupported,
    /// Tokens make other kinds here.
    #[error("a key in a token is p256 or p384, not {0}")]
    NotInToken(KeyKind),
}

impl KeyKind {
    /// The word that the command line and the profiles use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::P256 => "p256",
            Self::P384 => "p384",
            Self::Ed25519 => "ed25519",
        }
    }
}

impl FromStr for KeyKind {
    type Err = SignerError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::P256, Self::P384, Self::Ed25519]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| SignerError::Kind(text.to_owned()))
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

enum Inner {
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
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
        let key = PrivateKey(match kind {
            KeyKind::P256 => ecdsa_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING)?,
            KeyKind::P384 => ecdsa_pkcs8(&ECDSA_P384_SHA384_ASN1_SIGNING)?,
            KeyKind::Ed25519 => ed25519_pkcs8()?,
        });
        Ok((Self::from_pkcs8(&key)?, key))
    }

    /// Opens a key from PKCS#8 DER.
    ///
    /// # Errors
    /// Another algorithm, or damaged.
    pub fn from_pkcs8(key: &PrivateKey) -> Result<Self, SignerError> {
        let der = key.0.expose();
        let random = SystemRandom::new();
        let ecdsa = |algorithm| EcdsaKeyPair::from_pkcs8(algorithm, der, &random);
        if let Ok(pair) = ecdsa(&ECDSA_P256_SHA256_ASN1_SIGNING) {
            return Ok(Self {
                inner: Inner::Ecdsa(pair),
                kind: KeyKind::P256,
            });
        }
        if let Ok(pair) = ecdsa(&ECDSA_P384_SHA384_ASN1_SIGNING) {
            return Ok(Self {
                inner: Inner::Ecdsa(pair),
                kind: KeyKind::P384,
            });
        }
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der)
            .map_err(|_| SignerError::Unsupported)?;
        Ok(Self {
            inner: Inner::Ed25519(pair),
            kind: KeyKind::Ed25519,
        })
    }

    /// Uses a key that stays in its token.
    ///
    /// # Errors
    /// It is RSA.
    pub fn from_token(key: TokenKey) -> Result<Self, SignerError> {
        let kind = match key.kind() {
            TokenKeyKind::Ec(Curve::P256) => KeyKind::P256,
            TokenKeyKind::Ec(Curve::P384) => KeyKind::P384,
            TokenKeyKind::Rsa => return Err(SignerError::Unsupported),
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
            Inner::Ecdsa(pair) => pair.public_key().as_ref(),
            Inner::Ed25519(pair) => pair.public_key().as_ref(),
            Inner::Token(key) => key.der_bytes(),
        }
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        match self.kind {
            KeyKind::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            KeyKind::P384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            KeyKind::Ed25519 => &rcgen::PKCS_ED25519,
        }
    }
}

impl rcgen::SigningKey for Signer {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        match &self.inner {
            Inner::Ecdsa(pair) => pair
                .sign(&SystemRandom::new(), message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| rcgen::Error::RingUnspecified),
            Inner::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Inner::Token(key) => rcgen::SigningKey::sign(key, message),
        }
    }
}

fn ecdsa_pkcs8(algorithm: &'static EcdsaSigningAlgorithm) -> Result<Secret, SignerError> {
    let document = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new())
        .map_err(|_| SignerError::Random)?;
    Ok(Secret::new(document.as_ref().to_vec()))
}

/// RFC 8410 `PrivateKeyInfo`, version 0: ring writes version 1 with the public key in it, which
/// OpenSSL 3.0 does not open.
fn ed25519_pkcs8() -> Result<Secret, SignerError> {
    const HEAD: [u8; 16] = [
        0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04,
        0x20,
    ];
    let mut seed = Zeroizing::new([0; 32]);
    SystemRandom::new()
        .fill(seed.as_mut_slice())
        .map_err(|_| SignerError::Random)?;
    let mut der = Vec::with_capacity(HEAD.len() + seed.len());
    der.extend_from_slice(&HEAD);
    der.extend_from_slice(seed.as_slice());
    Ok(Secret::new(der))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_back_from_its_pkcs8_as_the_same_kind() {
        for kind in [KeyKind::P256, KeyKind::P384, KeyKind::Ed25519] {
            let (signer, pkcs8) = Signer::generate(kind).unwrap();
            let opened = Signer::from_pkcs8(&pkcs8).unwrap();
            assert_eq!(
                (opened.kind(), opened.public_key()),
                (kind, signer.public_key())
            );
            assert_eq!(kind.as_str().parse(), Ok(kind));
            assert_eq!(format!("{opened:?}"), format!("Signer({kind})"));
        }
        let damaged = PrivateKey(Secret::new(b"0\x03junk".to_vec()));
        assert_eq!(
            Signer::from_pkcs8(&damaged).unwrap_err(),
            SignerError::Unsupported
        );
        assert!("rsa".parse::<KeyKind>().is_err());
    }
}
