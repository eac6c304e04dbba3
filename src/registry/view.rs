//! The registry in a server's memory: what admission and every decision look at.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use crate::clock::UnixTime;
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
        self.contact.age()
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
