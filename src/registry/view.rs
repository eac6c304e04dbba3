//! The registry in a server's memory: what admission and every decision look at.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use crate::clock::{self, UnixTime};
use crate::grant::WrittenGrants;
use crate::identity::{Fingerprint, Name};

use super::contact::Contact;
use super::offline::Offline;
use super::record::{EnrolmentKind, Outline};
use super::shard::{Entry, Shard};

/// A growing shard moves its index while it is locked: with this many, that is a thousandth of a
/// second for a million certificates.
const SHARDS: usize = 64;

/// What a pin says.
#[derive(Clone, Debug, PartialEq)]
pub struct Pin {
    /// The pinned certificate.
    pub fingerprint: Fingerprint,
    /// The name that it was enrolled for.
    pub name: Name,
    /// The pin's own set; `None`: whatever the certificate carries.
    pub grants: Option<Arc<WrittenGrants>>,
    /// The last second that the pin holds.
    pub not_after: UnixTime,
    /// Whether it covers what this certificate signed (a delegate).
    pub delegate: bool,
}

/// How a certificate stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Standing {
    /// Never enrolled, or so long expired that it was forgotten.
    Unknown,
    /// On record, and nobody is admitted by it.
    Unpinned,
    /// A server admits by it, if all else holds.
    Pinned(Pin),
    /// Revoked, for good.
    Revoked,
}

/// In memory, shared, answered without I/O. Costs about 170 bytes a certificate with a name of 40
/// bytes. A [`super::Feed`] keeps it in step with a store.
#[derive(Default)]
pub struct View {
    shards: Shards,
    grants: Mutex<Interner>,
    offline: RwLock<Offline>,
    any_offline: AtomicBool,
    generation: AtomicU64,
    contact: Contact,
}

struct Shards([RwLock<Shard>; SHARDS]);

impl Default for Shards {
    fn default() -> Self {
        Self(std::array::from_fn(|_| RwLock::default()))
    }
}

/// Equal sets are kept once. Those that no entry holds any more are dropped whenever the number of
/// sets has doubled.
#[derive(Default)]
struct Interner {
    sets: HashSet<Arc<WrittenGrants>>,
    sweep_at: usize,
}

impl View {
    /// How this certificate stands; about 100 ns.
    #[must_use]
    pub fn standing(&self, fingerprint: &Fingerprint) -> Standing {
        if self.any_offline.load(Ordering::Acquire)
            && read(&self.offline).has_certificate(fingerprint)
        {
            return Standing::Revoked;
        }
        let shard = read(self.shard(fingerprint));
        match shard.get(fingerprint) {
            None => Standing::Unknown,
            Some(entry) if entry.is_revoked() => Standing::Revoked,
            Some(entry) if !entry.is_pinned() => Standing::Unpinned,
            Some(entry) => Standing::Pinned(Pin {
                fingerprint: entry.fingerprint,
                name: entry.name.clone(),
                grants: entry.grants.clone(),
                not_after: entry.not_after(),
                delegate: entry.is_authority(),
            }),
        }
    }

    /// Whether a CRL on disk named this serial (big-endian bytes) of this issuing certificate. The
    /// store's own revocations are not asked here but through [`Self::standing`].
    #[must_use]
    pub fn is_serial_revoked(&self, issuer: &Fingerprint, serial: &[u8]) -> bool {
        self.any_offline.load(Ordering::Acquire) && read(&self.offline).has_serial(issuer, serial)
    }

    /// Grows with every change that was applied; compare it to know that nothing changed. Read it
    /// before what is remembered with it, not after.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// How many certificates it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.0.iter().map(|shard| read(shard).len()).sum()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// When the store was last heard of.
    #[must_use]
    pub fn last_contact(&self) -> UnixTime {
        self.contact.last()
    }

    /// How long ago that was, on the monotonic clock: what `registry.max_staleness` bounds.
    #[must_use]
    pub fn staleness(&self) -> Duration {
        self.staleness_at(clock::monotonic())
    }

    /// As [`Self::staleness`], for whoever has read the clock just now.
    #[must_use]
    pub fn staleness_at(&self, now: Instant) -> Duration {
        self.contact.age(now)
    }

    /// Why the store is not heard of at present.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.contact.trouble()
    }

    /// Takes in the present state of these certificates. One that is revoked stays revoked.
    pub fn apply(&self, outlines: &[Outline]) {
        for outline in outlines {
            let authority = outline.kind == EnrolmentKind::Authority;
            let entry = Entry::new(
                outline.fingerprint,
                outline.name.clone(),
                outline
                    .grants
                    .as_ref()
                    .map(|set| lock(&self.grants).intern(set)),
                outline.not_after,
                [outline.pinned, outline.revoked, authority],
            );
            write(self.shard(&outline.fingerprint)).put(entry);
        }
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Certificates that a signed CRL on disk names. They stay revoked while this process lives,
    /// whatever the store says.
    pub fn insert_revoked_offline(&self, certificates: impl IntoIterator<Item = Fingerprint>) {
        self.add_offline(|offline| {
            certificates
                .into_iter()
                .fold(false, |new, print| offline.add_certificate(print) | new)
        });
    }

    /// As [`Self::insert_revoked_offline`], by the serials (big-endian bytes) that the CRL of the
    /// issuing certificate `issuer` lists.
    pub fn insert_revoked_serials<'a>(
        &self,
        issuer: Fingerprint,
        serials: impl IntoIterator<Item = &'a [u8]>,
    ) {
        self.add_offline(|offline| {
            serials.into_iter().fold(false, |new, serial| {
                offline.add_serial(issuer, serial) | new
            })
        });
    }

    /// The CRL is read again and again: only what is new is a change.
    fn add_offline(&self, add: impl FnOnce(&mut Offline) -> bool) {
        if add(&mut write(&self.offline)) {
            self.any_offline.store(true, Ordering::Release);
            self.generation.fetch_add(1, Ordering::Release);
        }
    }

    /// Forgets what expired before `before` and is not revoked; answers how many went. They could
    /// not have been admitted.
    pub fn sweep(&self, before: UnixTime) -> usize {
        self.retain(|entry| entry.is_revoked() || entry.not_after() >= before)
    }

    /// Forgets what `present` does not hold and is not revoked: the store was replaced.
    pub(super) fn forget_except(&self, present: &HashSet<Fingerprint>) {
        self.retain(|entry| entry.is_revoked() || present.contains(&entry.fingerprint));
        self.generation.fetch_add(1, Ordering::Release);
    }

    fn retain(&self, keep: impl Fn(&Entry) -> bool) -> usize {
        self.shards
            .0
            .iter()
            .map(|shard| write(shard).retain(&keep))
            .sum()
    }

    pub(super) fn contact_made(&self) {
        self.contact.made();
    }

    pub(super) fn contact_failed(&self, cause: String) {
        self.contact.failed(cause);
    }

    fn shard(&self, fingerprint: &Fingerprint) -> &RwLock<Shard> {
        &self.shards.0[usize::from(fingerprint.as_bytes()[0]) % SHARDS]
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View")
            .field("len", &self.len())
            .field("generation", &self.generation())
            .finish_non_exhaustive()
    }
}

impl Interner {
    fn intern(&mut self, set: &Arc<WrittenGrants>) -> Arc<WrittenGrants> {
        if let Some(known) = self.sets.get(set) {
            return Arc::clone(known);
        }
        if self.sets.len() >= self.sweep_at {
            self.sets.retain(|set| Arc::strong_count(set) > 1);
            self.sweep_at = (self.sets.len() * 2).max(64);
        }
        self.sets.insert(Arc::clone(set));
        Arc::clone(set)
    }
}

// Nothing panics while it holds one of these locks; and if it did, what it holds is still whole.

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outline(number: u8) -> Outline {
        Outline {
            fingerprint: Fingerprint::of_der(&[number]),
            kind: EnrolmentKind::Leaf,
            name: Name::new("spiffe://example.org/agent").expect("a name"),
            grants: None,
            not_after: UnixTime(1000),
            pinned: true,
            revoked: false,
        }
    }

    fn pin(view: &View, number: u8) -> Pin {
        match view.standing(&outline(number).fingerprint) {
            Standing::Pinned(pin) => pin,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_certificate_stands_as_it_was_last_told() {
        let (view, one) = (View::default(), outline(1));
        assert_eq!(view.standing(&one.fingerprint), Standing::Unknown);
        view.apply(std::slice::from_ref(&one));
        let expected = Pin {
            fingerprint: one.fingerprint,
            name: one.name.clone(),
            grants: None,
            not_after: UnixTime(1000),
            delegate: false,
        };
        assert_eq!(pin(&view, 1), expected);
        view.apply(&[Outline {
            kind: EnrolmentKind::Authority,
            ..one.clone()
        }]);
        assert!(pin(&view, 1).delegate);
        view.apply(&[Outline {
            pinned: false,
            ..one.clone()
        }]);
        assert_eq!(view.standing(&one.fingerprint), Standing::Unpinned);
        view.apply(&[Outline {
            revoked: true,
            pinned: false,
            ..one.clone()
        }]);
        assert_eq!(view.standing(&one.fingerprint), Standing::Revoked);
        view.apply(std::slice::from_ref(&one));
        assert_eq!(
            view.standing(&one.fingerprint),
            Standing::Revoked,
            "for good"
        );
        assert_eq!(view.len(), 1);
    }

    #[test]
    fn a_crl_on_disk_counts_beside_the_store() {
        let (view, one, two) = (View::default(), outline(1), outline(2));
        view.apply(&[one.clone(), two.clone()]);
        let before = view.generation();
        view.insert_revoked_offline([one.fingerprint]);
        assert!(view.generation() > before);
        assert_eq!(view.standing(&one.fingerprint), Standing::Revoked);
        view.apply(std::slice::from_ref(&one));
        assert_eq!(view.standing(&one.fingerprint), Standing::Revoked);
        assert!(matches!(
            view.standing(&two.fingerprint),
            Standing::Pinned(_)
        ));

        let issuer = outline(3).fingerprint;
        assert!(!view.is_serial_revoked(&issuer, &[0x80, 1]));
        view.insert_revoked_serials(issuer, [&[0, 0x80, 1][..]]);
        assert!(view.is_serial_revoked(&issuer, &[0x80, 1]));
        assert!(view.is_serial_revoked(&issuer, &[0, 0x80, 1]));
        assert!(
            !view.is_serial_revoked(&one.fingerprint, &[0x80, 1]),
            "another issuer"
        );
        let known = view.generation();
        view.insert_revoked_offline([one.fingerprint]);
        assert_eq!(view.generation(), known, "the same CRL again is no change");
    }

    #[test]
    fn equal_grants_are_kept_once_and_forgotten_when_unused() {
        let view = View::default();
        let with = |number: u8, entry: &str| Outline {
            grants: Some(Arc::new(WrittenGrants::parse(&[entry]).expect("a grant"))),
            ..outline(number)
        };
        view.apply(&[with(1, "tools:*"), with(2, "tools:*")]);
        let [first, second] = [1, 2].map(|number| pin(&view, number).grants.expect("a set"));
        assert!(Arc::ptr_eq(&first, &second));
        for round in 0..1000 {
            view.apply(&[with(3, &format!("tools:tool_{round}"))]);
        }
        assert!(lock(&view.grants).sets.len() < 100);
    }

    #[test]
    fn what_expired_is_forgotten_and_what_was_revoked_is_not() {
        let view = View::default();
        let ended = Outline {
            not_after: UnixTime(99),
            ..outline(1)
        };
        let revoked = Outline {
            revoked: true,
            not_after: UnixTime(99),
            ..outline(2)
        };
        view.apply(&[ended.clone(), revoked.clone(), outline(3)]);
        assert_eq!(view.sweep(UnixTime(100)), 1);
        assert_eq!(view.standing(&ended.fingerprint), Standing::Unknown);
        assert_eq!(view.standing(&revoked.fingerprint), Standing::Revoked);
        assert!(matches!(
            view.standing(&outline(3).fingerprint),
            Standing::Pinned(_)
        ));
    }
}
