//! One connection from accept to its end: handshake under a deadline, its place in the index, the
//! door.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::OptionFuture;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::accept::{Door, ListenerOptions};
use super::live::{Live, LiveIndex};
use super::parting::Stream;
use crate::clock;
use crate::peer::Peer;
use crate::tls::{Accepted, Class, Refusal, ServerTls};

/// A connection that was let in.
pub struct Guest {
    /// Who.
    pub peer: Peer,
    /// The connection.
    pub stream: Stream,
    /// What ALPN agreed on, if it did.
    pub alpn: Option<Vec<u8>>,
}

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

    /// Whether a handshake may have to wait for its signature.
    pub(super) fn handshakes_wait(&self) -> bool {
        self.tls.waits()
    }

    /// The whole life of one connection.
    pub(super) async fn host(self: Arc<Self>, tcp: TcpStream, address: SocketAddr, places: Places) {
        // The task lives as long as the connection, so what it holds is paid for by each. The
        // handshake's state is large and lives shortly: it goes to the heap and away. What comes of
        // it is boxed, and made into the door's future outside of this one, which would otherwise
        // keep a slot for the session beside the door's own.
        let admitted = Box::pin(self.admit(tcp, address, places)).await;
        let serve = |admitted: Box<(Guest, Live)>| {
            let (guest, live) = *admitted;
            self.door.serve(guest, live)
        };
        OptionFuture::from(admitted.map(serve)).await;
    }

    async fn admit(
        &self,
        tcp: TcpStream,
        address: SocketAddr,
        places: Places,
    ) -> Option<Box<(Guest, Live)>> {
        let Places {
            connection,
            handshake,
        } = places;
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
            Ok((accepted, live)) => {
                let guest = Guest {
                    peer: accepted.peer,
                    stream: live.stream(accepted.stream, connection),
                    alpn: accepted.alpn,
                };
                Some(Box::new((guest, live)))
            }
            Err(refusal) => {
                self.door.refused(address, &refusal).await;
                None
            }
        }
    }

    fn register(&self, accepted: &Accepted) -> Result<Live, Refusal> {
        let trust = self.tls.trust();
        register(&self.index, &accepted.peer, self.per_identity, |peer| {
            trust.recheck(peer, clock::unix_now()).map(drop)
        })
    }
}

/// Into the index first, then one more look: a revocation that was applied after admission has
/// either found the connection in the index, or is seen now.
fn register(
    index: &Arc<LiveIndex>,
    peer: &Peer,
    most: usize,
    look_again: impl FnOnce(&Peer) -> Result<(), Refusal>,
) -> Result<Live, Refusal> {
    let Some(live) = index.register_within(peer, most) else {
        let name = peer.name();
        let reason = format!("`{name}` has {most} connections already, which is the limit");
        let refusal = Refusal::new(Class::AccessDenied, reason);
        return Err(refusal.of(peer.fingerprint()).named(name.as_str()));
    };
    look_again(peer)?;
    Ok(live)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixTime;
    use crate::identity::{Fingerprint, Name};
    use crate::listener::Close;
    use crate::peer::{Agreed, Chain, Mode};

    fn peer() -> Peer {
        let chain = Chain {
            name: Name::new("a").unwrap(),
            fingerprint: Fingerprint::of_der(b"a"),
            serial: String::from("01"),
            issuers: Vec::new(),
            anchor: "ours".into(),
            mode: Mode::Pinned,
            not_before: UnixTime(0),
            not_after: UnixTime::MAX,
            layers: Vec::new(),
            leaf_carries_grants: true,
        };
        let agreed = Agreed {
            version: "TLSv1.3",
            suite: "",
            group: "",
            resumed: false,
        };
        Peer::admitted(
            Arc::new(chain),
            agreed,
            SocketAddr::from(([127, 0, 0, 1], 1)),
        )
    }

    #[test]
    fn a_revocation_is_seen_before_or_after_registration() {
        let (index, peer) = (Arc::<LiveIndex>::default(), peer());
        let before = register(&index, &peer, 1, |_| Ok(())).unwrap();
        assert_eq!(before.close_reason(), None);
        drop(before);
        // Applied after admission: the second look sees it, and nothing is left in the index.
        let refused = register(&index, &peer, 1, |_| {
            Err(Refusal::new(Class::Revoked, "the certificate is revoked"))
        });
        assert_eq!(refused.unwrap_err().class, Class::Revoked);
        assert!(index.is_empty());
        // Applied after the second look: the connection is in the index already.
        let told = register(&index, &peer, 1, |peer| {
            assert_eq!(index.close(&peer.fingerprint(), Close::Revoked), 1);
            Ok(())
        });
        assert_eq!(told.unwrap().close_reason(), Some(Close::Revoked));
    }

    #[test]
    fn one_too_many_is_not_registered() {
        let (index, peer) = (Arc::<LiveIndex>::default(), peer());
        let first = register(&index, &peer, 1, |_| Ok(())).unwrap();
        let refused = register(&index, &peer, 1, |_| panic!("not registered")).unwrap_err();
        assert_eq!((refused.class, index.len()), (Class::AccessDenied, 1));
        drop(first);
    }
}
