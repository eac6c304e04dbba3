//! A private key in memory that signs. It is there once, as PKCS#8 that is wiped when it goes. `ring`
//! does not wipe its own form of a key, so that form is made anew for each signature, on a stretch of
//! stack that is overwritten after it.

use std::fmt;

use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair,
};
use zeroize::Zeroizing;

use super::key::PrivateKey;
use super::kind::KeyKind;
use crate::secret::{Secret, on_wiped_stack};

/// Why there is no key, or no signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MemoryKeyError {
    /// The random source failed.
    #[error("the operating system gives no random numbers")]
    Random,
    /// PKCS#8 of some other algorithm, or damaged.
    #[error("the key is neither ECDSA on P-256 or P-384 nor Ed25519")]
    Unsupported,
}

/// A key in memory; shows its kind and nothing else.
#[derive(Clone)]
pub struct MemoryKey {
    key: PrivateKey,
    kind: KeyKind,
    /// The point.
    public: Vec<u8>,
}

/// As `ring` has it. Lives only within [`on_wiped_stack`].
enum Loaded {
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl MemoryKey {
    /// A fresh key.
    ///
    /// # Errors
    /// The random source failed.
    pub fn generate(kind: KeyKind) -> Result<Self, MemoryKeyError> {
        let key = match kind {
            KeyKind::P256 | KeyKind::P384 => on_wiped_stack(|| ecdsa_pkcs8(kind))?,
            KeyKind::Ed25519 => ed25519_pkcs8()?,
        };
        Self::open(PrivateKey(key))
    }

    /// Opens a key.
    ///
    /// # Errors
    /// Another algorithm, or damaged.
    pub fn open(key: PrivateKey) -> Result<Self, MemoryKeyError> {
        let of = |kind| {
            let public = on_wiped_stack(|| {
                let loaded = Loaded::of(kind, &key)?;
                Some(match &loaded {
                    Loaded::Ecdsa(pair) => pair.public_key().as_ref().to_vec(),
                    Loaded::Ed25519(pair) => pair.public_key().as_ref().to_vec(),
                })
            });
            public.map(|public| (kind, public))
        };
        let found = [KeyKind::P256, KeyKind::P384, KeyKind::Ed25519]
            .into_iter()
            .find_map(of);
        let (kind, public) = found.ok_or(MemoryKeyError::Unsupported)?;
        Ok(Self { key, kind, public })
    }

    /// What kind of key it is.
    #[must_use]
    pub const fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The key itself, for its file.
    #[must_use]
    pub const fn private(&self) -> &PrivateKey {
        &self.key
    }

    /// The public key as DER `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn public_key(&self) -> Vec<u8> {
        rcgen::PublicKeyData::subject_public_key_info(self)
    }
}

impl Loaded {
    fn of(kind: KeyKind, key: &PrivateKey) -> Option<Self> {
        let der = key.0.expose();
        let ecdsa = |algorithm| EcdsaKeyPair::from_pkcs8(algorithm, der, &SystemRandom::new());
        match kind {
            KeyKind::P256 => ecdsa(&ECDSA_P256_SHA256_ASN1_SIGNING).ok().map(Self::Ecdsa),
            KeyKind::P384 => ecdsa(&ECDSA_P384_SHA384_ASN1_SIGNING).ok().map(Self::Ecdsa),
            KeyKind::Ed25519 => Ed25519KeyPair::from_pkcs8_maybe_unchecked(der)
                .ok()
                .map(Self::Ed25519),
        }
    }

    fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let signature = match self {
            Self::Ecdsa(pair) => pair.sign(&SystemRandom::new(), message).ok()?,
            Self::Ed25519(pair) => pair.sign(message),
        };
        Some(signature.as_ref().to_vec())
    }
}

impl fmt::Debug for MemoryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryKey({})", self.kind)
    }
}

impl rcgen::PublicKeyData for MemoryKey {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.kind.algorithm()
    }
}

impl rcgen::SigningKey for MemoryKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        on_wiped_stack(|| Loaded::of(self.kind, &self.key)?.sign(message))
            .ok_or(rcgen::Error::RingUnspecified)
    }
}

fn ecdsa_pkcs8(kind: KeyKind) -> Result<Secret, MemoryKeyError> {
    let algorithm = match kind {
        KeyKind::P384 => &ECDSA_P384_SHA384_ASN1_SIGNING,
        _ => &ECDSA_P256_SHA256_ASN1_SIGNING,
    };
    let document = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new())
        .map_err(|_| MemoryKeyError::Random)?;
    Ok(Secret::new(document.as_ref().to_vec()))
}

/// RFC 8410 `PrivateKeyInfo`, version 0: ring writes version 1 with the public key in it, which
/// OpenSSL 3.0 does not open.
fn ed25519_pkcs8() -> Result<Secret, MemoryKeyError> {
    const HEAD: [u8; 16] = [
        0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04,
        0x20,
    ];
    let mut seed = Zeroizing::new([0; 32]);
    SystemRandom::new()
        .fill(seed.as_mut_slice())
        .map_err(|_| MemoryKeyError::Random)?;
    let mut der = Vec::with_capacity(HEAD.len() + seed.len());
    der.extend_from_slice(&HEAD);
    der.extend_from_slice(seed.as_slice());
    Ok(Secret::new(der))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [KeyKind; 3] = [KeyKind::P256, KeyKind::P384, KeyKind::Ed25519];

    #[test]
    fn a_key_comes_back_from_its_pkcs8_as_the_same_kind() {
        for kind in KINDS {
            let made = MemoryKey::generate(kind).unwrap();
            let opened = MemoryKey::open(made.private().clone()).unwrap();
            assert_eq!(
                (opened.kind(), opened.public_key()),
                (kind, made.public_key())
            );
            assert_eq!(kind.as_str().parse(), Ok(kind));
            assert_eq!(format!("{opened:?}"), format!("MemoryKey({kind})"));
        }
        let damaged = PrivateKey(Secret::new(b"0\x03junk".to_vec()));
        assert_eq!(
            MemoryKey::open(damaged).unwrap_err(),
            MemoryKeyError::Unsupported
        );
        assert!("rsa".parse::<KeyKind>().is_err());
    }

    #[test]
    fn nothing_of_a_key_is_left_in_memory() {
        use crate::secret::residue::Sought;
        let other = Secret::from(String::from("a passphrase"));
        for kind in KINDS {
            let made = MemoryKey::generate(kind).unwrap();
            let forms = on_wiped_stack(|| Sought::forms_of(made.private().0.expose()));
            assert_eq!(forms.len(), 2, "{kind}: what `ring` keeps is another one");
            let number = &forms[0];
            assert_eq!(number.copies(), 1, "{kind}: the one that is kept");
            let opened = MemoryKey::open(made.private().clone()).unwrap();
            assert_eq!(number.copies(), 2, "{kind}: two of them now");
            for _ in 0..3 {
                rcgen::SigningKey::sign(&opened, b"message").unwrap();
            }
            let sealed = super::super::encrypt_pkcs8(made.private(), &other).unwrap();
            let unsealed = super::super::decrypt_pkcs8(&sealed, &other, "here").unwrap();
            assert_eq!(number.copies(), 3, "{kind}: and a third");
            drop((made, opened, unsealed));
            for form in &forms {
                assert_eq!(form.copies(), 0, "{kind}");
            }
        }
    }
}
