//! What the server counts by identity, over all its connections: calls in flight and their rate.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use crate::identity::Name;

use super::limits::Limits;

/// The shared counts of one identity. Lives as long as one of its connections.
#[derive(Debug)]
pub struct Identity {
    in_flight: AtomicUsize,
    max_in_flight: usize,
    watches: AtomicUsize,
    max_watches: usize,
    rate: Option<DefaultDirectRateLimiter>,
}

/// One place among an identity's calls in flight; given back when dropped.
#[derive(Debug)]
pub struct Place(Arc<Identity>);

/// The resources that one connection watches, as counted for its identity; taken off when dropped.
#[derive(Debug)]
pub struct Watches {
    identity: Arc<Identity>,
    count: usize,
}

impl Watches {
    /// None yet.
    #[must_use]
    pub const fn none(identity: Arc<Identity>) -> Self {
        Self { identity, count: 0 }
    }

    /// Whether the identity may watch so many more.
    #[must_use]
    pub fn has_room_for(&self, more: usize) -> bool {
        let watched = self.identity.watches.load(Ordering::Relaxed);
        watched.saturating_add(more) <= self.identity.max_watches
    }

    /// This connection watches so many now.
    pub fn set(&mut self, count: usize) {
        let watches = &self.identity.watches;
        watches.fetch_add(count, Ordering::Relaxed);
        watches.fetch_sub(self.count, Ordering::Relaxed);
        self.count = count;
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// Every identity with a live connection.
#[derive(Debug, Default)]
pub struct Identities {
    known: Mutex<HashMap<Name, Weak<Identity>>>,
}

impl Identities {
    /// Calls in flight of all of them.
    pub fn in_flight(&self) -> usize {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let live = known.values().filter_map(Weak::upgrade);
        live.map(|identity| identity.in_flight.load(Ordering::Relaxed))
            .sum()
    }

    /// The counts of this identity; made with `limits` if no connection of it is live.
    pub fn of(&self, name: &Name, limits: &Limits) -> Arc<Identity> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(identity) = known.get(name).and_then(Weak::upgrade) {
            return identity;
        }
        // Swept when it would grow, so that the map is never larger than twice what is live.
        if known.len() == known.capacity() {
            known.retain(|_, identity| identity.strong_count() > 0);
        }
        let identity = Arc::new(Identity::new(limits));
        known.insert(name.clone(), Arc::downgrade(&identity));
        identity
    }
}

impl Identity {
    fn new(limits: &Limits) -> Self {
        let per_second = limits.calls_per_second.and_then(NonZeroU32::new);
        let burst = NonZeroU32::new(limits.burst).unwrap_or(NonZeroU32::MIN);
        let quota = per_second.map(|rate| Quota::per_second(rate).allow_burst(burst));
        Self {
            in_flight: AtomicUsize::new(0),
            max_in_flight: limits.in_flight_per_identity,
            watches: AtomicUsize::new(0),
            max_watches: limits.subscriptions_per_identity,
            rate: quota.map(RateLimiter::direct),
        }
    }

    /// A place for one more call, if there is one.
    #[must_use]
    pub fn place(self: &Arc<Self>) -> Option<Place> {
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        let place = Place(Arc::clone(self));
        (before < self.max_in_flight).then_some(place)
    }

    /// Counts one call against the rate.
    ///
    /// # Errors
    /// How long to wait before the next one.
    pub fn check_rate(&self) -> Result<(), Duration> {
        let Some(rate) = &self.rate else {
            return Ok(());
        };
        rate.check()
            .map_err(|not_until| not_until.wait_time_from(DefaultClock::default().now()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_of_one_name_share_their_places() {
        let identities = Identities::default();
        let limits = Limits {
            in_flight_per_identity: 2,
            ..Limits::default()
        };
        let ann = Name::new("ann").unwrap();
        let (one, two) = (identities.of(&ann, &limits), identities.of(&ann, &limits));
        let held = (one.place().unwrap(), two.place().unwrap());
        assert!(one.place().is_none());
        let bob = identities.of(&Name::new("bob").unwrap(), &limits);
        assert!(bob.place().is_some());
        // The place that was refused is not counted; bob's is given back at once.
        assert_eq!(identities.in_flight(), 2);
        drop(held);
        assert_eq!(identities.in_flight(), 0);
        assert!(two.place().is_some());
    }

    #[test]
    fn connections_of_one_name_share_their_watches() {
        let limits = Limits {
            subscriptions_per_identity: 3,
            ..Limits::default()
        };
        let identity = Arc::new(Identity::new(&limits));
        let (mut one, two) = (Watches::none(identity.clone()), Watches::none(identity));
        one.set(2);
        assert!(two.has_room_for(1) && !two.has_room_for(2));
        drop(one);
        assert!(two.has_room_for(3));
    }

    #[test]
    fn the_rate_tells_how_long_to_wait() {
        let limits = Limits {
            calls_per_second: Some(1),
            burst: 2,
            ..Limits::default()
        };
        let identity = Identity::new(&limits);
        assert_eq!(
            (identity.check_rate(), identity.check_rate()),
            (Ok(()), Ok(()))
        );
        let wait = identity.check_rate().unwrap_err();
        assert!(wait <= Duration::from_secs(1) && !wait.is_zero());
    }

    #[test]
    fn who_is_gone_is_forgotten() {
        let identities = Identities::default();
        for n in 0..10_000 {
            identities.of(&Name::new(&n.to_string()).unwrap(), &Limits::default());
        }
        assert!(identities.known.lock().unwrap().len() < 100);
    }
}
