//! Bounds of one connection and of one identity, as plain numbers.

use std::time::Duration;

/// `[limits]`, checked. Every bound is on purpose finite; the defaults are those of the
/// configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest message, in bytes.
    pub max_message_bytes: usize,
    /// The deepest nesting of arrays and objects in a message.
    pub max_depth: usize,
    /// Requests of one connection that are served at once.
    pub in_flight_per_connection: usize,
    /// Requests of one identity that are served at once, over all its connections.
    pub in_flight_per_identity: usize,
    /// Resource subscriptions of one connection.
    pub subscriptions_per_connection: usize,
    /// Resource subscriptions of one identity, over all its connections.
    pub subscriptions_per_identity: usize,
    /// Elements of one page of a list.
    pub page_size: usize,
    /// Calls of one identity each second, on average; none: no limit.
    pub calls_per_second: Option<u32>,
    /// Calls of one identity that may come at once before the average counts.
    pub burst: u32,
    /// How long the first byte may take after the handshake.
    pub first_byte_timeout: Duration,
    /// How long a connection with nothing in flight and no subscription stays open; none: for good.
    pub idle_timeout: Option<Duration>,
    /// How long a write may wait for a peer that does not read.
    pub write_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_message_bytes: 4 << 20,
            max_depth: 64,
            in_flight_per_connection: 64,
            in_flight_per_identity: 256,
            subscriptions_per_connection: 256,
            subscriptions_per_identity: 1024,
            page_size: 100,
            calls_per_second: None,
            burst: 100,
            first_byte_timeout: Duration::from_secs(60),
            idle_timeout: None,
            write_timeout: Duration::from_secs(30),
        }
    }
}
