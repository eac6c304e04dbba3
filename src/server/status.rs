//! What the server counts, and the answer of `server_status`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use crate::audit::AuditLog;
use crate::backend::Catalogue;
use crate::backend::own::{Status, StatusSource, basic_status};
use crate::clock::{UnixTime, unix_now};
use crate::listener::LiveIndex;
use crate::mcp::Revision;
use crate::registry::View;
use crate::session::Service;

/// Counts since the start, and where the rest of the status is read.
pub struct Counters {
    /// Connections that were let in.
    pub admitted: AtomicU64,
    /// Connections that were not.
    pub refused: AtomicU64,
    /// The last change of the registry that is in force.
    pub applied: AtomicU64,
    started: UnixTime,
    index: Arc<LiveIndex>,
    audit: AuditLog,
    view: Arc<View>,
    max_staleness: Duration,
    providers: OnceLock<Vec<String>>,
    service: OnceLock<Weak<Service>>,
}

impl Counters {
    /// All at nought.
    #[must_use]
    pub fn new(
        index: Arc<LiveIndex>,
        audit: AuditLog,
        view: Arc<View>,
        max_staleness: Duration,
    ) -> Self {
        Self {
            admitted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            started: unix_now(),
            index,
            audit,
            view,
            max_staleness,
            providers: OnceLock::new(),
            service: OnceLock::new(),
        }
    }

    /// Takes what sessions share, once it stands.
    pub fn watch(&self, service: &Arc<Service>) {
        let _ = self.service.set(Arc::downgrade(service));
    }

    /// Takes the names of the providers, once they stand together.
    pub fn name_providers(&self, catalogue: &Catalogue) {
        let names = catalogue
            .providers()
            .iter()
            .map(|(name, _)| name.clone())
            .collect();
        let _ = self.providers.set(names);
    }
}

impl StatusSource for Counters {
    fn status(&self) -> Status {
        let mut status = basic_status(env!("CARGO_PKG_VERSION"), self.started, unix_now());
        status.revisions = Revision::SERVED
            .map(|revision| revision.to_string())
            .to_vec();
        status.connections.live = self.index.len() as u64;
        status.connections.admitted = self.admitted.load(Ordering::Relaxed);
        status.connections.refused = self.refused.load(Ordering::Relaxed);
        let counts = self.audit.counts();
        status.calls.allowed = counts.allowed();
        status.calls.denied = counts.denied();
        status.calls.failed = counts.failed();
        status.audit.healthy = self.audit.healthy();
        status.audit.records = self.audit.written();
        status.registry.applied = self.applied.load(Ordering::Relaxed);
        status.registry.age_seconds = self.view.staleness().as_secs();
        status.registry.stale = self.view.staleness() > self.max_staleness;
        if let Some(service) = self.service.get().and_then(Weak::upgrade) {
            status.calls.in_flight = service.in_flight() as u64;
            let (sessions, stores) = service.http_sessions();
            status.http.sessions = sessions as u64;
            status.http.event_stores = stores as u64;
        }
        status.providers = self.providers.get().cloned().unwrap_or_default();
        status
    }
}
