//! Who is in the folder, and what was done about whom.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::clock::UnixTime;
use crate::grant::WrittenGrants;
use crate::identity::{Fingerprint, Name};

use super::super::remaining::remaining;

/// A certificate of the folder, ready to use.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// `server`, `operator` or `reader`: also the base of its file names.
    pub role: &'static str,
    /// The name that it gives.
    pub name: Name,
    /// The chain, PEM.
    pub certificate: PathBuf,
    /// The key, PEM, not encrypted.
    pub key: PathBuf,
    /// Of the leaf.
    pub fingerprint: Fingerprint,
    /// From when.
    pub not_before: UnixTime,
    /// Until when.
    pub not_after: UnixTime,
    /// What it may do; empty for the server.
    pub grants: WrittenGrants,
}

impl Member {
    /// `6 d left`.
    #[must_use]
    pub fn remaining(&self, now: UnixTime) -> String {
        remaining(self.not_before, self.not_after, now)
    }
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// It was not there.
    Made,
    /// It had run out or was about to.
    Renewed,
    /// It did not fit together.
    Repaired,
}

/// One thing that was done, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What was done.
    pub verb: Verb,
    /// To what.
    pub what: String,
    /// Why, where that is not plain.
    pub why: Option<String>,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.verb {
            Verb::Made => "made",
            Verb::Renewed => "renewed",
            Verb::Repaired => "made anew",
        };
        match &self.why {
            Some(why) => write!(f, "{verb} {}: {why}", self.what),
            None => write!(f, "{verb} {}", self.what),
        }
    }
}

/// How a member is to be.
pub(super) struct Wanted {
    pub role: &'static str,
    pub profile: &'static str,
    pub grants: &'static [&'static str],
    pub dns: &'static [&'static str],
    pub ips: &'static [&'static str],
    pub ttl: Duration,
}

const DAY: u64 = 86_400;

/// A week for the clients, not their profiles' hours: who tries something out for a few days should
/// not have to begin every one of them with a renewal.
pub(super) const WANTED: [Wanted; 3] = [
    Wanted {
        role: "server",
        profile: "server",
        grants: &[],
        dns: &["localhost"],
        ips: &["127.0.0.1", "::1"],
        ttl: Duration::from_secs(30 * DAY),
    },
    Wanted {
        role: "operator",
        profile: "operator",
        grants: &["*", "admin:*"],
        dns: &[],
        ips: &[],
        ttl: Duration::from_secs(7 * DAY),
    },
    Wanted {
        role: "reader",
        profile: "agent",
        grants: &[
            "tools:files__list_directory",
            "tools:files__read_file",
            "tools:files__search_files",
            "tools:files__file_info",
            "tools:self__whoami",
            "resources:*",
            "prompts:*",
        ],
        dns: &[],
        ips: &[],
        ttl: Duration::from_secs(7 * DAY),
    },
];
