//! Named profiles: what a handshake may agree on. Each names its versions, groups and suites itself,
//! in order of preference, so that another release of the TLS library changes none of them.

use std::sync::{Arc, LazyLock};

use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::{CipherSuite, NamedGroup, SupportedCipherSuite, SupportedProtocolVersion};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::provider::{provider, versions};

/// What a handshake may agree on. SHA-1 and RSA keys below 2048 bits are in none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// TLS 1.3 only.
    #[default]
    Modern,
    /// TLS 1.2 too, with ECDHE and AEAD suites and the extended master secret only.
    Compatible,
}

/// X25519MLKEM768 is left out where the build has no post-quantum cryptography.
const GROUPS: [NamedGroup; 4] = [
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

static MODERN: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| narrowed(&SUITES));
static COMPATIBLE: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| narrowed(&[&SUITES[..], &SUITES_OF_12].concat()));

impl Profile {
    /// The versions that are spoken.
    pub(super) fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
        versions(self == Self::Compatible)
    }

    /// The build's provider, narrowed to what the profile allows. What signatures are believed is
    /// the same in all: the provider knows neither SHA-1 nor RSA below 2048 bits.
    pub(super) fn provider(self) -> Arc<CryptoProvider> {
        match self {
            Self::Modern => MODERN.clone(),
            Self::Compatible => COMPATIBLE.clone(),
        }
    }
}

fn narrowed(suites: &[CipherSuite]) -> Arc<CryptoProvider> {
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
        kx_groups: GROUPS.iter().filter_map(group).collect(),
        ..(*whole).clone()
    })
}

#[cfg(test)]
mod tests {
    use rustls::SignatureScheme;

    use super::super::provider::{group_name, suite_name};
    use super::*;

    const ALL: [Profile; 2] = [Profile::Modern, Profile::Compatible];

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
        for profile in ALL {
            #[cfg(feature = "post-quantum")]
            assert_eq!(
                groups(profile),
                ["X25519MLKEM768", "x25519", "secp256r1", "secp384r1"]
            );
            #[cfg(not(feature = "post-quantum"))]
            assert_eq!(groups(profile), ["x25519", "secp256r1", "secp384r1"]);
        }
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
    fn no_profile_believes_sha_1() {
        for profile in ALL {
            let schemes = profile
                .provider()
                .signature_verification_algorithms
                .supported_schemes();
            for scheme in [
                SignatureScheme::ECDSA_NISTP256_SHA256,
                SignatureScheme::RSA_PSS_SHA256,
            ] {
                assert!(schemes.contains(&scheme), "{scheme:?}");
            }
            for scheme in [
                SignatureScheme::RSA_PKCS1_SHA1,
                SignatureScheme::ECDSA_SHA1_Legacy,
            ] {
                assert!(!schemes.contains(&scheme), "{scheme:?}");
            }
        }
    }
}
