//! What every session of a server shares.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::audit::AuditLog;
use crate::backend::Caller;
use crate::clock::{self, unix_now};
use crate::dispatch::Router;
use crate::peer::Peer;
use crate::policy::{Grounds, Policy};
use crate::registry::View;
use crate::tls::{Refusal, Trust};

use super::http::{HttpOptions, Sessions};
use super::identities::Identities;
use super::limits::Limits;

/// The parts that `server` puts together.
pub struct ServiceParts {
    /// Routes recorded calls.
    pub router: Arc<Router>,
    /// The audit log.
    pub audit: AuditLog,
    /// Anchors and the standing of live peers.
    pub trust: Arc<Trust>,
    /// The registry in memory.
    pub view: Arc<View>,
    /// The policy in force.
    pub policy: Policy,
    /// The limits in force.
    pub limits: Limits,
    /// The rules of HTTP in force.
    pub http: HttpOptions,
    /// For how long the registry may be out of reach.
    pub max_staleness: Duration,
}

/// Shared by all sessions; the policy and the limits are swapped by a reload.
pub struct Service {
    pub(super) router: Arc<Router>,
    pub(super) audit: AuditLog,
    pub(super) identities: Identities,
    pub(super) sessions: Sessions,
    trust: Arc<Trust>,
    view: Arc<View>,
    policy: ArcSwap<Policy>,
    limits: ArcSwap<Limits>,
    http: ArcSwap<HttpOptions>,
    max_staleness: Duration,
    /// Grows with every change of policy or registry that sessions may have to tell of.
    changes: watch::Sender<u64>,
}

/// What a peer's calls are decided on, and the state of the world that it was made from.
#[derive(Clone)]
pub struct Basis {
    /// Who calls and on what grounds.
    pub caller: Arc<Caller>,
    /// When the peer must go: the chain's or the pin's end, whichever comes first.
    pub until: clock::UnixTime,
    registry: u64,
    policy: Arc<Policy>,
}

impl Service {
    /// Puts the parts together.
    #[must_use]
    pub fn new(parts: ServiceParts) -> Arc<Self> {
        Arc::new(Self {
            router: parts.router,
            audit: parts.audit,
            identities: Identities::default(),
            sessions: Sessions::default(),
            trust: parts.trust,
            view: parts.view,
            policy: ArcSwap::from_pointee(parts.policy),
            limits: ArcSwap::from_pointee(parts.limits),
            http: ArcSwap::from_pointee(parts.http),
            max_staleness: parts.max_staleness,
            changes: watch::Sender::new(0),
        })
    }

    /// The audit log.
    #[must_use]
    pub const fn audit(&self) -> &AuditLog {
        &self.audit
    }

    /// The limits for a new session.
    #[must_use]
    pub fn limits(&self) -> Arc<Limits> {
        self.limits.load_full()
    }

    /// The rules of HTTP for a new connection.
    #[must_use]
    pub fn http_options(&self) -> Arc<HttpOptions> {
        self.http.load_full()
    }

    /// Calls that run now, those that were answered at once not among them.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.identities.in_flight()
    }

    /// Sessions of the older revisions over HTTP that are open, and the streams of theirs whose
    /// events are kept.
    #[must_use]
    pub fn http_sessions(&self) -> (usize, usize) {
        self.sessions.count()
    }

    /// Ends what outlives connections: sessions over HTTP and their calls. When the server stops.
    pub async fn close(&self) {
        self.sessions.close().await;
    }

    /// Whether calls can be carried out: decisions can be recorded, and the registry is known.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.audit.healthy() && !self.registry_is_stale(clock::monotonic())
    }

    /// Puts another policy and other limits in force: from the next request of every session, and
    /// from the next session.
    pub fn reload(&self, policy: Policy, limits: Limits, http: HttpOptions) {
        self.policy.store(Arc::new(policy));
        self.limits.store(Arc::new(limits));
        self.http.store(Arc::new(http));
        self.announce();
    }

    /// Tells sessions with subscriptions that their lists may have changed.
    pub fn announce(&self) {
        self.changes.send_modify(|number| *number += 1);
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Whether the registry was out of reach for too long to trust what is in memory.
    pub(super) fn registry_is_stale(&self, now: Instant) -> bool {
        self.view.staleness_at(now) > self.max_staleness
    }

    /// Compiles what this peer's calls are decided on.
    ///
    /// # Errors
    /// It may not stay: revoked, unpinned, expired.
    pub(super) fn basis(&self, peer: &Peer) -> Result<Basis, Refusal> {
        // Read before what depends on it: a change in between is compiled again, never missed.
        let registry = self.view.generation();
        let policy = self.policy.load_full();
        let pin = self.trust.recheck(peer, unix_now())?;
        let grants = pin
            .as_ref()
            .and_then(|pin| Some((pin.fingerprint, pin.grants.as_deref()?)));
        let grounds = Grounds::compile(&policy, peer, grants);
        let until = pin.map_or(peer.chain().not_after, |pin| {
            pin.not_after.min(peer.chain().not_after)
        });
        Ok(Basis {
            caller: Arc::new(Caller::new(Arc::new(grounds))),
            until,
            registry,
            policy,
        })
    }

    /// Whether a basis was made from the world as it is.
    pub(super) fn is_current(&self, basis: &Basis) -> bool {
        self.view.generation() == basis.registry && Arc::ptr_eq(&self.policy.load(), &basis.policy)
    }
}
