//! Revocations that come from a signed CRL on disk and not from the store: they hold even when the
//! database was lost.

use std::collections::{HashMap, HashSet};

use crate::identity::Fingerprint;

/// They are only ever added: a CRL that no longer names a certificate (because it ended) does not
/// bring it back while this process lives.
#[derive(Debug, Default)]
pub(super) struct Offline {
    certificates: HashSet<Fingerprint>,
    /// By issuing certificate: big-endian serials without leading zero bytes.
    serials: HashMap<Fingerprint, HashSet<Box<[u8]>>>,
}

impl Offline {
    /// Whether it was new.
    pub fn add_certificate(&mut self, fingerprint: Fingerprint) -> bool {
        self.certificates.insert(fingerprint)
    }

    /// Whether it was new.
    pub fn add_serial(&mut self, issuer: Fingerprint, serial: &[u8]) -> bool {
        self.serials
            .entry(issuer)
            .or_default()
            .insert(significant(serial).into())
    }

    pub fn has_certificate(&self, fingerprint: &Fingerprint) -> bool {
        self.certificates.contains(fingerprint)
    }

    pub fn has_serial(&self, issuer: &Fingerprint, serial: &[u8]) -> bool {
        self.serials
            .get(issuer)
            .is_some_and(|known| known.contains(significant(serial)))
    }
}

/// DER writes a leading zero byte where the number would look negative; others leave it out.
fn significant(serial: &[u8]) -> &[u8] {
    let zeros = serial.iter().take_while(|byte| **byte == 0).count();
    &serial[zeros..]
}
