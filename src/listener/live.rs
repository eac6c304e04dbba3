//! Every live connection, found by leaf fingerprint or by any issuer above it, so that a revocation
//! closes exactly the connections that it touches, without a scan.

use std::collections::hash_map::Entry as Slot;
use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::server::TlsStream;

use crate::identity::{Fingerprint, Name};
use crate::peer::Peer;
use crate::tls::Socket;

use super::bell::Bell;
use super::parting::Stream;
use super::waking::Waking;

/// Why a connection is told to end; the later in this list, the sterner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Close {
    /// The server goes: calls in flight may finish.
    Draining,
    /// The certificate or the pin has ended.
    Expired,
    /// No longer pinned, or the anchor is gone or admits in another way.
    Unpinned,
    /// The leaf or an issuer above it was revoked.
    Revoked,
}

impl Close {
    /// As the audit log writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Expired => "expired",
            Self::Unpinned => "unpinned",
            Self::Revoked => "revoked",
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Draining => 1,
            Self::Expired => 2,
            Self::Unpinned => 3,
            Self::Revoked => 4,
        }
    }

    const fn of_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Draining),
            2 => Some(Self::Expired),
            3 => Some(Self::Unpinned),
            4 => Some(Self::Revoked),
            _ => None,
        }
    }
}

/// One connection as the index holds it.
pub(super) struct Entry {
    id: u64,
    peer: Peer,
    /// [`Close::code`], 0 while nothing was said. Only grows.
    told: AtomicU8,
    /// Whether what is left of the connection is left to the crowd's thread.
    crowd: AtomicBool,
    bell: Bell,
}

impl Entry {
    /// Seen by whoever looks; who waits is woken by [`Self::wake`].
    fn tell(&self, why: Close) {
        self.told.fetch_max(why.code(), Ordering::AcqRel);
    }

    pub(super) fn wake(&self) {
        self.bell.ring_for_all();
    }

    /// Before it is woken.
    pub(super) fn join_a_crowd(&self) {
        self.crowd.store(true, Ordering::Release);
    }

    pub(super) fn goes_with_a_crowd(&self) -> bool {
        self.crowd.load(Ordering::Acquire)
    }

    fn reason(&self) -> Option<Close> {
        Close::of_code(self.told.load(Ordering::Acquire))
    }

    /// Ready with the first reason that is at least as stern as `least`.
    async fn wait(&self, least: Close) -> Close {
        loop {
            let mut rung = std::pin::pin!(self.bell.rung());
            // Listens before it looks: what is said in between is not missed.
            rung.as_mut().enable();
            if let Some(why) = self.reason().filter(|why| *why >= least) {
                return why;
            }
            rung.await;
        }
    }
}

/// One live connection's end of the index. Dropped with the connection, which takes it out.
pub struct Live {
    index: Arc<LiveIndex>,
    entry: Arc<Entry>,
}

impl Live {
    /// The server's number for the connection; from 1, never used twice.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.entry.id
    }

    /// Ready when the connection must end, with the reason; a second, sterner reason replaces the
    /// first (draining lets calls finish, the others do not). Ready again at once when asked again.
    pub async fn told_to_close(&self) -> Close {
        self.entry.wait(Close::Draining).await
    }

    /// As [`Self::told_to_close`], for a sterner reason than draining: what a connection that drains
    /// still waits for.
    pub async fn told_to_stop(&self) -> Close {
        self.entry.wait(Close::Expired).await
    }

    /// The connection's stream, for its end to be counted and, in a crowd, to be seen to elsewhere.
    pub(super) fn stream(
        &self,
        tls: Box<TlsStream<Socket>>,
        place: OwnedSemaphorePermit,
    ) -> Stream {
        Stream::new(
            tls,
            place,
            Arc::clone(&self.entry),
            Arc::clone(&self.index.waking.partings),
        )
    }

    /// How often somebody was woken who waits for the end, whether or not it was told something new.
    pub(super) fn rings(&self) -> u32 {
        self.entry.bell.rings()
    }

    /// Without waiting.
    #[must_use]
    pub fn close_reason(&self) -> Option<Close> {
        self.entry.reason()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.index.book().remove(&self.entry);
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live")
            .field("id", &self.id())
            .finish_non_exhaustive()
    }
}

/// Every live connection; some 300 bytes for each.
#[derive(Default)]
pub struct LiveIndex {
    /// Locked for a few map operations at a time, never across an await.
    book: Mutex<Book>,
    waking: Waking,
}

impl LiveIndex {
    /// Takes a connection in. Whoever calls this looks at the peer's standing once more afterwards:
    /// a revocation that was applied between admission and this call found nothing to close.
    pub fn register(self: &Arc<Self>, peer: &Peer) -> Live {
        let entry = self.book().insert(peer);
        Live {
            index: self.clone(),
            entry,
        }
    }

    /// As [`Self::register`], unless the peer's name has `most` connections already.
    pub fn register_within(self: &Arc<Self>, peer: &Peer, most: usize) -> Option<Live> {
        let mut book = self.book();
        if book
            .names
            .get(peer.name())
            .is_some_and(|count| *count >= most)
        {
            return None;
        }
        let entry = book.insert(peer);
        drop(book);
        Some(Live {
            index: self.clone(),
            entry,
        })
    }

    /// Closes exactly the connections whose path holds this fingerprint; returns how many. All are
    /// told at once; of very many the most are woken by and by (see [`Self::wake_by_and_by`]).
    pub fn close(&self, fingerprint: &Fingerprint, why: Close) -> usize {
        let touched = self.book().under(fingerprint);
        self.tell(touched, why)
    }

    /// Tells all; returns how many. After [`Close::Draining`], whoever still registers (its handshake
    /// was under way) is told at once.
    pub fn close_all(&self, why: Close) -> usize {
        let mut book = self.book();
        book.draining |= why == Close::Draining;
        let all: Vec<_> = book.entries.values().cloned().collect();
        drop(book);
        self.tell(all, why)
    }

    /// Asks of every connection whether it must close, after a reload of what they were admitted
    /// by; returns how many must. The lock is not held meanwhile.
    pub fn recheck(&self, judge: impl Fn(&Peer) -> Option<Close>) -> usize {
        let mut all: Vec<_> = self.book().entries.values().cloned().collect();
        all.retain(|entry| {
            let why = judge(&entry.peer);
            why.inspect(|why| entry.tell(*why)).is_some()
        });
        let told = all.len();
        self.waking.wake(all);
        told
    }

    /// Wakes those of a large crowd who were told to close and are not woken yet, so many at a time
    /// that who stays is served meanwhile. Runs for as long as somebody listens; what a connection
    /// that is not woken yet asks for is refused all the same.
    pub async fn wake_by_and_by(&self) -> Infallible {
        self.waking.run().await
    }

    fn tell(&self, entries: Vec<Arc<Entry>>, why: Close) -> usize {
        entries.iter().for_each(|entry| entry.tell(why));
        let told = entries.len();
        self.waking.wake(entries);
        told
    }

    /// How many connections are live.
    #[must_use]
    pub fn len(&self) -> usize {
        self.book().entries.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Nothing in here panics half-way through a change, so a poisoned book is still a good one.
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for LiveIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LiveIndex({})", self.len())
    }
}

#[derive(Default)]
struct Book {
    last: u64,
    draining: bool,
    entries: HashMap<u64, Arc<Entry>>,
    /// By every fingerprint of the path, the leaf's included.
    paths: HashMap<Fingerprint, Ids>,
    names: HashMap<Name, usize>,
}

impl Book {
    fn insert(&mut self, peer: &Peer) -> Arc<Entry> {
        self.last += 1;
        let entry = Arc::new(Entry {
            id: self.last,
            peer: peer.clone(),
            told: AtomicU8::new(if self.draining {
                Close::Draining.code()
            } else {
                0
            }),
            crowd: AtomicBool::new(false),
            bell: Bell::default(),
        });
        self.entries.insert(entry.id, entry.clone());
        for print in path(peer) {
            match self.paths.entry(*print) {
                Slot::Vacant(slot) => {
                    slot.insert(Ids::One(entry.id));
                }
                Slot::Occupied(mut slot) => slot.get_mut().add(entry.id),
            }
        }
        *self.names.entry(peer.name().clone()).or_default() += 1;
        entry
    }

    fn remove(&mut self, entry: &Entry) {
        self.entries.remove(&entry.id);
        for print in path(&entry.peer) {
            if let Slot::Occupied(mut slot) = self.paths.entry(*print)
                && slot.get_mut().remove(entry.id)
            {
                slot.remove();
            }
        }
        if let Slot::Occupied(mut slot) = self.names.entry(entry.peer.name().clone()) {
            *slot.get_mut() -= 1;
            if *slot.get() == 0 {
                slot.remove();
            }
        }
    }

    fn under(&self, fingerprint: &Fingerprint) -> Vec<Arc<Entry>> {
        let entry = |id: &u64| self.entries.get(id).cloned();
        match self.paths.get(fingerprint) {
            None => Vec::new(),
            Some(Ids::One(id)) => entry(id).into_iter().collect(),
            Some(Ids::Many(ids)) => ids.iter().filter_map(entry).collect(),
        }
    }
}

fn path(peer: &Peer) -> impl Iterator<Item = &Fingerprint> {
    let chain = peer.chain();
    // An anchor that is its own leaf would stand in the path twice.
    let issuers = chain
        .issuers
        .iter()
        .filter(|print| **print != chain.fingerprint);
    std::iter::once(&chain.fingerprint).chain(issuers)
}

/// The connections under one certificate: nearly always one for a leaf, many for an issuer.
enum Ids {
    One(u64),
    Many(HashSet<u64>),
}

impl Ids {
    fn add(&mut self, id: u64) {
        match self {
            Self::One(first) => *self = Self::Many(HashSet::from([*first, id])),
            Self::Many(ids) => {
                ids.insert(id);
            }
        }
    }

    /// Whether none is left.
    fn remove(&mut self, id: u64) -> bool {
        match self {
            Self::One(only) => *only == id,
            Self::Many(ids) => {
                ids.remove(&id);
                ids.is_empty()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::net::SocketAddr;
    use std::sync::atomic::AtomicUsize;
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use super::super::told::Told;
    use super::*;
    use crate::clock::UnixTime;
    use crate::peer::{Agreed, Chain, Mode};

    fn print(text: &str) -> Fingerprint {
        Fingerprint::of_der(text.as_bytes())
    }

    fn peer(name: &str, issuers: &[&str]) -> Peer {
        let chain = Chain {
            name: Name::new(name).unwrap(),
            fingerprint: print(name),
            serial: String::from("01"),
            issuers: issuers.iter().map(|text| print(text)).collect(),
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

    fn ready<T>(future: impl Future<Output = T>) -> Option<T> {
        let mut future = std::pin::pin!(future);
        match future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    #[test]
    fn exactly_the_touched_connections_close() {
        let index = Arc::new(LiveIndex::default());
        let a1 = index.register(&peer("a", &["issuing", "root"]));
        let a2 = index.register(&peer("a", &["issuing", "root"]));
        let b = index.register(&peer("b", &["issuing", "root"]));
        let c = index.register(&peer("c", &["delegate", "issuing", "root"]));
        let d = index.register(&peer("d", &["other", "root"]));
        let told = || [&a1, &a2, &b, &c, &d].map(|live| live.close_reason().is_some());
        assert_eq!(index.close(&print("nobody"), Close::Revoked), 0);
        assert_eq!(index.close(&print("a"), Close::Revoked), 2);
        assert_eq!(told(), [true, true, false, false, false]);
        assert_eq!(index.close(&print("delegate"), Close::Revoked), 1);
        assert_eq!(told(), [true, true, false, true, false]);
        assert_eq!(index.close(&print("issuing"), Close::Revoked), 4);
        assert_eq!(told(), [true, true, true, true, false]);
        assert_eq!(index.close_all(Close::Draining), 5);
    }

    #[test]
    fn what_is_dropped_is_out_of_every_list() {
        let index = Arc::new(LiveIndex::default());
        let one = index.register(&peer("a", &["issuing", "root"]));
        let two = index.register(&peer("a", &["issuing", "root"]));
        assert_eq!((index.len(), one.id(), two.id()), (2, 1, 2));
        drop(one);
        assert_eq!(index.close(&print("issuing"), Close::Revoked), 1);
        drop(two);
        let book = index.book();
        assert!(book.entries.is_empty() && book.paths.is_empty() && book.names.is_empty());
    }

    #[test]
    fn a_sterner_reason_replaces_and_a_milder_does_not() {
        let index = Arc::new(LiveIndex::default());
        let live = index.register(&peer("a", &[]));
        assert_eq!(ready(live.told_to_close()), None);
        index.close_all(Close::Draining);
        assert_eq!(ready(live.told_to_close()), Some(Close::Draining));
        assert_eq!(ready(live.told_to_stop()), None);
        index.close(&print("a"), Close::Revoked);
        index.close(&print("a"), Close::Expired);
        assert_eq!(ready(live.told_to_stop()), Some(Close::Revoked));
        assert_eq!(ready(live.told_to_close()), Some(Close::Revoked));
    }

    #[test]
    fn the_bell_wakes_who_waits() {
        let index = Arc::new(LiveIndex::default());
        let live = index.register(&peer("a", &[]));
        let mut waiting = std::pin::pin!(live.told_to_close());
        let mut context = Context::from_waker(Waker::noop());
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        index.close(&print("a"), Close::Unpinned);
        assert_eq!(
            waiting.as_mut().poll(&mut context),
            Poll::Ready(Close::Unpinned)
        );
    }

    /// Whoever keeps the wait is woken by every word, also after one that told it nothing new.
    #[test]
    fn a_wait_that_is_kept_misses_nothing() {
        #[derive(Default)]
        struct Woken(AtomicUsize);
        impl std::task::Wake for Woken {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let index = Arc::new(LiveIndex::default());
        let live = index.register(&peer("a", &[]));
        let woken = Arc::<Woken>::default();
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        let times = || woken.0.load(Ordering::Relaxed);
        let mut told = Told::new(&live);
        assert!(told.poll(&mut context).is_pending());
        assert!(told.poll(&mut context).is_pending());
        index.close_all(Close::Draining);
        assert_eq!(times(), 1);
        assert_eq!(told.poll(&mut context), Poll::Ready(Close::Draining));
        assert_eq!(told.poll(&mut context), Poll::Ready(Close::Draining));
        told.drain();
        assert!(told.poll(&mut context).is_pending());
        for rung in 2..5 {
            index.close_all(Close::Draining);
            assert_eq!(times(), rung);
            assert!(told.poll(&mut context).is_pending());
        }
        // Another task asks from now on.
        let other = Arc::<Woken>::default();
        let waker = Waker::from(Arc::clone(&other));
        assert!(told.poll(&mut Context::from_waker(&waker)).is_pending());
        index.close(&print("a"), Close::Revoked);
        assert_eq!((times(), other.0.load(Ordering::Relaxed)), (4, 1));
        assert_eq!(told.poll(&mut context), Poll::Ready(Close::Revoked));
    }

    /// A crowd is told at once and woken by and by; who is not woken yet and looks, sees it.
    #[tokio::test]
    async fn of_a_crowd_all_are_told_at_once_and_woken_in_time() {
        const CROWD: usize = 10_000;
        let index = Arc::new(LiveIndex::default());
        let crowd: Vec<_> = (0..CROWD)
            .map(|n| index.register(&peer(&n.to_string(), &["issuing"])))
            .collect();
        let beside = index.register(&peer("beside", &["other"]));
        let mut waiting: Vec<_> = crowd
            .iter()
            .map(|live| Box::pin(live.told_to_close()))
            .collect();
        let mut context = Context::from_waker(Waker::noop());
        let mut woken = |context: &mut Context<'_>| {
            waiting.retain_mut(|one| one.as_mut().poll(context).is_pending());
            CROWD - waiting.len()
        };
        assert_eq!(woken(&mut context), 0);
        assert_eq!(index.close(&print("issuing"), Close::Revoked), CROWD);
        assert!(
            crowd
                .iter()
                .all(|live| live.close_reason() == Some(Close::Revoked))
        );
        let first = woken(&mut context);
        assert!(first > 0 && first < CROWD / 10, "{first}");
        let waker = tokio::spawn({
            let index = Arc::clone(&index);
            async move { match index.wake_by_and_by().await {} }
        });
        // Nobody ends, and all are woken nevertheless.
        let all = async {
            while woken(&mut context) < CROWD {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), all)
            .await
            .expect("all are woken in time");
        assert_eq!(beside.close_reason(), None);
        waker.abort();
    }

    #[test]
    fn a_name_has_its_share_of_connections() {
        let index = Arc::new(LiveIndex::default());
        let one = index.register_within(&peer("a", &[]), 2);
        let two = index.register_within(&peer("a", &[]), 2);
        assert!(one.is_some() && two.is_some());
        assert!(index.register_within(&peer("a", &[]), 2).is_none());
        assert!(index.register_within(&peer("b", &[]), 2).is_some());
        drop(one);
        assert!(index.register_within(&peer("a", &[]), 2).is_some());
    }

    #[test]
    fn who_registers_while_the_server_drains_is_told_at_once() {
        let index = Arc::new(LiveIndex::default());
        index.close_all(Close::Draining);
        let late = index.register(&peer("a", &[]));
        assert_eq!(late.close_reason(), Some(Close::Draining));
    }

    #[test]
    fn a_recheck_closes_those_that_the_judge_names() {
        let index = Arc::new(LiveIndex::default());
        let a = index.register(&peer("a", &[]));
        let b = index.register(&peer("b", &[]));
        let judge = |peer: &Peer| (peer.name().as_str() == "a").then_some(Close::Unpinned);
        assert_eq!(index.recheck(judge), 1);
        assert_eq!(
            (a.close_reason(), b.close_reason()),
            (Some(Close::Unpinned), None)
        );
    }
}
