//! What goes to a token and comes from it, in bytes: which mechanism with which input, the public key
//! from its attributes, and the signature as everybody else writes it.

use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsPssParams};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::Attribute;
use ring::digest;

use super::key::{Scheme, TokenKeyKind};
use crate::cert::kind::KeyKind;

/// The object identifiers of the curves, DER.
const P256: &[u8] = &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const P384: &[u8] = &[6, 5, 0x2b, 0x81, 4, 0, 0x22];
/// PKCS#11 3.0 (section 2.3.5) lets a token take the curve's name, or its identifier, or that of the
/// algorithm (RFC 8410).
const EDWARDS_NAME: &[u8] = b"\x13\x0cedwards25519";
const EDWARDS: &[u8] = &[6, 9, 0x2b, 6, 1, 4, 1, 0xda, 0x47, 0x0f, 1];
const ED25519: &[u8] = &[6, 3, 0x2b, 0x65, 0x70];

/// What makes a key pair.
pub(super) struct Made {
    pub mechanism: Mechanism<'static>,
    /// The curve, in the ways in which tokens take it, to be tried in turn.
    pub curves: &'static [&'static [u8]],
}

/// How a token is told to make a key of this kind.
pub(super) fn to_make(kind: KeyKind) -> Made {
    let (mechanism, curves): (_, &'static [&'static [u8]]) = match kind {
        KeyKind::P256 => (Mechanism::EccKeyPairGen, &[P256]),
        KeyKind::P384 => (Mechanism::EccKeyPairGen, &[P384]),
        KeyKind::Ed25519 => (
            Mechanism::EccEdwardsKeyPairGen,
            &[EDWARDS_NAME, ED25519, EDWARDS],
        ),
    };
    Made { mechanism, curves }
}

/// What the token is asked to do, and with which bytes. It is given digests: every token signs
/// those, and few digest themselves. (Ed25519 is of the message, by its definition.)
pub(super) fn prepare(scheme: Scheme, message: &[u8]) -> (Mechanism<'static>, Vec<u8>) {
    let digest = |algorithm| digest::digest(algorithm, message).as_ref().to_vec();
    let sha256 = || digest(&digest::SHA256);
    let sha384 = || digest(&digest::SHA384);
    let sha512 = || digest(&digest::SHA512);
    let pss = |hash_alg, mgf, length: u64| {
        Mechanism::RsaPkcsPss(PkcsPssParams {
            hash_alg,
            mgf,
            s_len: length.into(),
        })
    };
    // RFC 8017 section 9.2, note 1: `DigestInfo` up to the digest itself.
    let info = |last: u8, digest: Vec<u8>| {
        let length = u8::try_from(digest.len()).unwrap_or(u8::MAX);
        let mut info = vec![
            0x30,
            0x11 + length,
            0x30,
            0x0d,
            6,
            9,
            0x60,
            0x86,
            0x48,
            1,
            0x65,
            3,
            4,
            2,
            last,
            5,
            0,
            4,
            length,
        ];
        info.extend(digest);
        info
    };
    match scheme {
        Scheme::EcdsaSha256 => (Mechanism::Ecdsa, sha256()),
        Scheme::EcdsaSha384 => (Mechanism::Ecdsa, sha384()),
        Scheme::Ed25519 => (
            Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Ed25519)),
            message.to_vec(),
        ),
        Scheme::PssSha256 => (
            pss(MechanismType::SHA256, PkcsMgfType::MGF1_SHA256, 32),
            sha256(),
        ),
        Scheme::PssSha384 => (
            pss(MechanismType::SHA384, PkcsMgfType::MGF1_SHA384, 48),
            sha384(),
        ),
        Scheme::PssSha512 => (
            pss(MechanismType::SHA512, PkcsMgfType::MGF1_SHA512, 64),
            sha512(),
        ),
        Scheme::Pkcs1Sha256 => (Mechanism::RsaPkcs, info(1, sha256())),
        Scheme::Pkcs1Sha384 => (Mechanism::RsaPkcs, info(2, sha384())),
        Scheme::Pkcs1Sha512 => (Mechanism::RsaPkcs, info(3, sha512())),
    }
}

pub(super) fn ec(attributes: Vec<Attribute>) -> Option<(TokenKeyKind, Vec<u8>)> {
    let (mut curve, mut point) = (None, None);
    for attribute in attributes {
        match attribute {
            Attribute::EcParams(params) if params == P256 => curve = Some((KeyKind::P256, 65)),
            Attribute::EcParams(params) if params == P384 => curve = Some((KeyKind::P384, 97)),
            Attribute::EcPoint(found) => point = Some(found),
            _ => {}
        }
    }
    let ((curve, length), mut point) = (curve?, point?);
    // An OCTET STRING around it, as the standard says; some tokens leave it away.
    if point.len() == length + 2 && point[0] == 4 && usize::from(point[1]) == length {
        point.drain(..2);
    }
    (point.len() == length && point[0] == 4).then_some((TokenKeyKind::Curve(curve), point))
}

/// Ed25519, and no other Edwards curve.
pub(super) fn edwards(attributes: Vec<Attribute>) -> Option<(TokenKeyKind, Vec<u8>)> {
    let (mut known, mut point) = (false, None);
    for attribute in attributes {
        match attribute {
            Attribute::EcParams(params) => {
                known = [EDWARDS_NAME, EDWARDS, ED25519].contains(&params.as_slice());
            }
            Attribute::EcPoint(found) => point = Some(found),
            _ => {}
        }
    }
    let mut point = point?;
    // An OCTET STRING around it, or a BIT STRING (PKCS#11 3.0), or nothing.
    match point.as_slice() {
        [4, 32, ..] if point.len() == 34 => drop(point.drain(..2)),
        [3, 33, 0, ..] if point.len() == 35 => drop(point.drain(..3)),
        _ => {}
    }
    (known && point.len() == 32).then_some((TokenKeyKind::Curve(KeyKind::Ed25519), point))
}

pub(super) fn rsa(attributes: Vec<Attribute>) -> Option<(TokenKeyKind, Vec<u8>)> {
    let (mut modulus, mut exponent) = (None, None);
    for attribute in attributes {
        match attribute {
            Attribute::Modulus(found) => modulus = Some(found),
            Attribute::PublicExponent(found) => exponent = Some(found),
            _ => {}
        }
    }
    let modulus = modulus?;
    let significant = modulus.iter().skip_while(|byte| **byte == 0);
    let bits = significant.clone().count() * 8
        - significant
            .clone()
            .next()
            .map_or(0, |byte| byte.leading_zeros() as usize);
    if bits < 2048 {
        return None;
    }
    let content = [integer(&modulus), integer(&exponent?)].concat();
    Some((TokenKeyKind::Rsa, tagged(0x30, &content)))
}

/// A token's signature as certificates and TLS have it; `None`: it has a wrong length.
pub(super) fn written(scheme: Scheme, signature: Vec<u8>) -> Option<Vec<u8>> {
    match scheme {
        Scheme::EcdsaSha256 | Scheme::EcdsaSha384 => ecdsa_der(&signature),
        Scheme::Ed25519 => (signature.len() == 64).then_some(signature),
        _ => Some(signature),
    }
}

/// Raw `r` and `s` as a DER sequence.
fn ecdsa_der(signature: &[u8]) -> Option<Vec<u8>> {
    if !matches!(signature.len(), 64 | 96) {
        return None;
    }
    let (r, s) = signature.split_at(signature.len() / 2);
    Some(tagged(0x30, &[integer(r), integer(s)].concat()))
}

/// An unsigned number, DER.
fn integer(bytes: &[u8]) -> Vec<u8> {
    let first = bytes.iter().position(|byte| *byte != 0);
    let mut content = bytes[first.unwrap_or(bytes.len())..].to_vec();
    if content.first().is_none_or(|byte| byte & 0x80 != 0) {
        content.insert(0, 0);
    }
    tagged(2, &content)
}

fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let first = length.iter().position(|byte| *byte != 0);
    let length = &length[first.unwrap_or(length.len() - 1)..];
    let mut der = vec![tag];
    if content.len() >= 0x80 {
        der.push(0x80 | u8::try_from(length.len()).unwrap_or(u8::MAX));
    }
    der.extend_from_slice(length);
    der.extend_from_slice(content);
    der
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_der_wants_them() {
        assert_eq!(integer(&[0, 0, 1]), [2, 1, 1]);
        assert_eq!(integer(&[0x80]), [2, 2, 0, 0x80]);
        assert_eq!(integer(&[0, 0]), [2, 1, 0]);
        assert_eq!(integer(&[]), [2, 1, 0]);
        let long = integer(&[0xff; 256]);
        assert_eq!(long[..6], [2, 0x82, 1, 1, 0, 0xff]);
        assert_eq!(tagged(4, &[7; 200])[..3], [4, 0x81, 200]);
    }

    #[test]
    fn a_signature_has_its_curve_s_length() {
        let der = ecdsa_der(&[1; 64]).unwrap();
        assert_eq!(der[..4], [0x30, 68, 2, 32]);
        assert_eq!(ecdsa_der(&[1; 65]), None);
    }

    #[test]
    fn a_point_comes_with_or_without_its_octet_string() {
        let point = [&[4][..], &[9; 64]].concat();
        let wrapped = [&[4, 65][..], &point].concat();
        for found in [&point, &wrapped] {
            let attributes = vec![
                Attribute::EcParams(P256.to_vec()),
                Attribute::EcPoint(found.clone()),
            ];
            let (kind, read) = ec(attributes).unwrap();
            assert_eq!((kind, &read), (TokenKeyKind::Curve(KeyKind::P256), &point));
        }
        let other = vec![
            Attribute::EcParams(P384.to_vec()),
            Attribute::EcPoint(point),
        ];
        assert!(ec(other).is_none());
    }

    #[test]
    fn an_edwards_point_comes_in_three_wrappings_and_its_curve_under_three_names() {
        let point = vec![9; 32];
        let wrapped = [&[4, 32][..], &point].concat();
        let bits = [&[3, 33, 0][..], &point].concat();
        for curve in [EDWARDS_NAME, EDWARDS, ED25519] {
            for found in [&point, &wrapped, &bits] {
                let attributes = vec![
                    Attribute::EcParams(curve.to_vec()),
                    Attribute::EcPoint(found.clone()),
                ];
                let kind = TokenKeyKind::Curve(KeyKind::Ed25519);
                assert_eq!(edwards(attributes), Some((kind, point.clone())));
            }
        }
        for (curve, point) in [
            (&b"\x13\x0aedwards448"[..], point.clone()),
            (ED25519, vec![9; 57]),
            (ED25519, [&[4, 33][..], &point].concat()),
        ] {
            let attributes = vec![
                Attribute::EcParams(curve.to_vec()),
                Attribute::EcPoint(point),
            ];
            assert_eq!(edwards(attributes), None);
        }
        assert_eq!(written(Scheme::Ed25519, vec![0; 63]), None);
        assert_eq!(written(Scheme::Ed25519, vec![7; 64]), Some(vec![7; 64]));
    }

    #[test]
    fn a_short_rsa_key_is_none() {
        let key = |length| {
            rsa(vec![
                Attribute::Modulus(vec![0xff; length]),
                Attribute::PublicExponent(vec![1, 0, 1]),
            ])
        };
        assert!(key(256).is_some());
        assert!(key(255).is_none());
        assert!(key(128).is_none());
    }
}
