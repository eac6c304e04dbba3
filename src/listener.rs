//! Accept loop, permits, deadlines, drain; the index of live connections by fingerprint and issuer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::identity::Fingerprint;
use crate::peer::Peer;
use crate::tls::{Accepted, Refusal, ServerTls};

/// Why a connection is told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    Revoked,
    Unpinned,
    Expired,
    Draining,
}

/// One live connection's end of the index. Dropped with the connection, which takes it out.
pub struct Live {}
impl Live {
    /// The server's number for the connection.
    #[must_use]
    pub fn id(&self) -> u64 {
        todo!()
    }
    /// Ready when the connection must end, with the reason; a second, sterner reason replaces the first
    /// (draining lets calls finish, the others do not).
    pub async fn told_to_close(&self) -> Close {
        todo!()
    }
    /// Without waiting.
    #[must_use]
    pub fn close_reason(&self) -> Option<Close> {
        todo!()
    }
}

/// Every live connection, found by leaf fingerprint or by any issuer above it.
#[derive(Default)]
pub struct LiveIndex {}
impl LiveIndex {
    pub fn register(self: &Arc<Self>, peer: &Peer) -> Live {
        let _ = peer;
        todo!()
    }
    /// Closes exactly the connections whose path holds this fingerprint; returns how many.
    pub fn close(&self, fingerprint: &Fingerprint, why: Close) -> usize {
        let _ = (fingerprint, why);
        todo!()
    }
    /// Tells all; returns how many.
    pub fn close_all(&self, why: Close) -> usize {
        let _ = why;
        todo!()
    }
    #[must_use]
    pub fn len(&self) -> usize {
        0
    }
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// `[listen]`, checked.
#[derive(Clone, Debug)]
pub struct ListenerOptions {
    pub address: Vec<SocketAddr>,
    pub handshake_timeout: Duration,
    pub handshakes: usize,
    pub connections: usize,
    pub connections_per_identity: usize,
    pub backlog: u32,
    pub drain: Duration,
}

/// What the listener hands on and reports to. `server` implements it.
pub trait Door: Send + Sync + 'static {
    /// Serves one admitted connection to its end.
    fn serve(&self, accepted: Accepted, live: Live) -> impl Future<Output = ()> + Send;
    /// Records a refusal (a full house included).
    fn refused(&self, address: SocketAddr, refusal: &Refusal) -> impl Future<Output = ()> + Send;
}

/// Bound and not yet accepting.
pub struct Listener {}
impl Listener {
    /// # Errors
    /// The address is taken or not ours; the message names it.
    pub async fn bind(options: ListenerOptions) -> Result<Self, ListenError> {
        let _ = options;
        todo!()
    }
    #[must_use]
    pub fn local_addresses(&self) -> Vec<SocketAddr> {
        todo!()
    }
    /// Accepts until `stop` is ready, then drains for at most the configured time, then drops the rest.
    pub async fn run<D: Door>(
        self,
        tls: Arc<ServerTls>,
        index: Arc<LiveIndex>,
        door: Arc<D>,
        stop: impl Future<Output = ()> + Send,
    ) {
        let _ = (tls, index, door, stop);
        todo!()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("cannot listen on {address}: {cause}")]
    Bind {
        address: SocketAddr,
        cause: std::io::Error,
    },
}
