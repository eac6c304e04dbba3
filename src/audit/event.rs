//! What is recorded.

use std::time::Duration;

use crate::identity::Fingerprint;
use crate::peer::Peer;

/// What every record of one connection says, encoded once for the connection.
#[derive(Clone, Debug)]
pub struct ConnectionFacts {
    json: std::sync::Arc<[u8]>,
}

impl ConnectionFacts {
    /// `connection`: the server's number for it; `transport`: `raw`, `websocket`, `http`.
    #[must_use]
    pub fn new(peer: &Peer, connection: u64, transport: &'static str) -> Self {
        let _ = (peer, connection, transport);
        todo!()
    }
    #[must_use]
    pub fn json(&self) -> &[u8] {
        &self.json
    }
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Ok,
    ToolError,
    ProtocolError(i64),
    Cancelled,
    ConnectionClosed,
    RateLimited,
}

/// What is recorded besides decisions. Written before the call that it is about returns.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    ServerStarted {
        version: &'a str,
        listen: &'a str,
    },
    ServerStopped {
        reason: &'a str,
    },
    Reloaded {
        what: &'a str,
        error: Option<&'a str>,
    },
    Admitted {
        facts: &'a ConnectionFacts,
        agreed: crate::peer::Agreed,
    },
    Refused {
        address: std::net::SocketAddr,
        reason: &'a str,
        class: &'a str,
        name: Option<&'a str>,
        fingerprint: Option<Fingerprint>,
    },
    Closed {
        facts: &'a ConnectionFacts,
        reason: &'a str,
        lasted: Duration,
    },
    RegistryChanged {
        seq: u64,
        kind: &'a str,
        fingerprint: Fingerprint,
    },
}
