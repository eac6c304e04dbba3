//! Time left, as people say it.

use crate::clock::UnixTime;

/// `23 h left`, `expired 3 d ago`, `valid in 5 min`: one unit, rounded down.
#[must_use]
pub fn remaining(not_before: UnixTime, not_after: UnixTime, now: UnixTime) -> String {
    if now < not_before {
        return format!("valid in {}", span(not_before.0 - now.0));
    }
    if now > not_after {
        return format!("expired {} ago", span(now.0 - not_after.0));
    }
    format!("{} left", span(not_after.0 - now.0))
}

fn span(seconds: i64) -> String {
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3600),
        172_800..63_072_000 => format!("{} d", seconds / 86_400),
        _ => format!("{} y", seconds / 31_557_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_it_as_people_do() {
        let said = |from, to| remaining(UnixTime(from), UnixTime(to), UnixTime(1_000_000_000));
        let now = 1_000_000_000;
        assert_eq!(said(0, now + 23 * 3600 + 59), "23 h left");
        assert_eq!(said(0, now + 30 * 86_400), "30 d left");
        assert_eq!(said(0, now + 10 * 31_557_600), "10 y left");
        assert_eq!(said(0, now + 119), "119 s left");
        assert_eq!(said(0, now), "0 s left");
        assert_eq!(said(0, now - 3 * 86_400), "expired 3 d ago");
        assert_eq!(said(now + 300, now + 400), "valid in 5 min");
    }
}
