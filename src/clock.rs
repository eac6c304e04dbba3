//! The only caller of "now". Everything else is given the time, so that a test can choose it.

use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

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
