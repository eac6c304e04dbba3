//! How fast a connection gets on: whether a request is being answered, since when a request's head
//! is under way, since when the peer has not taken what was written. The stream tells, the
//! connection's task asks; neither needs a timer of its own for a request.
//!
//! On HTTP/1.1 the stream also looks whether the peer leaves while it is owed an answer. hyper would do so by
//! reading on, into another buffer of 8 KiB, for every request, for the one before is still lent out.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use crate::clock::{self, AtomicMoment};

use super::unparsed;

/// What is read of the next request while one is being answered, bytes.
const AHEAD: usize = 512;

/// Whether the peer's end is looked for (HTTP/1.1): [`Paced::poll_left`].
mod look {
    /// A request is being read, or waited for: its end is seen by who reads.
    pub const NOT: u8 = 0;
    /// A request was read whole; most are answered at the task's next turn.
    pub const SOON: u8 = 1;
    /// It was not.
    pub const NOW: u8 = 2;
    /// The peer has closed its side while it was owed an answer.
    pub const LEFT: u8 = 3;
}

/// Bytes of answers that may wait on one connection before it is given no more work.
const UNSENT: usize = 8 * 1024 * 1024;

/// The pace of one connection.
#[derive(Debug)]
pub struct Pace {
    began: Instant,
    /// HTTP/1.1, where bytes between requests are the head of the next one.
    heads: bool,
    head: AtomicMoment,
    /// Since when the stream takes nothing that is written to it.
    blocked: AtomicMoment,
    /// Since when none of the answers that are counted was sent (HTTP/2).
    stalled: AtomicMoment,
    heard: AtomicMoment,
    /// Bytes came, and nobody has looked at the clock since: who does so for a reason of its own tells when
    /// that was, and who must know it else looks.
    unheard: AtomicBool,
    /// They begin a request's head.
    unheard_head: AtomicBool,
    busy: AtomicUsize,
    asked: AtomicBool,
    /// Since when a request's body is under way (HTTP/1.1).
    body: AtomicMoment,
    /// That body is too late.
    slow: AtomicBool,
    reader: AtomicWaker,
    /// Bytes of answers that were not sent yet (HTTP/2).
    unsent: AtomicUsize,
    sent: Notify,
    /// Bytes came while a request that was read whole was being answered: the next one's head.
    ahead: AtomicBool,
    /// One of [`look`].
    look: AtomicU8,
}

/// What is late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// The first byte, or on HTTP/2 the first request.
    First,
    /// The rest of a request's head.
    Head,
    /// The rest of a request's body (HTTP/1.1): [`Pace::give_up_body`] lets it be answered.
    Body,
    /// The peer's reading.
    Reading,
    /// Anything at all.
    Idle,
}

/// How long each may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Until the first request.
    pub first: Duration,
    /// A request's head.
    pub head: Duration,
    /// A request's body.
    pub body: Duration,
    /// A write.
    pub write: Duration,
    /// Silence without a request in flight.
    pub idle: Option<Duration>,
}

impl Pace {
    /// `heads`: whether bytes between requests are the head of the next one (HTTP/1.1).
    #[must_use]
    pub fn new(heads: bool) -> Arc<Self> {
        let began = clock::monotonic();
        Arc::new(Self {
            began,
            heads,
            head: AtomicMoment::never(),
            blocked: AtomicMoment::never(),
            stalled: AtomicMoment::never(),
            heard: AtomicMoment::of(began),
            unheard: AtomicBool::new(false),
            unheard_head: AtomicBool::new(false),
            busy: AtomicUsize::new(0),
            asked: AtomicBool::new(false),
            body: AtomicMoment::never(),
            slow: AtomicBool::new(false),
            reader: AtomicWaker::new(),
            unsent: AtomicUsize::new(0),
            sent: Notify::new(),
            ahead: AtomicBool::new(false),
            look: AtomicU8::new(look::NOT),
        })
    }

    /// A request's head is whole.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::Relaxed);
        self.asked.store(true, Ordering::Relaxed);
        self.head.clear();
        self.unheard_head.store(false, Ordering::Relaxed);
        Busy {
            pace: Arc::clone(self),
            over: None,
        }
    }

    /// Whether a request's head was ever whole.
    #[must_use]
    pub fn has_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Whether the peer has closed its side while it was owed an answer (HTTP/1.1).
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.look.load(Ordering::Relaxed) == look::LEFT
    }

    /// Requests that are not answered to the end.
    #[must_use]
    pub fn busy(&self) -> usize {
        self.busy.load(Ordering::Relaxed)
    }

    /// Whether unsent answers are counted: on HTTP/1.1 the stream itself always says that its peer
    /// does not read.
    #[must_use]
    pub const fn counts(&self) -> bool {
        !self.heads
    }

    /// Counts these bytes until they are sent.
    pub fn count(self: &Arc<Self>, bytes: Bytes) -> Bytes {
        if self.unsent.fetch_add(bytes.len(), Ordering::Relaxed) == 0 {
            self.stalled.set(clock::monotonic());
        }
        Bytes::from_owner(Unsent {
            bytes,
            pace: Arc::clone(self),
        })
    }

    fn was_sent(&self, bytes: usize) {
        let left = self.unsent.fetch_sub(bytes, Ordering::Relaxed) - bytes;
        if left == 0 {
            self.stalled.clear();
        } else {
            self.stalled.set(clock::monotonic());
        }
        self.sent.notify_waiters();
    }

    /// Whether the peer must take more of its answers before it is given further work (HTTP/2).
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.unsent.load(Ordering::Relaxed) > UNSENT
    }

    /// Ready when the peer has taken enough of its answers to be given more.
    pub async fn room(&self) {
        while self.is_full() {
            let sent = self.sent.notified();
            if !self.is_full() {
                return;
            }
            sent.await;
        }
    }

    /// Tells whoever collects the body that it is too late.
    pub fn give_up_body(&self) {
        self.body.clear();
        self.slow.store(true, Ordering::Release);
        self.reader.wake();
    }

    fn read(&self) {
        self.unheard.store(true, Ordering::Relaxed);
        if !self.heads {
            return;
        }
        if self.busy() > 0 {
            self.ahead.store(true, Ordering::Relaxed);
        } else if !self.head.is_set() {
            self.unheard_head.store(true, Ordering::Relaxed);
        }
    }

    /// What came was heard at this moment, which is now: saves a look at the clock.
    pub fn heard_at(&self, now: Instant) {
        if self.unheard.load(Ordering::Relaxed) {
            self.unheard.store(false, Ordering::Relaxed);
            self.heard.set(now);
            if self.unheard_head.load(Ordering::Relaxed) {
                self.unheard_head.store(false, Ordering::Relaxed);
                self.head.set(now);
            }
        }
    }

    /// The same for who has not looked.
    fn hear(&self) {
        if self.unheard.load(Ordering::Relaxed) {
            self.heard_at(clock::monotonic());
        }
    }

    fn stall(&self) {
        if !self.blocked.is_set() {
            self.blocked.set(clock::monotonic());
        }
    }

    fn wrote(&self) {
        if self.blocked.is_set() {
            self.blocked.clear();
        }
    }

    /// What is late first, and when.
    #[must_use]
    pub fn deadline(&self, patience: &Patience) -> Option<(Instant, Late)> {
        self.hear();
        let mut first = None;
        let mut take = |since: Option<Instant>, limit: Duration, late: Late| {
            let Some(at) = since.map(|since| since + limit) else {
                return;
            };
            if first.is_none_or(|(known, _)| at < known) {
                first = Some((at, late));
            }
        };
        // Small answers, and what HTTP/2 says by itself, are not counted once h2 has them; that
        // they do not go out is seen at the stream. That it carries other things and not the
        // answers is seen by counting.
        take(self.blocked.get(), patience.write, Late::Reading);
        take(self.stalled.get(), patience.write, Late::Reading);
        take(self.head.get(), patience.head, Late::Head);
        take(self.body.get(), patience.body, Late::Body);
        if !self.has_asked() {
            take(Some(self.began), patience.first, Late::First);
        } else if let Some(idle) = patience.idle.filter(|_| self.busy() == 0) {
            take(self.heard.get(), idle, Late::Idle);
        }
        first
    }
}

/// Bytes that are on their way.
struct Unsent {
    bytes: Bytes,
    pace: Arc<Pace>,
}

impl AsRef<[u8]> for Unsent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Unsent {
    fn drop(&mut self) {
        self.pace.was_sent(self.bytes.len());
    }
}

/// One request that is being answered.
#[derive(Debug)]
pub struct Busy {
    pace: Arc<Pace>,
    /// When it was answered, if somebody knows.
    over: Option<Instant>,
}

impl Busy {
    /// It was answered at this moment: saves a look at the clock.
    pub fn over_at(mut self, now: Instant) {
        self.over = Some(now);
    }

    /// Its body is under way. Whether the connection keeps the time for it: on HTTP/2, where bodies
    /// come side by side, it does not.
    #[must_use]
    pub fn body_begins(&self) -> bool {
        if self.pace.heads {
            self.pace.slow.store(false, Ordering::Relaxed);
            self.pace.hear();
            self.pace.body.set_as(&self.pace.heard);
        }
        self.pace.heads
    }

    /// Whether the connection says that the body is too late; else it wakes the reader when it is.
    pub fn poll_slow(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.pace.reader.register(cx.waker());
        if self.pace.slow.load(Ordering::Acquire) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Its body is whole: further bytes belong to the next request.
    pub fn body_done(&self) {
        self.pace.body.clear();
        self.pace.ahead.store(false, Ordering::Relaxed);
        if self.pace.heads {
            self.pace.look.store(look::SOON, Ordering::Relaxed);
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let pace = &self.pace;
        pace.body.clear();
        if !pace.has_left() {
            pace.look.store(look::NOT, Ordering::Relaxed);
        }
        // Not in one: what reads ahead is the task that this is dropped by.
        let ahead = pace.ahead.load(Ordering::Relaxed);
        if ahead {
            pace.ahead.store(false, Ordering::Relaxed);
        }
        if pace.busy.fetch_sub(1, Ordering::Relaxed) == 1 {
            let now = self.over.unwrap_or_else(clock::monotonic);
            pace.unheard.store(false, Ordering::Relaxed);
            pace.heard.set(now);
            if pace.heads && ahead {
                pace.head.set(now);
            }
        }
    }
}

/// A stream that tells its pace, and gives back first what was read of it already.
#[derive(Debug)]
pub struct Paced<S> {
    stream: S,
    read: Bytes,
    pace: Arc<Pace>,
    /// A refusal of hyper's own that goes out completed, how much of it has, and its length before.
    refusal: Option<Box<(Vec<u8>, usize, usize)>>,
}

impl<S> Paced<S> {
    /// `read`: what was read of the stream before.
    pub const fn new(stream: S, read: Bytes, pace: Arc<Pace>) -> Self {
        Self {
            stream,
            read,
            pace,
            refusal: None,
        }
    }

    /// The stream itself, and what was read of it and given to nobody.
    pub fn into_parts(self) -> (S, Bytes) {
        (self.stream, self.read)
    }

    /// Writes what is to go out in place of these bytes, where something is; `None`: they are.
    fn poll_refusal(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Option<Poll<io::Result<usize>>>
    where
        S: AsyncWrite + Unpin,
    {
        if self.refusal.is_none() {
            if !self.pace.heads {
                return None;
            }
            self.refusal = Some(Box::new((unparsed::completed(bytes)?, 0, bytes.len())));
        }
        let (text, sent, length) = &mut **self.refusal.as_mut()?;
        while *sent < text.len() {
            match Pin::new(&mut self.stream).poll_write(cx, &text[*sent..]) {
                Poll::Ready(Ok(count @ 1..)) => *sent += count,
                Poll::Ready(Ok(_)) => {
                    return Some(Poll::Ready(Err(io::ErrorKind::WriteZero.into())));
                }
                other => return Some(other),
            }
        }
        let length = *length;
        self.refusal = None;
        Some(Poll::Ready(Ok(length)))
    }

    /// Looks whether the peer has left while a request of its that was read whole is being answered. What
    /// comes instead is kept for who reads.
    fn poll_left(&mut self, cx: &mut Context<'_>) -> io::Result<()>
    where
        S: AsyncRead + Unpin,
    {
        match self.pace.look.load(Ordering::Relaxed) {
            look::SOON => {
                self.pace.look.store(look::NOW, Ordering::Relaxed);
                cx.waker().wake_by_ref();
                return Ok(());
            }
            look::NOW if self.read.is_empty() => {}
            _ => return Ok(()),
        }
        let mut room = [MaybeUninit::uninit(); AHEAD];
        let mut buffer = ReadBuf::uninit(&mut room);
        match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
            Poll::Pending => Ok(()),
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                self.pace.look.store(look::LEFT, Ordering::Relaxed);
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            Poll::Ready(Ok(())) => {
                self.read = Bytes::copy_from_slice(buffer.filled());
                self.pace.read();
                Ok(())
            }
        }
    }

    fn written(&self, done: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &done {
            Poll::Pending => self.pace.stall(),
            Poll::Ready(_) => self.pace.wrote(),
        }
        done
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.read.is_empty() {
            let count = self.read.len().min(buffer.remaining());
            buffer.put_slice(&self.read[..count]);
            self.read.advance(count);
            if self.read.is_empty() {
                // Nothing of it is left, and yet it would hold its memory for as long as this lives.
                self.read = Bytes::new();
            }
            self.pace.read();
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.pace.read();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let done = match self.poll_refusal(cx, bytes) {
            Some(done) => done,
            None => Pin::new(&mut self.stream).poll_write(cx, bytes),
        };
        self.written(done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = slices.first().map_or(&[][..], |slice| slice);
        let done = match self.poll_refusal(cx, first) {
            Some(done) => done,
            None => Pin::new(&mut self.stream).poll_write_vectored(cx, slices),
        };
        self.written(done)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper asks for this in each of its turns.
        self.poll_left(cx)?;
        let done = Pin::new(&mut self.stream).poll_flush(cx);
        match &done {
            Poll::Pending => self.pace.stall(),
            Poll::Ready(_) => self.pace.wrote(),
        }
        done
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.stream).poll_shutdown(cx);
        if done.is_pending() {
            self.pace.stall();
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const PATIENCE: Patience = Patience {
        first: Duration::from_secs(60),
        head: Duration::from_secs(10),
        body: Duration::from_secs(20),
        write: Duration::from_secs(30),
        idle: Some(Duration::from_secs(100)),
    };

    fn late(pace: &Pace) -> Option<Late> {
        pace.deadline(&PATIENCE).map(|(_, late)| late)
    }

    #[tokio::test]
    async fn each_state_has_its_deadline() {
        let pace = Pace::new(true);
        assert_eq!(late(&pace), Some(Late::First));
        let (near, mut far) = tokio::io::duplex(8);
        let read = Bytes::from_static(b"GE");
        let mut stream = Paced::new(near, read, Arc::clone(&pace));
        let mut buffer = [0; 8];
        assert_eq!(stream.read(&mut buffer).await.unwrap(), 2);
        assert_eq!(late(&pace), Some(Late::Head));
        let busy = pace.begin();
        assert_eq!(late(&pace), None);
        assert!(busy.body_begins());
        assert_eq!(late(&pace), Some(Late::Body));
        // A body, then the beginning of the next request.
        far.write_all(b"body").await.unwrap();
        assert_eq!(stream.read(&mut buffer).await.unwrap(), 4);
        busy.body_done();
        drop(busy);
        assert_eq!(late(&pace), Some(Late::Idle));
        let busy = pace.begin();
        busy.body_done();
        far.write_all(b"GET").await.unwrap();
        assert_eq!(stream.read(&mut buffer).await.unwrap(), 3);
        drop(busy);
        assert_eq!(late(&pace), Some(Late::Head));
        let _busy = pace.begin();
        let mut writing = Box::pin(stream.write_all(b"0123456789"));
        assert!(futures_util::poll!(writing.as_mut()).is_pending());
        assert_eq!(late(&pace), Some(Late::Reading));
        let mut all = [0; 10];
        let (done, read) = tokio::join!(writing, far.read_exact(&mut all));
        done.unwrap();
        read.unwrap();
        assert_eq!(late(&pace), None);
    }

    #[tokio::test]
    async fn who_looks_at_the_clock_tells_when_something_came() {
        let pace = Pace::new(true);
        let (near, mut far) = tokio::io::duplex(8);
        let mut stream = Paced::new(near, Bytes::new(), Arc::clone(&pace));
        let mut buffer = [0; 8];
        let moment = |seconds| clock::monotonic() + Duration::from_secs(seconds);
        let (one, two) = (moment(1), moment(2));
        far.write_all(b"GET").await.unwrap();
        assert_eq!(stream.read(&mut buffer).await.unwrap(), 3);
        pace.heard_at(one);
        // Nothing has come since.
        pace.heard_at(two);
        let head = (one + PATIENCE.head, Late::Head);
        assert_eq!(pace.deadline(&PATIENCE), Some(head));
        drop(pace.begin());
        far.write_all(b"GET").await.unwrap();
        assert_eq!(stream.read(&mut buffer).await.unwrap(), 3);
        // The head was whole before anybody looked.
        let busy = pace.begin();
        pace.heard_at(two);
        assert_eq!(late(&pace), None);
        assert_eq!(pace.heard.get(), Some(two));
        drop(busy);
        assert_eq!(late(&pace), Some(Late::Idle));
    }

    async fn turn(stream: &mut Paced<tokio::io::DuplexStream>) -> io::Result<()> {
        std::future::poll_fn(|cx| Pin::new(&mut *stream).poll_flush(cx)).await
    }

    #[tokio::test]
    async fn who_leaves_while_it_is_owed_an_answer_is_noticed() {
        let pace = Pace::new(true);
        let (near, far) = tokio::io::duplex(8);
        let mut stream = Paced::new(near, Bytes::new(), Arc::clone(&pace));
        let busy = pace.begin();
        busy.body_done();
        // The first turn only has the task come again; then nothing has come, and nothing is wrong.
        for _ in 0..3 {
            turn(&mut stream).await.unwrap();
        }
        assert!(!pace.has_left());
        drop(far);
        let error = turn(&mut stream).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        drop(busy);
        assert!(pace.has_left());
    }

    #[tokio::test]
    async fn what_comes_before_an_answer_is_kept_for_who_reads_next() {
        let pace = Pace::new(true);
        let (near, mut far) = tokio::io::duplex(8);
        let mut stream = Paced::new(near, Bytes::new(), Arc::clone(&pace));
        let busy = pace.begin();
        busy.body_done();
        turn(&mut stream).await.unwrap();
        far.write_all(b"POST").await.unwrap();
        turn(&mut stream).await.unwrap();
        far.write_all(b" /mc").await.unwrap();
        drop(far);
        turn(&mut stream).await.unwrap();
        drop(busy);
        // A head is under way now, and has been since the answer.
        assert_eq!((late(&pace), pace.has_left()), (Some(Late::Head), false));
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"POST /mc");
    }

    #[tokio::test]
    async fn nothing_is_read_past_who_reads() {
        let pace = Pace::new(true);
        let (near, mut far) = tokio::io::duplex(8);
        let mut stream = Paced::new(near, Bytes::new(), Arc::clone(&pace));
        far.write_all(b"body").await.unwrap();
        for asked in [false, true] {
            let busy = asked.then(|| pace.begin());
            for _ in 0..3 {
                turn(&mut stream).await.unwrap();
            }
            assert!(stream.read.is_empty(), "{asked}");
            drop(busy);
        }
    }

    #[tokio::test]
    async fn answers_on_http_2_are_late_until_they_are_sent() {
        let pace = Pace::new(false);
        let _busy = pace.begin();
        let (one, two) = (
            pace.count(Bytes::from_static(b"one")),
            pace.count(Bytes::from_static(b"two")),
        );
        assert_eq!((&one[..], late(&pace)), (&b"one"[..], Some(Late::Reading)));
        drop(one);
        assert_eq!(late(&pace), Some(Late::Reading));
        drop(two);
        assert_eq!(late(&pace), None);
        let much = pace.count(Bytes::from(vec![0; UNSENT + 1]));
        let mut waiting = Box::pin(pace.room());
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        drop(much);
        waiting.await;
    }

    #[tokio::test]
    async fn a_stream_of_http_2_that_takes_nothing_is_late_whatever_is_counted() {
        let pace = Pace::new(false);
        let (near, mut far) = tokio::io::duplex(8);
        let mut stream = Paced::new(near, Bytes::new(), Arc::clone(&pace));
        let _busy = pace.begin();
        let mut writing = Box::pin(stream.write_all(b"0123456789"));
        assert!(futures_util::poll!(writing.as_mut()).is_pending());
        assert_eq!(late(&pace), Some(Late::Reading));
        // That another answer goes out elsewhere does not help it.
        drop(pace.count(Bytes::from_static(b"one")));
        assert_eq!(late(&pace), Some(Late::Reading));
        let mut all = [0; 10];
        let (done, read) = tokio::join!(writing, far.read_exact(&mut all));
        done.unwrap();
        read.unwrap();
        assert_eq!(late(&pace), None);
    }

    #[tokio::test]
    async fn what_was_read_before_is_given_back_with_its_memory() {
        let held: Arc<[u8]> = Arc::from(&b"GET /"[..]);
        let read = Bytes::from_owner(Arc::clone(&held));
        let (near, _far) = tokio::io::duplex(8);
        let mut stream = Paced::new(near, read, Pace::new(true));
        let mut buffer = [0; 3];
        stream.read_exact(&mut buffer).await.unwrap();
        assert_eq!((&buffer, Arc::strong_count(&held)), (b"GET", 2));
        assert_eq!(stream.read(&mut buffer).await.unwrap(), 2);
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[tokio::test]
    async fn bytes_of_http_2_are_no_heads() {
        let pace = Pace::new(false);
        let (near, _far) = tokio::io::duplex(8);
        let mut stream = Paced::new(near, Bytes::from_static(b"PRI"), Arc::clone(&pace));
        let mut buffer = [0; 8];
        assert_eq!(stream.read(&mut buffer).await.unwrap(), 3);
        assert_eq!(late(&pace), Some(Late::First));
        drop(pace.begin());
        assert_eq!(late(&pace), Some(Late::Idle));
    }
}
