//! Chains that were verified under one trust state. A new state starts with an empty one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ring::digest::{Context, SHA256};
use rustls::pki_types::CertificateDer;

use crate::clock::UnixTime;
use crate::peer::{Chain, Link};

/// The most chains that are remembered; about 1 KiB each.
const CHAINS: usize = 65_536;

/// The digest of a presented chain.
pub(super) type Key = [u8; 32];

/// A chain that led to an anchor, and for how long that holds without looking again.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) chain: Arc<Chain>,
    pub(super) links: Arc<[Link]>,
    /// The chain's own end, or before it the end of a required CRL's freshness.
    pub(super) until: UnixTime,
}

impl Verified {
    /// Whether it may be used without building the path again.
    pub(super) fn holds(&self, now: UnixTime) -> bool {
        self.chain.not_before <= now && now < self.until
    }
}

/// SHA-256 over the presented certificates, each with its length before it, so that no two
/// different lists give the same input.
pub(super) fn key(leaf: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Key {
    let mut context = Context::new(&SHA256);
    for certificate in std::iter::once(leaf).chain(others) {
        context.update(&(certificate.len() as u64).to_be_bytes());
        context.update(certificate);
    }
    let mut key = [0; 32];
    key.copy_from_slice(context.finish().as_ref());
    key
}

/// At most [`CHAINS`] of them: two generations, of which the older goes when the younger is full, so
/// that what is in use stays.
#[derive(Debug, Default)]
pub(super) struct ChainCache(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Key, Arc<Verified>>,
    old: HashMap<Key, Arc<Verified>>,
}

impl ChainCache {
    pub(super) fn get(&self, key: &Key) -> Option<Arc<Verified>> {
        let mut both = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = both.young.get(key) {
            return Some(found.clone());
        }
        let found = both.old.remove(key)?;
        both.put(*key, found.clone(), CHAINS / 2);
        Some(found)
    }

    pub(super) fn put(&self, key: Key, verified: Arc<Verified>) {
        let mut both = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        both.put(key, verified, CHAINS / 2);
    }
}

impl Generations {
    fn put(&mut self, key: Key, verified: Arc<Verified>, half: usize) {
        if self.young.len() >= half {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, verified);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Fingerprint, Name};
    use crate::peer::Mode;

    fn verified(until: i64) -> Arc<Verified> {
        let chain = Chain {
            name: Name::new("a").unwrap(),
            fingerprint: Fingerprint::of_der(b"a"),
            serial: String::from("01"),
            issuers: Vec::new(),
            anchor: "anchor".into(),
            mode: Mode::Pinned,
            not_before: UnixTime(10),
            not_after: UnixTime(20),
            layers: Vec::new(),
            leaf_carries_grants: false,
        };
        Arc::new(Verified {
            chain: chain.into(),
            links: [].into(),
            until: UnixTime(until),
        })
    }

    #[test]
    fn it_holds_from_its_first_second_to_before_its_end() {
        let verified = verified(20);
        let held: Vec<_> = [9, 10, 19, 20]
            .map(|now| verified.holds(UnixTime(now)))
            .into();
        assert_eq!(held, [false, true, true, false]);
    }

    #[test]
    fn what_is_used_outlives_what_is_not_and_the_bound_holds() {
        let mut both = Generations::default();
        let key = |n: u8| [n; 32];
        for n in 0..4 {
            both.put(key(n), verified(20), 4);
        }
        both.put(key(4), verified(20), 4);
        let cache = ChainCache(Mutex::new(both));
        assert!(
            cache.get(&key(0)).is_some(),
            "taken over into the younger half"
        );
        for n in 5..8 {
            cache.0.lock().unwrap().put(key(n), verified(20), 4);
        }
        assert!(cache.get(&key(0)).is_some());
        assert!(cache.get(&key(1)).is_none());
        let both = cache.0.lock().unwrap();
        assert!(both.young.len() + both.old.len() <= 8);
    }

    #[test]
    fn lists_that_run_together_have_different_keys() {
        let der = |bytes: &[u8]| CertificateDer::from(bytes.to_vec());
        let one = key(&der(b"ab"), &[der(b"c")]);
        assert_eq!(one, key(&der(b"ab"), &[der(b"c")]));
        assert_ne!(one, key(&der(b"a"), &[der(b"bc")]));
        assert_ne!(one, key(&der(b"abc"), &[]));
    }
}
