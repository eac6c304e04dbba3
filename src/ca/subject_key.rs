//! Which public keys get a certificate: those that nobody breaks while it lives.

use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION,
    OID_SIG_ED25519,
};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::{PublicKey, RSAPublicKey};
use x509_parser::x509::SubjectPublicKeyInfo;

/// NIST SP 800-57 part 1: 112 bits of strength, the least that is still acceptable.
const LEAST_RSA_BITS: usize = 2048;
/// What the verifiers on the other side (ring, aws-lc) can still use.
const MOST_RSA_BITS: usize = 8192;
/// Smaller exponents have made many a padding mistake exploitable.
const LEAST_RSA_EXPONENT: u64 = 65_537;

/// Why a public key gets no certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubjectKeyError {
    /// Not a `SubjectPublicKeyInfo`.
    #[error("the public key cannot be read: {0}")]
    Malformed(String),
    /// Another algorithm, another curve, or a curve with parameters of its own.
    #[error(
        "the public key's algorithm is {0}; RSA, ECDSA on P-256 or P-384, and Ed25519 are taken"
    )]
    Algorithm(String),
    /// Too short, or longer than verifiers take.
    #[error("the RSA key has {0} bits; 2048 to 8192 are taken")]
    RsaBits(usize),
    /// 3 and its like.
    #[error("the RSA key's public exponent is not an odd number from 65537 on")]
    RsaExponent,
    /// Not a point, or in its compressed form.
    #[error("the public key has {found} bytes where its curve has {expected}")]
    Point {
        /// Bytes that it has.
        found: usize,
        /// Bytes of an uncompressed point.
        expected: usize,
    },
}

/// Checks a DER `SubjectPublicKeyInfo`.
///
/// # Errors
/// As [`SubjectKeyError`] says.
pub(super) fn check(subject_key: &[u8]) -> Result<(), SubjectKeyError> {
    let malformed = |what: &dyn std::fmt::Display| SubjectKeyError::Malformed(what.to_string());
    let (rest, info) = SubjectPublicKeyInfo::from_der(subject_key).map_err(|e| malformed(&e))?;
    if !rest.is_empty() {
        return Err(malformed(&"bytes follow it"));
    }
    let algorithm = &info.algorithm.algorithm;
    if *algorithm == OID_PKCS1_RSAENCRYPTION {
        return match info.parsed().map_err(|e| malformed(&e))? {
            PublicKey::RSA(key) => check_rsa(&key),
            _ => Err(malformed(&"it is not an RSA key")),
        };
    }
    if *algorithm == OID_SIG_ED25519 {
        return check_length(&info, 32);
    }
    if *algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
        let curve = info.algorithm.parameters.as_ref();
        let curve = curve.and_then(|parameters| parameters.as_oid().ok());
        return match curve {
            Some(curve) if curve == OID_EC_P256 => check_length(&info, 65),
            Some(curve) if curve == OID_NIST_EC_P384 => check_length(&info, 97),
            Some(curve) => Err(SubjectKeyError::Algorithm(format!(
                "ECDSA on the curve {curve}"
            ))),
            None => Err(SubjectKeyError::Algorithm(String::from(
                "ECDSA on an unnamed curve",
            ))),
        };
    }
    Err(SubjectKeyError::Algorithm(algorithm.to_id_string()))
}

fn check_rsa(key: &RSAPublicKey<'_>) -> Result<(), SubjectKeyError> {
    let significant = key.modulus.iter().position(|byte| *byte != 0);
    let bits = significant.map_or(0, |first| {
        let lead = key.modulus[first].leading_zeros() as usize;
        (key.modulus.len() - first) * 8 - lead
    });
    if !(LEAST_RSA_BITS..=MOST_RSA_BITS).contains(&bits) {
        return Err(SubjectKeyError::RsaBits(bits));
    }
    match key.try_exponent() {
        Ok(exponent) if exponent >= LEAST_RSA_EXPONENT && exponent % 2 == 1 => Ok(()),
        _ => Err(SubjectKeyError::RsaExponent),
    }
}

fn check_length(info: &SubjectPublicKeyInfo<'_>, expected: usize) -> Result<(), SubjectKeyError> {
    let found = info.subject_public_key.data.len();
    if found == expected {
        Ok(())
    } else {
        Err(SubjectKeyError::Point { found, expected })
    }
}
