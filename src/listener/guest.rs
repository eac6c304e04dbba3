//! One connection from accept to its end: handshake under a deadline, its place in the index, the
//! door.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::accept::{Door, ListenerOptions};
use super::live::{Live, LiveIndex};
use crate::clock;
use crate::tls::{Accepted, Class, Refusal, ServerTls};

/// What all connections share.
pub(super) struct House<D> {
    tls: Arc<ServerTls>,
    index: Arc<LiveIndex>,
    door: Arc<D>,
    connections: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
    handshake_timeout: Duration,
    per_identity: usize,
}

/// The right to be here, and the right to be in a handshake meanwhile.
pub(super) struct Places {
    connection: OwnedSemaphorePermit,
    handshake: OwnedSemaphorePermit,
}

impl<D: Door> House<D> {
    pub(super) fn new(
        tls: Arc<ServerTls>,
        index: Arc<LiveIndex>,
        door: Arc<D>,
        options: &ListenerOptions,
    ) -> Self {
        let places = |count: usize| Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)));
        Self {
            tls,
            index,
            door,
            connections: places(options.connections),
            handshakes: places(options.handshakes),
            handshake_timeout: options.handshake_timeout,
            per_identity: options.connections_per_identity,
        }
    }

    /// Waits until there is room for one more connection and one more handshake.
    pub(super) async fn places(&self) -> Places {
        let take = |of: &Arc<Semaphore>| of.clone().acquire_owned();
        Places {
            connection: take(&self.connections)
                .await
                .expect("nobody closes this semaphore"),
            handshake: take(&self.handshakes)
                .await
                .expect("nobody closes this semaphore"),
        }
    }

    /// The whole life of one connection.
    pub(super) async fn host(self: Arc<Self>, tcp: TcpStream, address: SocketAddr, places: Places) {
        let Places {
            connection,
            handshake,
        } = places;
        // The handshake's state is large and lives shortly: on the heap, not in the task, which
        // lives as long as the connection.
        let admitted = Box::pin(self.admit(tcp, address, handshake)).await;
        if let Some((accepted, live)) = admitted {
            self.door.serve(accepted, live).await;
        }
        drop(connection);
    }

    async fn admit(
        &self,
        tcp: TcpStream,
        address: SocketAddr,
        handshake: OwnedSemaphorePermit,
    ) -> Option<(Accepted, Live)> {
        // A socket that cannot do this is slower, not wrong.
        let _ = tcp.set_nodelay(true);
        let within = tokio::time::timeout(self.handshake_timeout, self.tls.accept(tcp, address));
        let admitted = match within.await {
            Ok(Ok(accepted)) => self.register(&accepted).map(|live| (accepted, live)),
            Ok(Err(refusal)) => Err(refusal),
            Err(_) => {
                let limit = self.handshake_timeout;
                let reason = format!("the handshake was not over after {limit:?}");
                Err(Refusal::new(Class::Timeout, reason))
            }
        };
        drop(handshake);
        match admitted {
            Ok(admitted) => Some(admitted),
            Err(refusal) => {
                self.door.refused(address, &refusal).await;
                None
            }
        }
    }

    /// Into the index first, then one more look: a revocation that was applied after admission has
    /// either found the connection in the index, or is seen now.
    fn register(&self, accepted: &Accepted) -> Result<Live, Refusal> {
        let peer = &accepted.peer;
        let Some(live) = self.index.register_within(peer, self.per_identity) else {
            let (name, most) = (peer.name(), self.per_identity);
            let reason = format!("`{name}` has {most} connections already, which is the limit");
            let refusal = Refusal::new(Class::AccessDenied, reason);
            return Err(refusal.of(peer.fingerprint()).named(name.as_str()));
        };
        self.tls.trust().recheck(peer, clock::unix_now())?;
        Ok(live)
    }
}
