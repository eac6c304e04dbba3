//! The revisions of the protocol that are served.

use std::fmt;

/// A revision, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Revision {
    /// The first; on streams only.
    V2024_11_05,
    /// No batches any more.
    V2025_06_18,
    /// The last with a handshake.
    V2025_11_25,
    /// Stateless: every request says who it is and what it can.
    V2026_07_28,
}

/// The two ways to talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Era {
    /// `initialize` first; up to 2025-11-25.
    Legacy,
    /// `_meta` in every request; 2026-07-28 and later.
    Modern,
}

impl Revision {
    /// Everything that is served on a stream, newest first, as `supportedVersions` lists it.
    pub const SERVED: [Self; 4] = [
        Self::V2026_07_28,
        Self::V2025_11_25,
        Self::V2025_06_18,
        Self::V2024_11_05,
    ];

    /// What `initialize` is answered with when it asks for something that is not served.
    pub const NEWEST_LEGACY: Self = Self::V2025_11_25;

    /// As it is written on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V2024_11_05 => "2024-11-05",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
            Self::V2026_07_28 => "2026-07-28",
        }
    }

    /// The revision of that name, if it is served.
    #[must_use]
    pub fn named(text: &str) -> Option<Self> {
        Self::SERVED
            .into_iter()
            .find(|revision| revision.as_str() == text)
    }

    /// Which way of talking it belongs to.
    #[must_use]
    pub const fn era(self) -> Era {
        match self {
            Self::V2026_07_28 => Era::Modern,
            _ => Era::Legacy,
        }
    }

    /// Whether it is a modern one.
    #[must_use]
    pub const fn is_modern(self) -> bool {
        matches!(self.era(), Era::Modern)
    }

    /// What `initialize` with this `protocolVersion` is answered with.
    #[must_use]
    pub fn negotiate(requested: &str) -> Self {
        match Self::named(requested) {
            Some(revision) if !revision.is_modern() => revision,
            _ => Self::NEWEST_LEGACY,
        }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initialize_gets_what_it_asks_for_or_the_newest_legacy_one() {
        assert_eq!(Revision::negotiate("2025-06-18"), Revision::V2025_06_18);
        assert_eq!(Revision::negotiate("2024-11-05"), Revision::V2024_11_05);
        for other in ["2025-03-26", "2026-07-28", "1999-01-01", ""] {
            assert_eq!(Revision::negotiate(other), Revision::V2025_11_25, "{other}");
        }
    }
}
