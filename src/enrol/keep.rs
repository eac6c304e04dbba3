//! Renewing for as long as a process lives.

use std::convert::Infallible;
use std::time::Duration;

use super::error::EnrolError;
use super::files::CertFiles;
use super::renew::{LONGEST_WAIT, due_at, renew};
use crate::cert::{DEFAULT_PERMISSION_OID, Parsed, load_chain};
use crate::clock::{UnixTime, unix_now};

/// After the first failure; it doubles with each.
const FIRST_TRY: Duration = Duration::from_secs(15);
/// Between two looks, at least…
const SHORTEST_STEP: Duration = Duration::from_secs(1);
/// …and at most.
const LONGEST_STEP: Duration = Duration::from_secs(60);

/// Renews the certificate of these files whenever it is due. `tell` hears of each that succeeded
/// (`Ok` with its end) or failed, once for each try.
pub async fn keep(
    files: CertFiles,
    mut tell: impl FnMut(Result<UnixTime, &EnrolError>) + Send,
) -> Infallible {
    let mut failures = 0;
    loop {
        let wait = match standing(&files) {
            Some((due, end)) if failures > 0 => next_try(failures, due, end, unix_now()),
            Some((due, _)) => due.since(unix_now()),
            None => LONGEST_WAIT,
        };
        // In steps: a machine that slept, or whose clock was set, is not late for long.
        tokio::time::sleep(wait.clamp(SHORTEST_STEP, LONGEST_STEP)).await;
        if wait > LONGEST_STEP || !files.renews() {
            continue;
        }
        match renew(&files, false, unix_now()).await {
            Ok(Some(renewed)) => {
                failures = 0;
                tell(Ok(renewed.not_after));
            }
            Ok(None) => failures = 0,
            // It will have been renewed when this looks again.
            Err(EnrolError::Busy(_)) => tokio::time::sleep(Duration::from_secs(1)).await,
            Err(error) => {
                failures += 1;
                tell(Err(&error));
            }
        }
    }
}

/// How long to wait after `failures` of them: longer each time, and never so long that what is left
/// of the certificate's life would go by with less than eight tries.
#[must_use]
pub fn next_try(failures: u32, due: UnixTime, end: UnixTime, now: UnixTime) -> Duration {
    let grown = FIRST_TRY.saturating_mul(1 << failures.saturating_sub(1).min(10));
    let left = end.since(now.max(due)) / 8;
    grown
        .min(LONGEST_WAIT)
        .min(left)
        .max(Duration::from_secs(2))
}

/// When what is there is due, and when it ends.
fn standing(files: &CertFiles) -> Option<(UnixTime, UnixTime)> {
    let chain = load_chain(&files.cert).ok()?;
    let leaf = Parsed::from_der(&chain[0], DEFAULT_PERMISSION_OID).ok()?;
    let due = due_at(leaf.not_before, leaf.not_after, &leaf.fingerprint);
    Some((due, leaf.not_after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_come_slower_and_never_too_slow_for_the_end() {
        let (due, end) = (UnixTime(57_600), UnixTime(86_400));
        let waits: Vec<u64> = (1..=12)
            .map(|failures| next_try(failures, due, end, due).as_secs())
            .collect();
        assert_eq!(waits[..4], [15, 30, 60, 120]);
        assert!(waits.iter().all(|wait| *wait <= 3600));
        let near = UnixTime(86_400 - 80);
        assert_eq!(next_try(12, due, end, near).as_secs(), 10);
        assert_eq!(next_try(12, due, end, UnixTime(90_000)).as_secs(), 2);
    }
}
