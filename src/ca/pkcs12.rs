//! PKCS#12 (RFC 7292): key, chain and root in one file under one passphrase, for programs that take
//! nothing else. AES-256 and HMAC-SHA-256 only, which OpenSSL 1.1.1 and Java 8u301 and later open.

use p12_keystore::{Certificate, KeyStore, KeyStoreEntry, PrivateKeyChain};

use crate::cert::PrivateKey;
use crate::secret::{Secret, on_wiped_stack};

use super::issue::Issued;

/// Rounds of PBKDF2 and of the MAC's key derivation; some tens of milliseconds each.
const ROUNDS: u32 = 100_000;

/// Why there is no PKCS#12 file.
#[derive(Debug, thiserror::Error)]
pub enum Pkcs12Error {
    /// The format writes it as UTF-16.
    #[error("the passphrase of a PKCS#12 file must be text (UTF-8)")]
    Passphrase,
    /// The encoder refused.
    #[error("the PKCS#12 file cannot be put together: {0}")]
    Encoder(String),
}

/// DER of the file.
pub(super) fn encode(
    issued: &Issued,
    key: &PrivateKey,
    alias: &str,
    passphrase: &Secret,
) -> Result<Vec<u8>, Pkcs12Error> {
    let word = std::str::from_utf8(passphrase.expose()).map_err(|_| Pkcs12Error::Passphrase)?;
    let failed = |error: p12_keystore::error::Error| Pkcs12Error::Encoder(error.to_string());
    let chain = issued
        .chain_der()
        .chain(issued.roots_der())
        .map(Certificate::from_der)
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed)?;
    // What ties key and certificate together within the file; any bytes will do.
    let tie = issued.enrolment.fingerprint.as_bytes()[..20].to_vec();
    // The encoder copies key and passphrase, and wipes neither. On the heap the allocator does.
    on_wiped_stack(|| {
        let key = p12_keystore::PrivateKey::from_der(key.0.expose())?;
        let mut store = KeyStore::new();
        let entry = KeyStoreEntry::PrivateKeyChain(PrivateKeyChain::new(tie, key, chain));
        store.add_entry(alias, entry);
        let writer = store.writer(word);
        let writer = writer.encryption_iterations(ROUNDS).mac_iterations(ROUNDS);
        writer.write()
    })
    .map_err(failed)
}
