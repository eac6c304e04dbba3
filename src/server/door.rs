//! What happens to those whom the listener lets in, and to those whom it does not: recorded, then
//! served or gone.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::audit::{ConnectionFacts, Event};
use crate::clock;
use crate::listener::{Door, Guest, Live};
use crate::peer::Peer;
use crate::session::{HttpStream, Service, serve, serve_http};
use crate::tls::Refusal;
use crate::transport::choose::ALPN_RAW;
use crate::transport::{RawWire, Way, Wire, choose};

use super::status::Counters;

/// The door of a server.
pub struct Entrance {
    /// What sessions share.
    pub service: Arc<Service>,
    /// What is counted.
    pub counters: Arc<Counters>,
}

impl Door for Entrance {
    async fn serve(&self, guest: Guest, live: Live) {
        let Guest {
            peer,
            mut stream,
            alpn,
        } = guest;
        let limits = self.service.limits();
        let (most, first) = (limits.max_message_bytes, limits.first_byte_timeout);
        drop(limits);
        if alpn.as_deref() == Some(ALPN_RAW) {
            return self
                .serve_wire(peer, live, RawWire::new(stream, most))
                .await;
        }
        // What only HTTP needs lives on the heap: the task of a raw stream stays small.
        let chosen = Box::pin(chosen(alpn.as_deref(), &mut stream, first, &live)).await;
        match chosen {
            Ok((Way::Raw, read)) => {
                let wire = RawWire::new(stream, most).begun_with(read);
                self.serve_wire(peer, live, wire).await;
            }
            Ok((way, read)) if self.service.http_options().enabled => {
                let http = HttpStream {
                    stream,
                    read: read.freeze(),
                    way,
                };
                Box::pin(self.serve_http(peer, live, http)).await;
            }
            Ok(_) => {
                self.not_served(&peer, &live, "HTTP is not spoken here")
                    .await
            }
            Err(reason) => self.not_served(&peer, &live, &reason).await,
        }
    }

    async fn refused(&self, address: SocketAddr, refusal: &Refusal) {
        self.counters.refused.fetch_add(1, Ordering::Relaxed);
        let event = Event::Refused {
            address,
            reason: &refusal.reason,
            class: refusal.class.as_str(),
            name: refusal.name.as_deref(),
            fingerprint: refusal.fingerprint,
        };
        tracing::info!(%address, reason = %refusal.reason, "refused");
        // A refusal that cannot be written yet is kept and tried again by the log itself.
        let _ = self.service.audit().event(event).await;
    }
}

impl Entrance {
    async fn serve_wire<W: Wire>(&self, peer: Peer, live: Live, wire: W) {
        let Some(facts) = self.admit(&peer, &live, W::NAME).await else {
            return;
        };
        let since = clock::monotonic();
        let end = serve(Arc::clone(&self.service), peer, &live, facts.clone(), wire).await;
        self.closed(&facts, end.reason(), since);
    }

    async fn serve_http<S>(&self, peer: Peer, live: Live, http: HttpStream<S>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Some(facts) = self.admit(&peer, &live, "http").await else {
            return;
        };
        let since = clock::monotonic();
        let end = serve_http(Arc::clone(&self.service), peer, live, facts.clone(), http).await;
        self.closed(&facts, end.reason(), since);
    }

    /// An admitted peer that nothing could be served to.
    async fn not_served(&self, peer: &Peer, live: &Live, reason: &str) {
        let Some(facts) = self.admit(peer, live, "none").await else {
            return;
        };
        self.closed(&facts, reason, clock::monotonic());
    }

    /// Records the admission. None: it cannot be recorded, so the connection must not be.
    async fn admit(
        &self,
        peer: &Peer,
        live: &Live,
        transport: &'static str,
    ) -> Option<ConnectionFacts> {
        let facts = ConnectionFacts::new(peer, live.id(), transport);
        let admitted = Event::Admitted {
            facts: &facts,
            agreed: peer.agreed(),
        };
        if let Err(error) = self.service.audit().event(admitted).await {
            tracing::error!(%error, "a connection is closed because its admission cannot be recorded");
            return None;
        }
        self.counters.admitted.fetch_add(1, Ordering::Relaxed);
        Some(facts)
    }

    fn closed(&self, facts: &ConnectionFacts, reason: &str, since: Instant) {
        let lasted = clock::monotonic().duration_since(since);
        let closed = Event::Closed {
            facts,
            reason,
            lasted,
        };
        // Of a crowd that goes at once the records go out together.
        self.service.audit().note(closed);
    }
}

/// What the peer speaks, unless it is told to go or says nothing before that is known.
async fn chosen<S: AsyncRead + Unpin>(
    alpn: Option<&[u8]>,
    stream: &mut S,
    first: Duration,
    live: &Live,
) -> Result<(Way, BytesMut), String> {
    tokio::select! {
        biased;
        why = live.told_to_close() => Err(why.as_str().to_owned()),
        way = choose(alpn, stream, first) => way.map_err(|error| error.to_string()),
    }
}
