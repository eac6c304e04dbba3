//! How often one source, and one name, may ask. The tables forget and never grow without bound:
//! when the younger half is full, the older one is dropped, so that whoever asks is remembered.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

/// Entries of one half of a table.
const HALF: usize = 16_384;

/// What is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Requests of one source address (IPv6: one /64) each second; twice as many at once.
    pub per_source: NonZeroU32,
    /// Certificates of one name each minute, and as many at once.
    pub per_name: NonZeroU32,
}

/// One limiter a key.
pub struct Table<K> {
    quota: Quota,
    clock: DefaultClock,
    halves: Mutex<Halves<K>>,
}

struct Halves<K> {
    young: HashMap<K, Arc<DefaultDirectRateLimiter>>,
    old: HashMap<K, Arc<DefaultDirectRateLimiter>>,
}

impl<K: Eq + Hash + Clone> Table<K> {
    pub fn new(quota: Quota) -> Self {
        Self {
            quota,
            clock: DefaultClock::default(),
            halves: Mutex::new(Halves {
                young: HashMap::new(),
                old: HashMap::new(),
            }),
        }
    }

    /// Whether `key` may; if not, the whole seconds (at least 1) after which it may again.
    pub fn check(&self, key: &K) -> Result<(), u64> {
        let limiter = self.limiter(key);
        limiter
            .check()
            .map_err(|not| not.wait_time_from(self.clock.now()).as_secs() + 1)
    }

    fn limiter(&self, key: &K) -> Arc<DefaultDirectRateLimiter> {
        // Nothing can panic while it is held.
        let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = halves.young.get(key) {
            return Arc::clone(known);
        }
        let limiter = halves
            .old
            .remove(key)
            .unwrap_or_else(|| Arc::new(RateLimiter::direct(self.quota)));
        if halves.young.len() >= HALF {
            halves.old = std::mem::take(&mut halves.young);
        }
        halves.young.insert(key.clone(), Arc::clone(&limiter));
        limiter
    }
}

/// What counts as one source: an IPv4 address, or the /64 that one IPv6 host can move in.
pub fn source(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(six) => match six.to_ipv4_mapped() {
            Some(four) => four.into(),
            None => {
                let [a, b, c, d, ..] = six.segments();
                std::net::Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_uses_up_its_own_share_only() {
        let table = Table::new(Quota::per_minute(NonZeroU32::new(2).unwrap()));
        assert!(table.check(&1).is_ok() && table.check(&1).is_ok());
        let wait = table.check(&1).unwrap_err();
        assert!((1..=31).contains(&wait), "{wait}");
        assert!(table.check(&2).is_ok());
    }

    #[test]
    fn the_table_is_bounded_and_remembers_who_asks() {
        let table = Table::new(Quota::per_hour(NonZeroU32::new(1).unwrap()));
        assert!(table.check(&0).is_ok());
        for key in 1..(3 * HALF) {
            let _ = table.check(&key);
            if key % 1000 == 0 {
                assert!(table.check(&0).is_err(), "{key}");
            }
        }
        let halves = table.halves.lock().unwrap();
        assert!(halves.young.len() + halves.old.len() <= 2 * HALF);
    }

    #[test]
    fn a_host_has_one_source_wherever_it_moves_in_its_network() {
        let of = |text: &str| source(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
