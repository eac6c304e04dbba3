//! How a session ends: why, in words for the audit log, and what the peer is told.

use std::io;

use crate::listener::{Close, Live};
use crate::peer::Peer;
use crate::tls::{Class, Refusal};
use crate::transport::{Goodbye, WireError};

/// How a session ended.
#[derive(Debug)]
pub enum End {
    /// The peer closed its side, and everything was answered.
    Closed,
    /// The server told it to.
    Told(Close),
    /// The peer broke the protocol beyond repair: a message over the limit.
    TooLong,
    /// The peer broke the rules of its transport.
    Violation,
    /// The peer did not read what was sent to it.
    Unread,
    /// The peer said nothing for longer than it may.
    Idle,
    /// The peer took too long over a request.
    Slow,
    /// The peer broke HTTP, or gave up request after request.
    Unruly,
    /// The connection broke.
    Broken(io::Error),
}

impl End {
    /// The reason for the audit log.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Closed => "closed by the peer",
            Self::Told(Close::Revoked) => "revoked",
            Self::Told(Close::Unpinned) => "unpinned",
            Self::Told(Close::Expired) => "expired",
            Self::Told(Close::Draining) => "server stopping",
            Self::TooLong => "message over the limit",
            Self::Violation => "transport rules broken",
            Self::Unread => "answers left unread",
            Self::Idle => "idle",
            Self::Slow => "request too slow",
            Self::Unruly => "protocol broken",
            Self::Broken(_) => "connection broken",
        }
    }

    /// What the peer is told. A certificate's end is told as a TLS alert would tell it.
    pub(super) const fn goodbye(&self) -> Goodbye {
        match self {
            Self::Told(Close::Revoked) => Goodbye::Refused("the certificate was revoked"),
            Self::Told(Close::Expired) => Goodbye::Refused("the certificate has expired"),
            Self::Told(Close::Unpinned) => Goodbye::Refused("not admitted any more"),
            Self::Unread => Goodbye::Refused("answers were left unread"),
            Self::Told(Close::Draining) | Self::Idle | Self::Broken(_) => Goodbye::GoingAway,
            _ => Goodbye::Done,
        }
    }
}

impl From<WireError> for End {
    fn from(error: WireError) -> Self {
        match error {
            WireError::TooLong { .. } => Self::TooLong,
            WireError::Violation(_) => Self::Violation,
            WireError::Closed => Self::Closed,
            WireError::Dead => Self::Broken(io::ErrorKind::TimedOut.into()),
            WireError::Io(error) => Self::Broken(error),
        }
    }
}

/// A peer that may no longer stay, found by looking before it was told.
pub(super) fn gone(peer: &Peer, live: &Live, refusal: &Refusal) -> End {
    tracing::info!(name = %peer.name(), %refusal, "may no longer stay");
    let seen = match refusal.class {
        Class::Revoked => Close::Revoked,
        Class::Expired => Close::Expired,
        _ => Close::Unpinned,
    };
    End::Told(live.close_reason().map_or(seen, |told| told.max(seen)))
}
