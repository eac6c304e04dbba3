//! The cryptography of TLS: `aws-lc-rs` with X25519MLKEM768 first under the feature `post-quantum`,
//! `ring` without it. Always passed on explicitly, never installed for the process.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{PrivateKeyDer, UnixTime};
use rustls::server::ProducesTickets;
use rustls::sign::SigningKey;
use rustls::time_provider::TimeProvider;
use rustls::{NamedGroup, SupportedCipherSuite};

use crate::clock;
use crate::secret::on_wiped_stack;

/// The signatures that the build can verify.
#[cfg(feature = "post-quantum")]
pub(super) use webpki::aws_lc_rs as verification;
#[cfg(not(feature = "post-quantum"))]
pub(super) use webpki::ring as verification;

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    #[cfg(feature = "post-quantum")]
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    #[cfg(not(feature = "post-quantum"))]
    let provider = rustls::crypto::ring::default_provider();
    Arc::new(provider)
});

/// The one provider of this build, whole; [`super::Profile`] says what of it is used.
pub(super) fn provider() -> Arc<CryptoProvider> {
    PROVIDER.clone()
}

/// A signing key as the provider has it; the DER is only read. AWS-LC wipes its own form when it
/// lets it go; that of `ring` is wiped by the allocator.
pub(super) fn signing_key(der: &PrivateKeyDer<'_>) -> Result<Arc<dyn SigningKey>, rustls::Error> {
    #[cfg(feature = "post-quantum")]
    use rustls::crypto::aws_lc_rs::sign;
    #[cfg(not(feature = "post-quantum"))]
    use rustls::crypto::ring::sign;
    on_wiped_stack(|| sign::any_supported_type(der))
}

/// A sealer of session tickets whose keys live in memory only and roll every six hours.
pub(super) fn ticketer() -> Result<Arc<dyn ProducesTickets>, rustls::Error> {
    #[cfg(feature = "post-quantum")]
    return rustls::crypto::aws_lc_rs::Ticketer::new();
    #[cfg(not(feature = "post-quantum"))]
    return rustls::crypto::ring::Ticketer::new();
}

/// Gives rustls the time of [`clock`].
#[derive(Debug)]
pub(super) struct ClockTime;

impl TimeProvider for ClockTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(pki_time(clock::unix_now()))
    }
}

/// A time as rustls and webpki take it; before 1970 counts as 1970.
pub(super) fn pki_time(time: clock::UnixTime) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(time.0).unwrap_or(0)))
}

/// A time as the rest of the program counts it.
pub(super) fn unix_time(time: UnixTime) -> clock::UnixTime {
    clock::UnixTime(i64::try_from(time.as_secs()).unwrap_or(i64::MAX))
}

/// The IANA name of a cipher suite; rustls names those of TLS 1.3 its own way.
pub(super) fn suite_name(suite: SupportedCipherSuite) -> &'static str {
    match suite.suite().as_str() {
        Some("TLS13_AES_128_GCM_SHA256") => "TLS_AES_128_GCM_SHA256",
        Some("TLS13_AES_256_GCM_SHA384") => "TLS_AES_256_GCM_SHA384",
        Some("TLS13_CHACHA20_POLY1305_SHA256") => "TLS_CHACHA20_POLY1305_SHA256",
        Some(name) => name,
        None => "",
    }
}

/// The IANA name of a key exchange group.
pub(super) fn group_name(group: NamedGroup) -> &'static str {
    match group {
        NamedGroup::X25519 => "x25519",
        other => other.as_str().unwrap_or(""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_group_is_the_one_of_the_build() {
        let first = provider().kx_groups[0].name();
        #[cfg(feature = "post-quantum")]
        assert_eq!(group_name(first), "X25519MLKEM768");
        #[cfg(not(feature = "post-quantum"))]
        assert_eq!(group_name(first), "x25519");
    }

    #[test]
    fn suites_go_by_their_iana_names() {
        for suite in &provider().cipher_suites {
            assert!(suite_name(*suite).starts_with("TLS_"), "{suite:?}");
        }
    }
}
