//! When the store was last heard of, for a server that must not serve on old knowledge for ever.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::{self, AtomicMoment, UnixTime};

/// The last contact, on both clocks: people are told the one, age is measured by the other.
#[derive(Debug)]
pub(super) struct Contact {
    last: AtomicMoment,
    last_unix: AtomicI64,
    trouble: Mutex<Option<String>>,
}

impl Default for Contact {
    fn default() -> Self {
        Self {
            last: AtomicMoment::of(clock::monotonic()),
            last_unix: AtomicI64::new(clock::unix_now().0),
            trouble: Mutex::new(None),
        }
    }
}

impl Contact {
    pub fn made(&self) {
        self.last.set(clock::monotonic());
        self.last_unix.store(clock::unix_now().0, Ordering::Relaxed);
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub fn failed(&self, cause: String) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(cause);
    }

    pub fn last(&self) -> UnixTime {
        UnixTime(self.last_unix.load(Ordering::Relaxed))
    }

    pub fn age(&self, now: Instant) -> Duration {
        let last = self.last.get().unwrap_or(now);
        now.saturating_duration_since(last)
    }

    pub fn trouble(&self) -> Option<String> {
        self.trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
