//! What happens to those whom the listener lets in, and to those whom it does not: recorded, then
//! served or gone.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::audit::{ConnectionFacts, Event};
use crate::clock;
use crate::listener::{Door, Live};
use crate::session::{Service, serve};
use crate::tls::{Accepted, Refusal};
use crate::transport::{RawWire, Wire};

use super::status::Counters;

/// The door of a server.
pub struct Entrance {
    /// What sessions share.
    pub service: Arc<Service>,
    /// What is counted.
    pub counters: Arc<Counters>,
}

impl Door for Entrance {
    async fn serve(&self, accepted: Accepted, live: Live) {
        let Accepted { peer, stream, .. } = accepted;
        let limits = self.service.limits();
        let wire = RawWire::new(stream, limits.max_message_bytes);
        drop(limits);
        self.serve_wire(peer, live, wire).await;
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
    async fn serve_wire<W: Wire>(&self, peer: crate::peer::Peer, live: Live, wire: W) {
        let audit = self.service.audit();
        let facts = ConnectionFacts::new(&peer, live.id(), W::NAME);
        let admitted = Event::Admitted {
            facts: &facts,
            agreed: peer.agreed(),
        };
        if let Err(error) = audit.event(admitted).await {
            tracing::error!(%error, "a connection is closed because its admission cannot be recorded");
            return;
        }
        self.counters.admitted.fetch_add(1, Ordering::Relaxed);
        let since = clock::monotonic();
        let end = serve(Arc::clone(&self.service), peer, &live, facts.clone(), wire).await;
        let lasted = clock::monotonic().duration_since(since);
        let closed = Event::Closed {
            facts: &facts,
            reason: end.reason(),
            lasted,
        };
        let _ = audit.event(closed).await;
    }
}
