//! A part of the view: entries side by side, and an index of four bytes each into them.
//!
//! A plain map of fingerprint to entry would be up to half empty, and its empty half as large as
//! its full one. Here only the index has gaps.

use std::sync::Arc;

use hashbrown::HashTable;

use crate::clock::UnixTime;
use crate::grant::WrittenGrants;
use crate::identity::{Fingerprint, Name};

/// Entries to an allocation: 16 KiB, so that growth neither copies nor doubles.
const CHUNK: usize = 256;

const PINNED: u8 = 1;
const REVOKED: u8 = 2;
const AUTHORITY: u8 = 4;

/// One certificate, in 64 bytes and its name.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub fingerprint: Fingerprint,
    pub name: Name,
    pub grants: Option<Arc<WrittenGrants>>,
    /// `not_after` in the upper 61 bits, the flags in the lower three.
    stamp: i64,
}

impl Entry {
    pub fn new(
        fingerprint: Fingerprint,
        name: Name,
        grants: Option<Arc<WrittenGrants>>,
        not_after: UnixTime,
        [pinned, revoked, authority]: [bool; 3],
    ) -> Self {
        let flag = |on: bool, bit: u8| if on { i64::from(bit) } else { 0 };
        let flags = flag(pinned, PINNED) | flag(revoked, REVOKED) | flag(authority, AUTHORITY);
        // Nothing ends later than the year 9999, and a certificate of before the epoch is expired
        // whichever second of it is remembered.
        let end = not_after.0.clamp(0, UnixTime::MAX.0);
        Self {
            fingerprint,
            name,
            grants,
            stamp: end << 3 | flags,
        }
    }

    pub const fn not_after(&self) -> UnixTime {
        UnixTime(self.stamp >> 3)
    }

    pub const fn is_pinned(&self) -> bool {
        self.stamp & PINNED as i64 != 0
    }

    pub const fn is_revoked(&self) -> bool {
        self.stamp & REVOKED as i64 != 0
    }

    pub const fn is_authority(&self) -> bool {
        self.stamp & AUTHORITY as i64 != 0
    }
}

/// Some of the entries. The caller chooses the shard by the first byte of the fingerprint, so the
/// index hashes by others. SHA-256 spreads well enough to be its own hash, and only an operator's
/// enrolments are ever in here, so there is nobody to defend against.
#[derive(Debug, Default)]
pub(super) struct Shard {
    index: HashTable<u32>,
    chunks: Vec<Vec<Entry>>,
}

impl Shard {
    pub fn len(&self) -> usize {
        self.index.len()
    }

    pub fn get(&self, fingerprint: &Fingerprint) -> Option<&Entry> {
        let at = *self.index.find(hash(fingerprint), |at| {
            entry(&self.chunks, *at).fingerprint == *fingerprint
        })?;
        Some(entry(&self.chunks, at))
    }

    /// Takes the entry in. One that is revoked stays revoked whatever the new one says.
    pub fn put(&mut self, mut new: Entry) {
        let Self { index, chunks } = self;
        let found = index
            .find(hash(&new.fingerprint), |at| {
                entry(chunks, *at).fingerprint == new.fingerprint
            })
            .copied();
        if let Some(at) = found {
            let old = &mut chunks[at as usize / CHUNK][at as usize % CHUNK];
            if old.is_revoked() {
                new.stamp |= i64::from(REVOKED);
            }
            if old.name == new.name {
                new.name = old.name.clone();
            }
            *old = new;
            return;
        }
        // Four thousand million certificates would fill the memory long before the index.
        let Ok(at) = u32::try_from(index.len()) else {
            return;
        };
        let hashed = hash(&new.fingerprint);
        match chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK => chunk.push(new),
            _ => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push(new);
                chunks.push(chunk);
            }
        }
        index.insert_unique(hashed, at, |at| hash(&entry(chunks, *at).fingerprint));
    }

    /// Drops the entries that `keep` does not want; answers how many went.
    pub fn retain(&mut self, keep: impl Fn(&Entry) -> bool) -> usize {
        let entries = || self.chunks.iter().flatten();
        let going = entries().filter(|entry| !keep(entry)).count();
        if going > 0 {
            let mut kept = Self::default();
            for entry in std::mem::take(&mut self.chunks).into_iter().flatten() {
                if keep(&entry) {
                    kept.put(entry);
                }
            }
            *self = kept;
        }
        going
    }
}

fn entry(chunks: &[Vec<Entry>], at: u32) -> &Entry {
    &chunks[at as usize / CHUNK][at as usize % CHUNK]
}

fn hash(fingerprint: &Fingerprint) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&fingerprint.as_bytes()[8..16]);
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(number: u32, flags: [bool; 3]) -> Entry {
        let print = Fingerprint::of_der(&number.to_le_bytes());
        let name = Name::new(&format!("spiffe://example.org/{number}")).expect("a name");
        Entry::new(print, name, None, UnixTime(i64::from(number)), flags)
    }

    #[test]
    fn an_entry_is_64_bytes_and_keeps_what_it_was_given() {
        assert_eq!(size_of::<Entry>(), 64);
        for flags in 0..8_u8 {
            let [pinned, revoked, authority] = [1, 2, 4].map(|bit| flags & bit != 0);
            let entry = made(1_900_000_000, [pinned, revoked, authority]);
            assert_eq!(entry.not_after(), UnixTime(1_900_000_000));
            assert_eq!(entry.is_pinned(), pinned);
            assert_eq!(entry.is_revoked(), revoked);
            assert_eq!(entry.is_authority(), authority);
        }
        let name = Name::new("n").expect("a name");
        let endless = Entry::new(
            Fingerprint::of_der(b""),
            name,
            None,
            UnixTime(i64::MAX),
            [true, false, false],
        );
        assert_eq!(endless.not_after(), UnixTime::MAX);
    }

    #[test]
    fn thousands_are_found_again_and_swept_by_choice() {
        let mut shard = Shard::default();
        for number in 0..5000 {
            shard.put(made(number, [true, number % 7 == 0, false]));
        }
        for number in 0..5000 {
            shard.put(made(number, [false; 3]));
        }
        assert_eq!(shard.len(), 5000);
        for number in 0..5000 {
            let entry = shard
                .get(&made(number, [false; 3]).fingerprint)
                .expect("put before");
            assert_eq!(entry.not_after(), UnixTime(i64::from(number)));
            assert_eq!(entry.is_revoked(), number % 7 == 0, "a revocation is final");
            assert!(!entry.is_pinned());
        }
        assert_eq!(
            shard.retain(|entry| entry.not_after() >= UnixTime(1000)),
            1000
        );
        assert_eq!(shard.len(), 4000);
        assert!(shard.get(&made(999, [false; 3]).fingerprint).is_none());
        assert!(shard.get(&made(1000, [false; 3]).fingerprint).is_some());
        assert_eq!(shard.retain(|_| true), 0);
    }
}
