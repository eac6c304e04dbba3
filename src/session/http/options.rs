//! Bounds and rules of the HTTP transport, as plain values.

use std::time::Duration;

/// `[http]`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpOptions {
    /// Whether HTTP is spoken at all.
    pub enabled: bool,
    /// The path of the MCP endpoint.
    pub path: String,
    /// `Origin`s that may ask, lower case: `https://app.example.com`.
    pub allowed_origins: Vec<String>,
    /// Hosts that requests may name, lower case, with or without a port; none: any.
    pub allowed_hosts: Vec<String>,
    /// How long a session of an older revision lives without a request or an open stream.
    pub session_idle: Duration,
    /// Sessions of one identity at once; one more ends the one that rested longest.
    pub sessions_per_identity: usize,
    /// Bytes of events that one session keeps for a client that comes back.
    pub event_store_bytes: usize,
    /// How long a stream is quiet before a comment keeps it open, and how long an answer may be
    /// under way before its stream begins.
    pub keep_alive: Duration,
    /// How long the rest of a request's head may take.
    pub head_timeout: Duration,
    /// How long a request's body may take.
    pub body_timeout: Duration,
    /// What a client is told to wait before it comes back to a stream.
    pub retry: Duration,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            enabled: true,
            path: String::from("/mcp"),
            allowed_origins: Vec::new(),
            allowed_hosts: Vec::new(),
            session_idle: Duration::from_secs(1800),
            sessions_per_identity: 64,
            event_store_bytes: 256 * 1024,
            keep_alive: Duration::from_secs(15),
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            retry: Duration::from_secs(1),
        }
    }
}
