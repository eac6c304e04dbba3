//! The numbers that bound one connection and one identity.

use std::time::Duration;

/// `[limits]`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one message; a connection may hold this much for a message that is coming in.
    pub max_message_bytes: usize,
    /// Levels of nesting of one message, the envelope counted.
    pub max_depth: usize,
    /// Calls that run at once on one connection; further ones wait, then the reading stops.
    pub in_flight_per_connection: usize,
    /// Calls that run at once for one identity, over all its connections; further ones are refused.
    pub in_flight_per_identity: usize,
    /// Resources that one connection may watch, over all its subscriptions.
    pub subscriptions_per_connection: usize,
    /// `tools/call` and `completion/complete` a second of one identity; none is no limit.
    pub calls_per_second: Option<u32>,
    /// Calls that may come at once after a pause, where `calls_per_second` is set.
    pub burst: u32,
    /// How long a peer may leave what is sent to it unread before the connection is closed.
    pub write_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_message_bytes: 4 * 1024 * 1024,
            max_depth: 64,
            in_flight_per_connection: 64,
            in_flight_per_identity: 256,
            subscriptions_per_connection: 256,
            calls_per_second: None,
            burst: 100,
            write_timeout: Duration::from_secs(60),
        }
    }
}
