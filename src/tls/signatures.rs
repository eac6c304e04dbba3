//! Which signatures a profile believes, in handshakes, certificate chains and CRLs: named one by
//! one, so that another release of the TLS library adds none.

use rustls::SignatureScheme;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::SignatureVerificationAlgorithm;
use x509_parser::der_parser::oid::Oid;
use x509_parser::objects::{oid_registry, oid2sn};
use x509_parser::prelude::FromDer;

use super::provider::verification as known;

/// A scheme of TLS with the algorithms that stand for it.
type Mapped = (
    SignatureScheme,
    &'static [&'static dyn SignatureVerificationAlgorithm],
);

// What both profiles say in a handshake.
static ED25519: Mapped = (SignatureScheme::ED25519, &[known::ED25519]);
static PSS_SHA256: Mapped = (
    SignatureScheme::RSA_PSS_SHA256,
    &[known::RSA_PSS_2048_8192_SHA256_LEGACY_KEY],
);
static PSS_SHA384: Mapped = (
    SignatureScheme::RSA_PSS_SHA384,
    &[known::RSA_PSS_2048_8192_SHA384_LEGACY_KEY],
);
static PSS_SHA512: Mapped = (
    SignatureScheme::RSA_PSS_SHA512,
    &[known::RSA_PSS_2048_8192_SHA512_LEGACY_KEY],
);

/// In chains each curve goes with its own hash, as the CA/Browser Forum's Baseline Requirements
/// (7.1.3.2.2) have it, and RSA signs by PSS only.
pub(super) static MODERN: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: &[
        known::ECDSA_P256_SHA256,
        known::ECDSA_P384_SHA384,
        known::ED25519,
        known::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
        known::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
        known::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
    ],
    mapping: &[
        (
            SignatureScheme::ECDSA_NISTP256_SHA256,
            &[known::ECDSA_P256_SHA256],
        ),
        (
            SignatureScheme::ECDSA_NISTP384_SHA384,
            &[known::ECDSA_P384_SHA384],
        ),
        ED25519,
        PSS_SHA256,
        PSS_SHA384,
        PSS_SHA512,
    ],
};

/// With PKCS#1 v1.5, with curves and hashes in any pairing, and with P-521 where the build has it
/// (`ring` does not).
pub(super) static COMPATIBLE: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: &[
        known::ECDSA_P256_SHA256,
        known::ECDSA_P256_SHA384,
        #[cfg(feature = "post-quantum")]
        known::ECDSA_P256_SHA512,
        known::ECDSA_P384_SHA256,
        known::ECDSA_P384_SHA384,
        #[cfg(feature = "post-quantum")]
        known::ECDSA_P384_SHA512,
        #[cfg(feature = "post-quantum")]
        known::ECDSA_P521_SHA256,
        #[cfg(feature = "post-quantum")]
        known::ECDSA_P521_SHA384,
        #[cfg(feature = "post-quantum")]
        known::ECDSA_P521_SHA512,
        known::ED25519,
        known::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
        known::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
        known::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
        known::RSA_PKCS1_2048_8192_SHA256,
        known::RSA_PKCS1_2048_8192_SHA384,
        known::RSA_PKCS1_2048_8192_SHA512,
        known::RSA_PKCS1_2048_8192_SHA256_ABSENT_PARAMS,
        known::RSA_PKCS1_2048_8192_SHA384_ABSENT_PARAMS,
        known::RSA_PKCS1_2048_8192_SHA512_ABSENT_PARAMS,
    ],
    // TLS 1.3 takes the first of each, TLS 1.2, where a scheme fixes no curve, any.
    mapping: &[
        (
            SignatureScheme::ECDSA_NISTP256_SHA256,
            &[
                known::ECDSA_P256_SHA256,
                known::ECDSA_P384_SHA256,
                #[cfg(feature = "post-quantum")]
                known::ECDSA_P521_SHA256,
            ],
        ),
        (
            SignatureScheme::ECDSA_NISTP384_SHA384,
            &[
                known::ECDSA_P384_SHA384,
                known::ECDSA_P256_SHA384,
                #[cfg(feature = "post-quantum")]
                known::ECDSA_P521_SHA384,
            ],
        ),
        #[cfg(feature = "post-quantum")]
        (
            SignatureScheme::ECDSA_NISTP521_SHA512,
            &[
                known::ECDSA_P521_SHA512,
                known::ECDSA_P384_SHA512,
                known::ECDSA_P256_SHA512,
            ],
        ),
        ED25519,
        PSS_SHA256,
        PSS_SHA384,
        PSS_SHA512,
        (
            SignatureScheme::RSA_PKCS1_SHA256,
            &[known::RSA_PKCS1_2048_8192_SHA256],
        ),
        (
            SignatureScheme::RSA_PKCS1_SHA384,
            &[known::RSA_PKCS1_2048_8192_SHA384],
        ),
        (
            SignatureScheme::RSA_PKCS1_SHA512,
            &[known::RSA_PKCS1_2048_8192_SHA512],
        ),
    ],
};

/// What people call a signature algorithm; `id`: the content of its `AlgorithmIdentifier`.
pub(super) fn signature_name(id: &[u8]) -> String {
    Oid::from_der(id).map_or_else(
        |_| String::from("an algorithm that cannot be read"),
        |(_, oid)| {
            let short = oid2sn(&oid, oid_registry());
            match (short, oid.to_id_string()) {
                (Ok(short), _) => short.to_owned(),
                // The table of names has it not.
                (Err(_), id) if id == "1.2.840.10045.4.1" => String::from("ecdsa-with-SHA1"),
                (Err(_), id) => id,
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn algorithms_go_by_the_names_that_people_know() {
        let name = |id: &[u8]| signature_name(id);
        let known = [
            (known::RSA_PKCS1_2048_8192_SHA256, "sha256WithRSAEncryption"),
            (known::ECDSA_P384_SHA384, "ecdsa-with-SHA384"),
            (known::ED25519, "ed25519"),
            (known::RSA_PSS_2048_8192_SHA256_LEGACY_KEY, "rsassa-pss"),
        ];
        for (algorithm, expected) in known {
            assert_eq!(name(algorithm.signature_alg_id().as_ref()), expected);
        }
        assert_eq!(name(&[6, 3, 42, 3, 4]), "1.2.3.4");
        assert_eq!(name(b"nonsense"), "an algorithm that cannot be read");
    }
}
