//! The last of a connection that goes with a crowd: the goodbye of TLS, the close of the socket, the
//! memory of both. That is half of what a close costs, most of it in the kernel, and nobody waits for
//! its result; so it is left to a thread of a lower priority, and the runtime's workers stay with those
//! who stay. The thread lives as long as the crowd is closing. What it does not get done in time, for
//! want of a processor, is done by whoever drops the stream, as without it.
//!
//! It takes its time: it ends one connection after the other by a steady pace, and what the system holds of
//! them is freed when the last has had its goodbye, a few at a time. Freeing is work of the kernel's own
//! threads too, which step back behind nobody; until then those connections still count as open.

use std::collections::VecDeque;
use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{SendFlags, send};
use tokio::io::{AsyncBufRead as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio_rustls::server::TlsStream;

use super::live::Entry;
use crate::clock;
use crate::tls::Socket;

/// How long the goodbye to a peer that does not read may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// By so much the thread steps back behind the workers. Not further: it holds locks of the allocator and
/// of the runtime for moments, and must not be kept from giving them back.
const NICE: i32 = 10;
/// The last words wait for what comes behind them, the end.
#[cfg(target_os = "linux")]
const LAST: SendFlags = SendFlags::MORE.union(SendFlags::NOSIGNAL);
#[cfg(not(target_os = "linux"))]
const LAST: SendFlags = SendFlags::empty();
/// From the end of one connection to the next: ten thousand take 0.36 s and a little.
const PACE: Duration = Duration::from_micros(36);
/// With so many waiting the crowd is hurried, and no pace is kept.
const HURRIED: usize = 8;
/// By so much it may be made good when the thread was kept from its work, or was hurried.
const CREDIT: Duration = Duration::from_millis(1);
/// So many sockets are freed at a time…
const FREED: usize = 16;
/// …with so long in between, and only when no stream has waited for as long.
const MOMENT: Duration = Duration::from_millis(1);
/// So many may wait for the thread.
const WAITING: usize = 4096;

type Tls = Box<TlsStream<Socket>>;

/// The stream of an admitted connection: TLS, but for its end (see the module).
pub struct Stream {
    /// Taken when it is dropped.
    tls: Option<Tls>,
    place: Option<OwnedSemaphorePermit>,
    entry: Arc<Entry>,
    partings: Arc<Partings>,
    /// It was asked to say goodbye, and has put it off.
    owes_goodbye: bool,
}

impl Stream {
    pub(super) fn new(
        tls: Tls,
        place: OwnedSemaphorePermit,
        entry: Arc<Entry>,
        partings: Arc<Partings>,
    ) -> Self {
        Self {
            tls: Some(tls),
            place: Some(place),
            entry,
            partings,
            owes_goodbye: false,
        }
    }

    fn tls(&mut self) -> Pin<&mut TlsStream<Socket>> {
        Pin::new(self.tls.as_mut().expect("only a dropped stream has none"))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Whoever reads on waits for the peer, and the peer may wait for the goodbye.
        if self.owes_goodbye {
            ready!(self.tls().poll_shutdown(cx))?;
            self.owes_goodbye = false;
        }
        // One record at the most: whoever wants more asks again. tokio-rustls itself would look at the
        // socket once more to fill the buffer, and nearly always for nothing.
        let record = ready!(self.tls().poll_fill_buf(cx))?;
        let length = record.len().min(buffer.remaining());
        buffer.put_slice(&record[..length]);
        self.tls().consume(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.tls().poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.tls().poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tls().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.entry.goes_with_a_crowd() {
            // Said when the stream is dropped, which is nearly always next.
            self.owes_goodbye = true;
            return Poll::Ready(Ok(()));
        }
        self.tls().poll_shutdown(cx)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let Some(tls) = self.tls.take() else { return };
        let parting = Parting {
            tls,
            place: self.place.take(),
        };
        if self.entry.goes_with_a_crowd() {
            self.partings.leave(parting);
        } else {
            drop(parting);
            self.partings.ended();
        }
    }
}

/// A stream that nobody uses any more, with the place that its connection still takes.
struct Parting {
    tls: Tls,
    place: Option<OwnedSemaphorePermit>,
}

impl Parting {
    /// The goodbye, and the end; what is left is only to be dropped.
    fn end(self, runtime: &Handle) -> Option<Ended> {
        let (socket, mut tls) = self.tls.into_inner();
        tls.send_close_notify();
        let mut last = Vec::with_capacity(64);
        while tls.wants_write() {
            // To memory, which takes everything.
            if tls.write_tls(&mut last).is_err() {
                return None;
            }
        }
        // Out of the runtime first, which otherwise would be woken to see the socket close.
        let socket = socket.into_inner().into_std().ok()?;
        let said = match send(&socket, &last, LAST) {
            Ok(count) => count,
            Err(rustix::io::Errno::AGAIN) => 0,
            // The peer is gone already.
            Err(_) => return None,
        };
        if said == last.len() {
            // The end goes out with the words before it, in one segment. It fails when the peer is gone.
            let _ = socket.shutdown(Shutdown::Write);
            return Some(Ended {
                _socket: socket,
                _place: self.place,
            });
        }
        // The peer does not read; whether it ever will is not this thread's to wait for.
        let place = self.place;
        runtime.spawn(async move {
            let _place = place;
            if let Ok(mut socket) = TcpStream::from_std(socket) {
                let farewell = async {
                    socket.write_all(&last[said..]).await?;
                    socket.shutdown().await
                };
                let _ = tokio::time::timeout(PATIENCE, farewell).await;
            }
        });
        None
    }
}

/// A connection that has ended for its peer; its file and its place are given back when this is dropped.
struct Ended {
    _socket: std::net::TcpStream,
    _place: Option<OwnedSemaphorePermit>,
}

/// What the thread finds when it asks for more.
enum Next {
    Stream(Parting),
    /// None for a moment.
    Lull,
    /// None, and none will come.
    Over,
}

/// Holds those who take turns to [`PACE`].
struct Pace {
    /// When the next turn is due.
    due: Instant,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self { due: now }
    }

    /// After a turn: how long until the next is due.
    fn until_next(&mut self, now: Instant) -> Duration {
        let earliest = now.checked_sub(CREDIT).unwrap_or(now);
        self.due = (self.due.max(earliest) + PACE).min(now + CREDIT);
        self.due.saturating_duration_since(now)
    }
}

/// Streams that were left, and who sees to them. Locked for a push or a pop, never across a system call.
#[derive(Default)]
pub(super) struct Partings {
    left: Mutex<Left>,
    more: Condvar,
    /// Streams that have ended, whatever for: it only sets the pace.
    ended: AtomicU64,
    /// At this many `reached` rings.
    goal: AtomicU64,
    reached: Notify,
}

struct Left {
    streams: VecDeque<Parting>,
    /// So many may wait.
    most: usize,
    /// Where the thread sends what it will not wait for; none without a thread.
    attended: Option<Handle>,
}

impl Default for Left {
    fn default() -> Self {
        Self {
            streams: VecDeque::new(),
            most: WAITING,
            attended: None,
        }
    }
}

/// As long as this lives, somebody sees to the streams.
pub(super) struct Attended<'a>(&'a Partings);

impl Drop for Attended<'_> {
    fn drop(&mut self) {
        self.0.left().attended = None;
        self.0.more.notify_all();
    }
}

impl Partings {
    /// Starts the thread, which calls `next` after each end. None when the system has no thread to give:
    /// then each stream is ended by whoever drops it.
    pub fn attend(self: &Arc<Self>, next: impl Fn() + Send + 'static) -> Option<Attended<'_>> {
        let runtime = Handle::current();
        let partings = Arc::clone(self);
        let of = runtime.clone();
        // First, or the thread would find nothing to wait for.
        self.left().attended = Some(runtime);
        let attended = Attended(self);
        let started = thread::Builder::new()
            .name("partings".into())
            .spawn(move || partings.see_off(&of, next));
        match started {
            Ok(_) => Some(attended),
            Err(cause) => {
                tracing::warn!("no thread for the closing of many connections: {cause}");
                None
            }
        }
    }

    /// What the thread does: until nobody attends and nothing is left.
    fn see_off(&self, runtime: &Handle, next: impl Fn()) {
        // A system that is not Linux may refuse, or lower the whole process: neither is wrong.
        let _ = rustix::process::setpriority_process(None, NICE);
        // No more than there are places.
        let mut ended = VecDeque::new();
        let mut pace = Pace::new(clock::monotonic());
        loop {
            let parting = match self.next(!ended.is_empty()) {
                Next::Stream(parting) => parting,
                Next::Lull => {
                    ended.drain(..ended.len().min(FREED));
                    continue;
                }
                Next::Over => return,
            };
            ended.extend(parting.end(runtime));
            self.ended();
            next();
            // Holds no lock here, so whoever waits for a processor may have this one.
            match pace.until_next(clock::monotonic()) {
                wait if !wait.is_zero() && !self.are_hurried() => thread::sleep(wait),
                _ => thread::yield_now(),
            }
        }
    }

    fn are_hurried(&self) -> bool {
        self.left().streams.len() >= HURRIED
    }

    /// Waits for the next stream: for a moment only, with something else to do.
    fn next(&self, busy: bool) -> Next {
        let none = |left: &mut Left| left.streams.is_empty() && (busy || left.attended.is_some());
        let left = self.left();
        let mut left = if busy {
            let waited = self.more.wait_timeout_while(left, MOMENT, none);
            waited.unwrap_or_else(PoisonError::into_inner).0
        } else {
            let waited = self.more.wait_while(left, none);
            waited.unwrap_or_else(PoisonError::into_inner)
        };
        match left.streams.pop_front() {
            Some(parting) => Next::Stream(parting),
            None if busy => Next::Lull,
            None => Next::Over,
        }
    }

    fn leave(&self, parting: Parting) {
        let mut left = self.left();
        if left.attended.is_some() && left.streams.len() < left.most {
            left.streams.push_back(parting);
            let first = left.streams.len() == 1;
            drop(left);
            if first {
                self.more.notify_one();
            }
            return;
        }
        drop(left);
        // Nobody to leave it to, or too many wait already.
        match Handle::try_current() {
            Ok(runtime) => drop(parting.end(&runtime)),
            Err(_) => drop(parting),
        }
        self.ended();
    }

    /// So many have ended.
    pub fn count(&self) -> u64 {
        self.ended.load(Ordering::SeqCst)
    }

    fn ended(&self) {
        let ended = self.ended.fetch_add(1, Ordering::SeqCst) + 1;
        if ended == self.goal.load(Ordering::SeqCst) {
            self.reached.notify_one();
        }
    }

    /// Ready when so many have ended; may come too late for a moment, never too early.
    pub async fn until(&self, goal: u64) {
        self.goal.store(goal, Ordering::SeqCst);
        while self.count() < goal {
            self.reached.notified().await;
        }
    }

    /// Nothing panics while it is held.
    fn left(&self) -> MutexGuard<'_, Left> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::{PrivateKeyDer, ServerName};
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;
    use tokio_rustls::client::TlsStream as ClientStream;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;

    /// A connection: what is to be ended, and its client.
    async fn pair() -> (Parting, ClientStream<TcpStream>) {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["localhost".into()])
            .unwrap()
            .self_signed(&key)
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            )
            .unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connected = TcpStream::connect(listener.local_addr().unwrap());
        let (accepted, connected) = tokio::join!(listener.accept(), connected);
        let name = ServerName::try_from("localhost").unwrap();
        let (server, client) = tokio::join!(
            TlsAcceptor::from(Arc::new(server)).accept(Socket::new(accepted.unwrap().0)),
            TlsConnector::from(Arc::new(client)).connect(name, connected.unwrap()),
        );
        let parting = Parting {
            tls: Box::new(server.unwrap()),
            place: None,
        };
        (parting, client.unwrap())
    }

    /// All that the client still reads: an error where the goodbye is missing.
    async fn rest(client: &mut ClientStream<TcpStream>) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        client.read_to_end(&mut all).await?;
        Ok(all)
    }

    #[tokio::test]
    async fn the_goodbye_is_said() {
        let (parting, mut client) = pair().await;
        parting.end(&Handle::current());
        assert_eq!(rest(&mut client).await.unwrap(), b"");
        // A stream that is only dropped has none.
        let (parting, mut client) = pair().await;
        drop(parting);
        let cut = rest(&mut client).await.unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn a_peer_that_reads_late_misses_nothing() {
        let (mut parting, mut client) = pair().await;
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut sent = 0;
        while let Poll::Ready(count) =
            Pin::new(&mut parting.tls).poll_write(&mut context, &[7; 4096])
        {
            sent += count.unwrap();
            // Lets the kernel say so when it takes no more.
            tokio::task::yield_now().await;
        }
        parting.end(&Handle::current());
        let all = rest(&mut client).await.unwrap();
        assert!(
            all.len() >= sent && all.iter().all(|byte| *byte == 7),
            "{sent}"
        );
    }

    #[tokio::test]
    async fn a_place_is_given_back_once_nobody_waits_for_a_goodbye() {
        let places = Arc::new(tokio::sync::Semaphore::new(2));
        let partings = Arc::new(Partings::default());
        let place = || Arc::clone(&places).try_acquire_owned().ok();
        let (mut first, one) = pair().await;
        let (mut second, other) = pair().await;
        (first.place, second.place) = (place(), place());
        // Before they leave: from then on the places may come back at any time.
        assert!(place().is_none());
        let attended = partings.attend(|| {}).unwrap();
        partings.leave(first);
        partings.leave(second);
        for client in &mut [one, other] {
            assert_eq!(rest(client).await.unwrap(), b"");
        }
        // Also when nobody attends any more.
        drop(attended);
        let both = tokio::time::timeout(Duration::from_secs(10), places.acquire_many(2));
        drop(both.await.unwrap().unwrap());
    }

    #[test]
    fn turns_come_by_the_pace_and_make_up_for_a_little_only() {
        let began = clock::monotonic();
        let mut pace = Pace::new(began);
        assert_eq!(pace.until_next(began), PACE);
        assert_eq!(pace.until_next(began + PACE), PACE);
        // One turn late: the next two come without a wait.
        let late = began + 4 * PACE;
        assert_eq!(pace.until_next(late), Duration::ZERO);
        assert_eq!(pace.until_next(late), Duration::ZERO);
        assert_eq!(pace.until_next(late), PACE);
        // Much too late: no more than the credit is made good.
        let later = late + 10 * CREDIT;
        let turns = (0..1000).take_while(|_| pace.until_next(later).is_zero());
        assert_eq!(turns.count() as u128, CREDIT.as_nanos() / PACE.as_nanos());
        // Turns that came before they were due are paid for up to the credit.
        let early = later + 10 * CREDIT;
        assert!((0..1000).all(|_| pace.until_next(early) <= CREDIT));
        assert_eq!(pace.until_next(early), CREDIT);
        assert_eq!(pace.until_next(early + CREDIT), PACE);
    }

    #[tokio::test]
    async fn of_many_that_wait_none_waits_for_the_pace() {
        let partings = Partings::default();
        for waiting in 1..=HURRIED {
            assert!(!partings.are_hurried(), "{waiting}");
            let (parting, _) = pair().await;
            partings.left().streams.push_back(parting);
        }
        assert!(partings.are_hurried());
    }

    #[tokio::test]
    async fn without_a_thread_or_with_too_many_before_it_a_stream_ends_at_once() {
        let partings = Arc::new(Partings::default());
        let (parting, mut client) = pair().await;
        partings.leave(parting);
        assert_eq!(partings.count(), 1);
        assert_eq!(rest(&mut client).await.unwrap(), b"");
        // Attended, but by nobody who would come: one waits, and beyond the bound one does not.
        partings.left().attended = Some(Handle::current());
        let (parting, mut waiting) = pair().await;
        partings.leave(parting);
        assert_eq!((partings.count(), partings.left().streams.len()), (1, 1));
        let soon = tokio::time::timeout(Duration::from_millis(50), rest(&mut waiting));
        assert!(soon.await.is_err());
        partings.left().most = 1;
        let (parting, mut client) = pair().await;
        partings.leave(parting);
        assert_eq!((partings.count(), partings.left().streams.len()), (2, 1));
        assert_eq!(rest(&mut client).await.unwrap(), b"");
    }

    #[tokio::test]
    async fn the_thread_ends_what_is_left_to_it_and_calls_the_next() {
        let partings = Arc::new(Partings::default());
        let calls = Arc::new(AtomicU64::new(0));
        let attended = partings.attend({
            let calls = Arc::clone(&calls);
            move || {
                calls.fetch_add(1, Ordering::SeqCst);
            }
        });
        assert!(attended.is_some());
        for _ in 0..3 {
            let (parting, mut client) = pair().await;
            partings.leave(parting);
            assert_eq!(rest(&mut client).await.unwrap(), b"");
        }
        partings.until(3).await;
        drop(attended);
        // The thread lets go of what it holds when it ends.
        while Arc::strong_count(&calls) > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(calls.load(Ordering::SeqCst), 3);
    }
}
