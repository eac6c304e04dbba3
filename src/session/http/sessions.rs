//! Sessions of the older revisions: found by identity *and* id, so that another identity's id is
//! unknown; bounded for each identity; ended when they rest too long.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::task::JoinSet;

use crate::backend::Cancel;
use crate::clock::{self, AtomicMoment};
use crate::identity::Name;
use crate::jsonrpc::{OwnedId, RequestId};
use crate::mcp::{Revision, Severity};

use super::super::asks::Open;
use super::super::identities::{Identity, Watches};
use super::super::service::Service;
use super::super::subscriptions::Wanted;
use super::events::Events;
use super::news::{Following, Item, News};
use super::options::HttpOptions;

/// Finished streams that one session keeps for a client that comes back.
const FINISHED: usize = 8;

/// Every session of a server.
pub struct Sessions {
    book: Mutex<HashMap<Name, Vec<Arc<HttpSession>>>>,
    random: SystemRandom,
    /// Calls that outlive the request that they came with.
    tasks: Mutex<JoinSet<()>>,
    /// Whether somebody looks for sessions that have rested too long.
    swept: AtomicBool,
}

/// One session.
pub struct HttpSession {
    pub id: String,
    pub revision: Revision,
    pub capabilities: Option<Bytes>,
    /// The server's own requests to this client; none where it declared nothing to ask for.
    pub open: Option<Arc<Open>>,
    /// Says when it is over.
    pub over: Cancel,
    /// When it was used last.
    used: AtomicMoment,
    /// Requests and streams that are open.
    held: AtomicUsize,
    state: Mutex<State>,
}

/// What changes in a session.
pub struct State {
    pub level: Option<Severity>,
    pub wanted: Wanted,
    pub watches: Watches,
    /// The news, from the first time on that there was something to wait for.
    pub news: Option<Following>,
    /// Streams by number: 0 belongs to no request.
    streams: Vec<Arc<Events>>,
    next_stream: u64,
    calls: Vec<(OwnedId, Cancel)>,
}

/// Holds a session open.
pub struct Held(Arc<HttpSession>);

impl Held {
    fn new(session: Arc<HttpSession>) -> Self {
        session.held.fetch_add(1, Ordering::Relaxed);
        session.used.set(clock::monotonic());
        Self(session)
    }
}

impl std::ops::Deref for Held {
    type Target = Arc<HttpSession>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.used.set(clock::monotonic());
        self.0.held.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An identity has its share of sessions, and all are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many sessions are in use")]
pub struct TooMany;

impl Default for Sessions {
    fn default() -> Self {
        Self {
            book: Mutex::default(),
            random: SystemRandom::new(),
            tasks: Mutex::default(),
            swept: AtomicBool::new(false),
        }
    }
}

impl Sessions {
    fn book(&self) -> MutexGuard<'_, HashMap<Name, Vec<Arc<HttpSession>>>> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a session. Where the identity has its share already, the one that rested longest ends.
    ///
    /// # Errors
    /// [`TooMany`]: none of them rests. Also when the system gives no random bytes.
    pub fn open(
        &self,
        service: &Arc<Service>,
        name: &Name,
        identity: &Arc<Identity>,
        revision: Revision,
        capabilities: Option<Bytes>,
    ) -> Result<Held, TooMany> {
        let options = service.http_options();
        let mut random = [0; 16];
        self.random.fill(&mut random).map_err(|_| TooMany)?;
        let session = HttpSession {
            id: hex::encode(random),
            revision,
            open: super::super::asks::can_be_asked(capabilities.as_deref()).then(Arc::default),
            // Copied: it would keep the whole message in memory.
            capabilities: capabilities.map(|raw| Bytes::copy_from_slice(&raw)),
            over: Cancel::new(),
            used: AtomicMoment::of(clock::monotonic()),
            held: AtomicUsize::new(0),
            state: Mutex::new(State {
                level: None,
                wanted: Wanted::default(),
                watches: Watches::none(Arc::clone(identity)),
                news: None,
                streams: Vec::new(),
                next_stream: 1,
                calls: Vec::new(),
            }),
        };
        let session = Arc::new(session);
        let mut book = self.book();
        let of_name = book.entry(name.clone()).or_default();
        self.end_resting(of_name, &options);
        while of_name.len() >= options.sessions_per_identity {
            let resting = of_name.iter().enumerate().filter(|(_, one)| one.rests());
            let oldest = resting.min_by_key(|(_, one)| one.used.get());
            let Some((index, _)) = oldest else {
                return Err(TooMany);
            };
            of_name.swap_remove(index).end();
        }
        // Held before others can see it, so that nobody ends it as resting.
        let held = Held::new(Arc::clone(&session));
        of_name.push(session);
        drop(book);
        self.sweep(service);
        Ok(held)
    }

    /// The session of that identity and id, if it is not over.
    pub fn find(&self, name: &Name, id: &str) -> Option<Held> {
        let book = self.book();
        let found = book.get(name)?.iter().find(|session| session.id == id)?;
        let found = Arc::clone(found);
        // Held under the lock, so that nobody ends it as resting in between.
        let held = Held::new(found);
        drop(book);
        Some(held)
    }

    /// Ends a session; whether there was one.
    pub fn end(&self, name: &Name, id: &str) -> bool {
        let mut book = self.book();
        let Some(of_name) = book.get_mut(name) else {
            return false;
        };
        let found = of_name.iter().position(|session| session.id == id);
        let ended = found.map(|index| of_name.swap_remove(index));
        if of_name.is_empty() {
            book.remove(name);
        }
        drop(book);
        ended.map(|session| session.end()).is_some()
    }

    fn end_resting(&self, sessions: &mut Vec<Arc<HttpSession>>, options: &HttpOptions) {
        let now = clock::monotonic();
        sessions.retain(|session| {
            let used = session.used.get().unwrap_or(now);
            let idle = now.saturating_duration_since(used);
            let over = session.rests() && idle >= options.session_idle;
            if over {
                session.end();
            }
            !over
        });
    }

    /// Looks for sessions that have rested too long, as long as there is any.
    fn sweep(&self, service: &Arc<Service>) {
        if self.swept.swap(true, Ordering::AcqRel) {
            return;
        }
        let service = Arc::downgrade(service);
        self.spawn(async move {
            loop {
                let Some(every) = service.upgrade().map(|service| {
                    let half = service.http_options().session_idle / 2;
                    half.clamp(Duration::from_millis(50), Duration::from_secs(60))
                }) else {
                    return;
                };
                tokio::time::sleep(every).await;
                let Some(service) = service.upgrade() else {
                    return;
                };
                if service.sessions.sweep_once(&service.http_options()) {
                    return;
                }
            }
        });
    }

    /// Whether no session is left.
    fn sweep_once(&self, options: &HttpOptions) -> bool {
        let mut book = self.book();
        book.retain(|_, sessions| {
            self.end_resting(sessions, options);
            !sessions.is_empty()
        });
        let none = book.is_empty();
        if none {
            // Under the lock: whoever opens one after this starts another look.
            self.swept.store(false, Ordering::Release);
        }
        none
    }

    /// How many sessions there are, and how many streams they keep.
    pub fn count(&self) -> (usize, usize) {
        let book = self.book();
        let all: Vec<_> = book.values().flatten().cloned().collect();
        drop(book);
        let streams = all.iter().map(|session| session.state().streams.len());
        (all.len(), streams.sum())
    }

    /// Runs something beside all connections, until the server stops.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// Ends every session and what runs for them.
    pub async fn close(&self) {
        let all = std::mem::take(&mut *self.book());
        for session in all.into_values().flatten() {
            session.end();
        }
        let mut tasks =
            std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        // They were told; a moment is enough to record it.
        let told = async { while tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(Duration::from_millis(100), told).await;
        tasks.shutdown().await;
    }
}

impl HttpSession {
    /// What changes.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next piece of news, for the stream that belongs to no request.
    pub fn poll_news(&self, service: &Service, cx: &mut Context<'_>) -> Poll<Item> {
        let mut state = self.state();
        let (item, news) = ready!(state.news(service).as_mut().poll(cx));
        state.news = Some(news.following());
        Poll::Ready(item)
    }

    fn rests(&self) -> bool {
        self.held.load(Ordering::Relaxed) == 0
    }

    fn end(&self) {
        self.over.cancel();
        let mut state = self.state();
        for (_, cancel) in state.calls.drain(..) {
            cancel.cancel();
        }
        state.wanted = Wanted::default();
        state.watches.set(0);
        state.news = None;
        for stream in state.streams.drain(..) {
            stream.finish();
        }
    }
}

impl State {
    /// The news of this session; from now on, if nobody waited for any before.
    pub fn news(&mut self, service: &Service) -> &mut Following {
        self.news
            .get_or_insert_with(|| News::new(service).following())
    }

    /// The stream of that number, if it is kept.
    pub fn stream(&self, number: u64) -> Option<Arc<Events>> {
        self.streams
            .iter()
            .find(|stream| stream.number == number)
            .cloned()
    }

    /// The stream that belongs to no request.
    pub fn standing(&mut self, options: &HttpOptions) -> Arc<Events> {
        self.stream(0).unwrap_or_else(|| {
            let stream = Arc::new(Events::new(0, options.event_store_bytes));
            self.streams.push(Arc::clone(&stream));
            stream
        })
    }

    /// A stream for a request. Finished ones go, oldest first, beyond their number and bytes.
    pub fn new_stream(&mut self, options: &HttpOptions) -> Arc<Events> {
        let stream = Arc::new(Events::new(self.next_stream, options.event_store_bytes));
        self.next_stream += 1;
        self.trim(options);
        self.streams.push(Arc::clone(&stream));
        stream
    }

    /// Drops finished streams beyond what is kept.
    pub fn trim(&mut self, options: &HttpOptions) {
        loop {
            let finished = || self.streams.iter().filter(|stream| stream.is_finished());
            let bytes: usize = finished().map(|stream| stream.bytes()).sum();
            if finished().count() <= FINISHED && bytes <= options.event_store_bytes {
                return;
            }
            let Some(oldest) = finished().map(|stream| stream.number).min() else {
                return;
            };
            self.streams.retain(|stream| stream.number != oldest);
        }
    }

    /// Whether a call with this id runs.
    pub fn has_call(&self, id: &[u8]) -> bool {
        self.calls
            .iter()
            .any(|(known, _)| RequestId::same(known, id))
    }

    /// A call runs.
    pub fn add_call(&mut self, id: OwnedId, cancel: Cancel) {
        self.calls.push((id, cancel));
    }

    /// A call is over.
    pub fn remove_call(&mut self, id: &[u8]) {
        self.calls.retain(|(known, _)| **known != *id);
    }

    /// Calls that run.
    pub fn calls(&self) -> usize {
        self.calls.len()
    }

    /// Cancels the call with this id, if it runs.
    pub fn cancel(&self, id: &[u8]) {
        if let Some((_, cancel)) = self
            .calls
            .iter()
            .find(|(known, _)| RequestId::same(known, id))
        {
            cancel.cancel();
        }
    }
}
