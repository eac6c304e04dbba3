//! The last of a connection that goes with a crowd: the goodbye of TLS, the close of the socket, the
//! memory of both. That is half of what a close costs, most of it in the kernel, and nobody waits for
//! its result; so it is left to a thread of a lower priority, and the runtime's workers stay with those
//! who stay. The thread lives as long as the crowd is closing. What it does not get done in time, for
//! want of a processor, is done by whoever drops the stream, as without it.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::thread;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio_rustls::server::TlsStream;

use super::live::Entry;

/// How long the goodbye to a peer that does not read may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// By so much the thread steps back behind the workers. Not further: it holds locks of the allocator and
/// of the runtime for moments, and must not be kept from giving them back.
const NICE: i32 = 10;
/// So many may wait for the thread.
const WAITING: usize = 4096;

type Tls = Box<TlsStream<TcpStream>>;

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

    fn tls(&mut self) -> Pin<&mut TlsStream<TcpStream>> {
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
        self.tls().poll_read(cx, buffer)
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
            _place: self.place.take(),
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
    _place: Option<OwnedSemaphorePermit>,
}

impl Parting {
    /// The goodbye, and the end.
    fn end(mut self, runtime: &Handle) {
        let mut context = Context::from_waker(Waker::noop());
        if Pin::new(&mut self.tls)
            .poll_shutdown(&mut context)
            .is_pending()
        {
            // The peer does not read; whether it ever will is not this thread's to wait for.
            runtime.spawn(async move {
                let _ = tokio::time::timeout(PATIENCE, self.tls.shutdown()).await;
            });
        }
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

#[derive(Default)]
struct Left {
    streams: VecDeque<Parting>,
    /// Where the thread sends what it will not wait for; none without a thread.
    attended: Option<Handle>,
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
    /// Starts the thread. None when the system has no thread to give: then each stream is ended by
    /// whoever drops it.
    pub fn attend(self: &Arc<Self>) -> Option<Attended<'_>> {
        let runtime = Handle::current();
        let partings = Arc::clone(self);
        let of = runtime.clone();
        // First, or the thread would find nothing to wait for.
        self.left().attended = Some(runtime);
        let attended = Attended(self);
        let started = thread::Builder::new()
            .name("partings".into())
            .spawn(move || partings.see_off(&of));
        match started {
            Ok(_) => Some(attended),
            Err(cause) => {
                tracing::warn!("no thread for the closing of many connections: {cause}");
                None
            }
        }
    }

    /// What the thread does: until nobody attends and nothing is left.
    fn see_off(&self, runtime: &Handle) {
        // A system that is not Linux may refuse, or lower the whole process: neither is wrong.
        let _ = rustix::process::setpriority_process(None, NICE);
        while let Some(parting) = self.next() {
            parting.end(runtime);
            self.ended();
            // Holds no lock here, so whoever waits for a processor may have this one.
            thread::yield_now();
        }
    }

    fn next(&self) -> Option<Parting> {
        let waits = |left: &mut Left| left.streams.is_empty() && left.attended.is_some();
        let left = self.more.wait_while(self.left(), waits);
        left.unwrap_or_else(PoisonError::into_inner)
            .streams
            .pop_front()
    }

    fn leave(&self, parting: Parting) {
        let mut left = self.left();
        if left.attended.is_some() && left.streams.len() < WAITING {
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
            Ok(runtime) => parting.end(&runtime),
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
