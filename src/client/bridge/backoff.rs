//! How long to wait before the next attempt.

use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};

/// Doubling waits with jitter, so that many bridges do not come back in one instant.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    attempt: u32,
}

impl Backoff {
    /// `first`: the first wait's upper bound; `longest`: that of every later one.
    #[must_use]
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            attempt: 0,
        }
    }

    /// Half to the whole of a bound that doubles from attempt to attempt.
    pub fn next_wait(&mut self) -> Duration {
        let bound = self
            .first
            .saturating_mul(1 << self.attempt.min(16))
            .min(self.longest);
        self.attempt = self.attempt.saturating_add(1);
        let mut random = [0; 2];
        // Without randomness the wait is the whole bound: later, never sooner.
        if SystemRandom::new().fill(&mut random).is_err() {
            return bound;
        }
        bound / 2 + (bound / 2).mul_f64(f64::from(u16::from_be_bytes(random)) / f64::from(u16::MAX))
    }

    /// Begins anew: the server has spoken.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }
}

impl Default for Backoff {
    /// 100 ms doubling to 5 s.
    fn default() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(5))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_its_bound_and_begins_anew() {
        let mut backoff = Backoff::default();
        let mut bound = Duration::from_millis(100);
        for _ in 0..40 {
            let wait = backoff.next_wait();
            assert!(wait >= bound / 2 && wait <= bound, "{wait:?} {bound:?}");
            bound = (bound * 2).min(Duration::from_secs(5));
        }
        backoff.reset();
        assert!(backoff.next_wait() <= Duration::from_millis(100));
    }
}
