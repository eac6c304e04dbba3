//! What the requests of one HTTP connection share.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyper::upgrade::OnUpgrade;

use crate::audit::ConnectionFacts;
use crate::backend::Caller;
use crate::clock::UnixTime;
use crate::listener::{Bell, Live};
use crate::peer::Peer;
use crate::tls::Refusal;
use crate::transport::http::{Gone, Pace};

use super::super::end::{End, gone};
use super::super::identities::Identity;
use super::super::limits::Limits;
use super::super::service::{Basis, Service};
use super::options::HttpOptions;

/// Requests in a row that a client may give up before they are answered. Beyond this it asks for
/// work that it does not want.
const ABANDONED: u32 = 256;

/// Who calls, by what rules, and where it is written down. A call that outlives its connection keeps
/// this, and not the connection.
pub struct Party {
    pub service: Arc<Service>,
    pub peer: Peer,
    pub facts: ConnectionFacts,
    pub limits: Arc<Limits>,
    pub options: Arc<HttpOptions>,
    pub identity: Arc<Identity>,
    basis: Mutex<Basis>,
}

/// One connection.
pub struct Conn {
    pub party: Arc<Party>,
    pub live: Live,
    pub pace: Arc<Pace>,
    end: Mutex<Option<End>>,
    bell: Bell,
    abandoned: AtomicU32,
    upgrade: Mutex<Option<OnUpgrade>>,
    websockets: AtomicUsize,
}

/// A WebSocket on one stream of an HTTP/2 connection.
pub struct OnStream(Arc<Conn>);

impl std::ops::Deref for OnStream {
    type Target = Arc<Conn>;

    fn deref(&self) -> &Arc<Conn> {
        &self.0
    }
}

impl Drop for OnStream {
    fn drop(&mut self) {
        self.0.websockets.fetch_sub(1, Ordering::Relaxed);
    }
}

impl std::ops::Deref for Conn {
    type Target = Party;

    fn deref(&self) -> &Party {
        &self.party
    }
}

impl Party {
    fn basis(&self) -> MutexGuard<'_, Basis> {
        self.basis.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn current(&self) -> Result<MutexGuard<'_, Basis>, Refusal> {
        let mut basis = self.basis();
        if !self.service.is_current(&basis) {
            *basis = self.service.basis(&self.peer)?;
        }
        Ok(basis)
    }

    /// On what grounds this peer calls now: looked at again when the policy or the registry has
    /// changed.
    ///
    /// # Errors
    /// It may no longer stay.
    pub fn grounds(&self) -> Result<Arc<Caller>, Refusal> {
        Ok(Arc::clone(&self.current()?.caller))
    }

    /// The same with all that it was made from, for a session of its own.
    ///
    /// # Errors
    /// It may no longer stay.
    pub fn current_basis(&self) -> Result<Basis, Refusal> {
        Ok(self.current()?.clone())
    }

    /// When the certificate or the pin ends.
    pub fn until(&self) -> UnixTime {
        self.basis().until
    }
}

impl Conn {
    /// Takes an admitted connection.
    ///
    /// # Errors
    /// It may no longer stay.
    pub fn new(
        service: Arc<Service>,
        peer: Peer,
        live: Live,
        facts: ConnectionFacts,
        pace: Arc<Pace>,
    ) -> Result<Self, End> {
        let basis = service
            .basis(&peer)
            .map_err(|refusal| gone(&peer, &live, &refusal))?;
        let (limits, options) = (service.limits(), service.http_options());
        let identity = service.identities.of(peer.name(), &limits);
        let basis = Mutex::new(basis);
        let party = Party {
            service,
            peer,
            facts,
            limits,
            options,
            identity,
            basis,
        };
        Ok(Self {
            party: Arc::new(party),
            live,
            pace,
            end: Mutex::new(None),
            bell: Bell::default(),
            abandoned: AtomicU32::new(0),
            upgrade: Mutex::new(None),
            websockets: AtomicUsize::new(0),
        })
    }

    /// As [`Party::grounds`].
    ///
    /// # Errors
    /// It may no longer stay; the connection is being closed.
    pub fn caller(&self) -> Result<Arc<Caller>, Gone> {
        self.grounds().map_err(|refusal| {
            self.close(gone(&self.peer, &self.live, &refusal));
            Gone
        })
    }

    /// Has the connection closed; the first reason counts.
    pub fn close(&self, end: End) {
        self.end
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(end);
        self.bell.ring_for_one();
    }

    /// How often a request had the connection closed.
    pub fn rings(&self) -> u32 {
        self.bell.rings()
    }

    /// Ready when a request has the connection closed.
    pub async fn closing(&self) -> End {
        loop {
            let end = self
                .end
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            if let Some(end) = end {
                return end;
            }
            self.bell.rung().await;
        }
    }

    /// What becomes of an HTTP/1.1 connection after its last answer.
    pub fn upgrades(&self, upgrade: OnUpgrade) {
        *self.upgrade.lock().unwrap_or_else(PoisonError::into_inner) = Some(upgrade);
    }

    /// One more WebSocket on a stream of this connection.
    pub fn on_stream(self: &Arc<Self>) -> OnStream {
        self.websockets.fetch_add(1, Ordering::Relaxed);
        OnStream(Arc::clone(self))
    }

    /// Whether there is any.
    pub fn has_websockets(&self) -> bool {
        self.websockets.load(Ordering::Relaxed) > 0
    }

    /// Takes that.
    pub fn take_upgrade(&self) -> Option<OnUpgrade> {
        self.upgrade
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// A request was answered to the end.
    pub fn answered(&self) {
        if self.abandoned.load(Ordering::Relaxed) > 0 {
            self.abandoned.store(0, Ordering::Relaxed);
        }
    }

    /// The client gave a request up before it was answered.
    pub fn abandoned(&self) {
        if self.abandoned.fetch_add(1, Ordering::Relaxed) >= ABANDONED {
            self.close(End::Unruly);
        }
    }
}
