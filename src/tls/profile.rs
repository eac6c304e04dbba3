//! Named profiles: what a handshake may agree on and what signatures are believed. Each names its
//! versions, groups, suites and signatures itself, in order of preference, so that another release of
//! the TLS library changes none of them.

use std::fmt;
use std::sync::{Arc, LazyLock};

use rustls::crypto::{CryptoProvider, SupportedKxGroup, WebPkiSupportedAlgorithms};
use rustls::{CipherSuite, NamedGroup, SupportedCipherSuite, SupportedProtocolVersion};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::provider::provider;
use super::signatures;

/// What a handshake may agree on, and what signatures are believed in it and in certificate chains.
/// SHA-1 and RSA keys below 2048 bits are in none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// TLS 1.3 only, without RSA PKCS#1 v1.5 and P-521.
    #[default]
    Modern,
    /// TLS 1.2 too, with ECDHE and AEAD suites and the extended master secret only; what older CAs
    /// sign by is believed.
    Compatible,
}

/// X25519MLKEM768 is left out where the build has no post-quantum cryptography. P-384 is not here:
/// who speaks TLS 1.3 speaks P-256 (RFC 8446, 9.1), and a stranger's P-384 costs the server several
/// times as much, before he has shown any certificate.
const MODERN_GROUPS: [NamedGroup; 3] = [
    NamedGroup::X25519MLKEM768,
    NamedGroup::X25519,
    NamedGroup::secp256r1,
];

/// For those too who are bound to P-384 by rule.
const COMPATIBLE_GROUPS: [NamedGroup; 4] = [
    NamedGroup::X25519MLKEM768,
    NamedGroup::X25519,
    NamedGroup::secp256r1,
    NamedGroup::secp384r1,
];

const SUITES: [CipherSuite; 3] = [
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
];

const SUITES_OF_12: [CipherSuite; 6] = [
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
];

static MODERN: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| narrowed(&SUITES, &MODERN_GROUPS, signatures::MODERN));
static COMPATIBLE: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    let suites = [&SUITES[..], &SUITES_OF_12].concat();
    narrowed(&suites, &COMPATIBLE_GROUPS, signatures::COMPATIBLE)
});

impl Profile {
    /// The versions that are spoken.
    pub(super) fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
        static MODERN: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];
        static COMPATIBLE: [&SupportedProtocolVersion; 2] =
            [&rustls::version::TLS13, &rustls::version::TLS12];
        match self {
            Self::Modern => &MODERN,
            Self::Compatible => &COMPATIBLE,
        }
    }

    /// The build's provider, narrowed to what the profile allows.
    pub(super) fn provider(self) -> Arc<CryptoProvider> {
        match self {
            Self::Modern => MODERN.clone(),
            Self::Compatible => COMPATIBLE.clone(),
        }
    }

    /// The signatures that are believed.
    pub(super) fn signatures(self) -> WebPkiSupportedAlgorithms {
        match self {
            Self::Modern => signatures::MODERN,
            Self::Compatible => signatures::COMPATIBLE,
        }
    }

    /// What is wrong with a certificate or CRL that is signed by this algorithm (the content of its
    /// `AlgorithmIdentifier`) and is not believed.
    pub(super) fn disbelief(self, signature: &[u8]) -> String {
        let name = signatures::signature_name(signature);
        let known = |profile: Self| {
            let mut all = profile.signatures().all.iter();
            all.any(|algorithm| algorithm.signature_alg_id().as_ref() == signature)
        };
        if known(self) {
            format!(
                "is signed by {name} with a kind of key that the profile `{self}` does not accept there"
            )
        } else if known(Self::Compatible) {
            let other = Self::Compatible;
            format!(
                "is signed by {name}, which the profile `{self}` does not accept (`{other}` does)"
            )
        } else {
            format!("is signed by {name}, which no profile accepts")
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Modern => "modern",
            Self::Compatible => "compatible",
        })
    }
}

fn narrowed(
    suites: &[CipherSuite],
    groups: &[NamedGroup],
    signatures: WebPkiSupportedAlgorithms,
) -> Arc<CryptoProvider> {
    let whole = provider();
    let suite = |wanted: &CipherSuite| -> Option<SupportedCipherSuite> {
        let known = whole.cipher_suites.iter().copied();
        known.into_iter().find(|suite| suite.suite() == *wanted)
    };
    let group = |wanted: &NamedGroup| -> Option<&'static dyn SupportedKxGroup> {
        let known = whole.kx_groups.iter().copied();
        known.into_iter().find(|group| group.name() == *wanted)
    };
    Arc::new(CryptoProvider {
        cipher_suites: suites.iter().filter_map(suite).collect(),
        kx_groups: groups.iter().filter_map(group).collect(),
        signature_verification_algorithms: signatures,
        ..(*whole).clone()
    })
}

#[cfg(test)]
mod tests {
    use rustls::SignatureScheme;

    use super::super::provider::{group_name, suite_name};
    use super::*;

    #[test]
    fn each_profile_is_exactly_this() {
        let groups = |profile: Profile| -> Vec<_> {
            let provider = profile.provider();
            provider
                .kx_groups
                .iter()
                .map(|group| group_name(group.name()))
                .collect()
        };
        let hybrid: &[&str] = if cfg!(feature = "post-quantum") {
            &["X25519MLKEM768"]
        } else {
            &[]
        };
        let modern = [hybrid, &["x25519", "secp256r1"]].concat();
        assert_eq!(groups(Profile::Modern), modern);
        let compatible = [&modern[..], &["secp384r1"]].concat();
        assert_eq!(groups(Profile::Compatible), compatible);
        let suites = |profile: Profile| -> Vec<_> {
            let provider = profile.provider();
            provider
                .cipher_suites
                .iter()
                .map(|suite| suite_name(*suite))
                .collect()
        };
        let modern = [
            "TLS_AES_256_GCM_SHA384",
            "TLS_AES_128_GCM_SHA256",
            "TLS_CHACHA20_POLY1305_SHA256",
        ];
        assert_eq!(suites(Profile::Modern), modern);
        let compatible = suites(Profile::Compatible);
        assert_eq!(compatible[..3], modern);
        assert_eq!(compatible.len(), 9);
        for suite in &compatible[3..] {
            let aead = suite.contains("_GCM_") || suite.contains("_CHACHA20_POLY1305_");
            assert!(suite.starts_with("TLS_ECDHE_") && aead, "{suite}");
        }
        let spoken = |profile: Profile| -> Vec<_> {
            profile
                .versions()
                .iter()
                .map(|version| format!("{:?}", version.version))
                .collect()
        };
        assert_eq!(spoken(Profile::Modern), ["TLSv1_3"]);
        assert_eq!(spoken(Profile::Compatible), ["TLSv1_3", "TLSv1_2"]);
    }

    #[test]
    fn each_profile_believes_exactly_these_signatures() {
        use SignatureScheme as S;
        let modern = [
            S::ECDSA_NISTP256_SHA256,
            S::ECDSA_NISTP384_SHA384,
            S::ED25519,
            S::RSA_PSS_SHA256,
            S::RSA_PSS_SHA384,
            S::RSA_PSS_SHA512,
        ];
        let more: &[S] = if cfg!(feature = "post-quantum") {
            &[S::ECDSA_NISTP521_SHA512]
        } else {
            &[]
        };
        let pkcs1 = [
            S::RSA_PKCS1_SHA256,
            S::RSA_PKCS1_SHA384,
            S::RSA_PKCS1_SHA512,
        ];
        let compatible = [&modern[..2], more, &modern[2..], &pkcs1].concat();
        for (profile, schemes) in [
            (Profile::Modern, &modern[..]),
            (Profile::Compatible, &compatible),
        ] {
            let believed = profile.provider().signature_verification_algorithms;
            assert_eq!(believed.supported_schemes(), schemes);
            // What TLS may be signed by, chains may be too.
            for (_, algorithms) in believed.mapping {
                for algorithm in *algorithms {
                    assert!(
                        believed
                            .all
                            .iter()
                            .any(|known| format!("{known:?}") == format!("{algorithm:?}"))
                    );
                }
            }
        }
        let chains = |profile: Profile| profile.signatures().all.len();
        assert_eq!(chains(Profile::Modern), 6);
        let of_521 = if cfg!(feature = "post-quantum") { 5 } else { 0 };
        assert_eq!(chains(Profile::Compatible), 14 + of_521);
    }
}
