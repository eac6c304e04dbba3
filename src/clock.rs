//! The only caller of "now". Everything else is given the time, so that a test can choose it.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

mod alarm;

pub use alarm::Alarm;

/// Seconds since the Unix epoch, as certificates and the registry count them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixTime(pub i64);

impl UnixTime {
    /// The furthest time that is ever written: 9999-12-31T23:59:59Z, RFC 5280's "no end".
    pub const MAX: Self = Self(253_402_300_799);

    /// This time and `after` later; saturates.
    #[must_use]
    pub fn plus(self, after: Duration) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(after.as_secs()).unwrap_or(i64::MAX)),
        )
    }

    /// The span from `now` to this time; zero when it has passed.
    #[must_use]
    pub fn since(self, now: Self) -> Duration {
        Duration::from_secs(u64::try_from(self.0.saturating_sub(now.0)).unwrap_or(0))
    }
}

impl fmt::Display for UnixTime {
    /// RFC 3339 in UTC, whole seconds: `2026-11-21T01:47:23Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match OffsetDateTime::from_unix_timestamp(self.0).map(|t| t.format(&Rfc3339)) {
            Ok(Ok(text)) => f.write_str(&text),
            _ => write!(f, "@{}", self.0),
        }
    }
}

/// Now, in whole seconds since the Unix epoch.
#[must_use]
pub fn unix_now() -> UnixTime {
    UnixTime(i64::try_from(since_epoch().as_secs()).unwrap_or(i64::MAX))
}

/// Now as the span since the Unix epoch, with the system's full resolution. The audit log uses it.
#[must_use]
pub fn since_epoch() -> Duration {
    #[expect(
        clippy::disallowed_methods,
        reason = "this module is the one caller of now"
    )]
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// Now on the monotonic clock, for durations.
#[must_use]
pub fn monotonic() -> Instant {
    #[expect(
        clippy::disallowed_methods,
        reason = "this module is the one caller of now"
    )]
    Instant::now()
}

/// What [`AtomicMoment`] counts from: the first time that one was set.
static BEGAN: OnceLock<Instant> = OnceLock::new();

/// A moment, or none, that several tasks set and read without a lock. To the nanosecond, for 584 years.
/// Relaxed: it says when, and not that something else has happened.
#[derive(Debug, Default)]
pub struct AtomicMoment(AtomicU64);

impl AtomicMoment {
    /// No moment yet.
    #[must_use]
    pub const fn never() -> Self {
        Self(AtomicU64::new(0))
    }

    /// This moment.
    #[must_use]
    pub fn of(moment: Instant) -> Self {
        let new = Self::never();
        new.set(moment);
        new
    }

    /// It is this moment now. One from before the first that was ever set counts as that one.
    pub fn set(&self, moment: Instant) {
        let began = *BEGAN.get_or_init(|| moment);
        let nanos = moment.saturating_duration_since(began).as_nanos();
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX - 1);
        self.0.store(nanos.saturating_add(1), Ordering::Relaxed);
    }

    /// It is what another one is.
    pub fn set_as(&self, other: &Self) {
        self.0
            .store(other.0.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// It is none.
    pub fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// Whether there is one.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }

    /// The moment.
    #[must_use]
    pub fn get(&self) -> Option<Instant> {
        let nanos = self.0.load(Ordering::Relaxed).checked_sub(1)?;
        Some(*BEGAN.get()? + Duration::from_nanos(nanos))
    }
}

/// How old a look at the system's clock may be for [`TimeOfDay`] to reckon from it.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Reckons the time of day of moments that the monotonic clock told, so that who has the moment need
/// not ask the system for its time as well. A clock that is set or slewed is followed: the system's is
/// looked at again after [`LOOK_AGAIN`].
#[derive(Debug, Default)]
pub struct TimeOfDay {
    seen: Option<Seen>,
}

/// A look at both clocks, and the last moment that was asked for since.
#[derive(Clone, Copy, Debug)]
struct Seen {
    moment: Instant,
    time: Duration,
    last: Instant,
}

impl TimeOfDay {
    /// The span since the Unix epoch at `moment`, which was now. Moments of several threads may come out
    /// of order: one that lies before another that was asked for already counts as that one, so that only
    /// the system's clock itself can make a later answer the smaller one.
    pub fn at(&mut self, moment: Instant) -> Duration {
        match &mut self.seen {
            Some(seen) if moment.saturating_duration_since(seen.moment) < LOOK_AGAIN => {
                seen.last = seen.last.max(moment);
                seen.time + seen.last.saturating_duration_since(seen.moment)
            }
            _ => {
                let (now, time) = (monotonic(), since_epoch());
                self.seen = Some(Seen {
                    moment: now,
                    time,
                    last: now,
                });
                time
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_day_is_the_systems_and_stays_in_order() {
        let mut times = TimeOfDay::default();
        let mut before = Duration::ZERO;
        for _ in 0..1_000 {
            let (early, moment, late) = (since_epoch(), monotonic(), since_epoch());
            let time = times.at(moment);
            // A microsecond each way for the two clocks, which are read one after the other.
            let slack = Duration::from_micros(200);
            assert!(time + slack >= early, "{time:?} {early:?}");
            assert!(time <= late + slack, "{time:?} {late:?}");
            assert!(time >= before);
            before = time;
        }
        // A moment that another thread took earlier and asks for later.
        let moment = monotonic();
        let time = times.at(moment);
        assert!(times.at(moment.checked_sub(Duration::from_micros(50)).unwrap()) >= time);
    }

    #[test]
    fn a_moment_is_kept_exactly() {
        let kept = AtomicMoment::never();
        assert_eq!((kept.is_set(), kept.get()), (false, None));
        let first = monotonic();
        for after in [0, 1, 999, 1_000_000_007, 86_400_000_000_000] {
            let moment = first + Duration::from_nanos(after);
            kept.set(moment);
            assert_eq!((kept.is_set(), kept.get()), (true, Some(moment)));
        }
        let other = AtomicMoment::of(first);
        kept.set_as(&other);
        assert_eq!(kept.get(), Some(first));
        kept.clear();
        assert_eq!(kept.get(), None);
        // None can lie before what all are counted from.
        let early = first.checked_sub(Duration::from_nanos(1)).unwrap();
        kept.set(early);
        assert!(kept.get().unwrap() <= first);
    }

    #[test]
    fn a_clock_that_was_set_is_followed() {
        let moment = monotonic();
        let wrong = Duration::from_secs(7);
        let mut times = TimeOfDay {
            seen: Some(Seen {
                moment,
                time: wrong,
                last: moment,
            }),
        };
        assert_eq!(times.at(moment), wrong);
        let later = moment + Duration::from_micros(900);
        assert_eq!(times.at(later), wrong + Duration::from_micros(900));
        assert!(times.at(moment + LOOK_AGAIN) > Duration::from_secs(1_000_000));
    }
}
