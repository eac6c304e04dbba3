//! When the store was last heard of, for a server that must not serve on old knowledge for ever.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::{self, UnixTime};

/// The last contact, on both clocks: people are told the one, age is measured by the other.
#[derive(Debug)]
pub(super) struct Contact {
    began: Instant,
    /// Milliseconds after `began`.
    last: AtomicU64,
    last_unix: AtomicI64,
    trouble: Mutex<Option<String>>,
}

impl Default for Contact {
    fn default() -> Self {
        Self {
            began: clock::monotonic(),
            last: AtomicU64::new(0),
            last_unix: AtomicI64::new(clock::unix_now().0),
            trouble: Mutex::new(None),
        }
    }
}

impl Contact {
    fn elapsed(&self) -> Duration {
        clock::monotonic().saturating_duration_since(self.began)
    }

    pub fn made(&self) {
        let elapsed = u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(elapsed, Ordering::Relaxed);
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
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        now.saturating_duration_since(self.began)
            .saturating_sub(last)
    }

    pub fn trouble(&self) -> Option<String> {
        self.trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
