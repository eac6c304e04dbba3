//! Lines of JSON-RPC as Streamable HTTP, in both eras: what the raw stream does over one connection,
//! done by requests and event streams.
//!
//! A modern request is cancelled by dropping its stream. A legacy session is opened by `initialize`,
//! listened to by a GET, and ended by a DELETE. What breaks the connection ends the lines, so that
//! the bridge connects again as it does for every transport.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio_rustls::client::TlsStream;

use super::answer::{Exchange, Lost};
use super::connector::{client, endpoint};
use super::mirror::Head;
use crate::client::bridge::error;
use crate::client::dial::Dialer;
use crate::client::farewell::Farewells;
use crate::client::fault::ClientError;
use crate::client::lines::{LineError, Lines, MAX_LINE};

/// Bytes between the lines' user and the engine.
const PIPE: usize = 64 * 1024;
/// Lines that wait for a user that does not read.
const QUEUE: usize = 16;
/// Requests in flight; a further one is answered with an error.
const MOST: usize = 256;
/// How long a server may take to accept a notification.
const ACCEPTING: Duration = Duration::from_secs(10);

/// The lines. What ended them is the error of the last read.
#[derive(Debug)]
pub struct HttpLines {
    pipe: DuplexStream,
    ended_by: Arc<Mutex<Option<io::Error>>>,
    /// Dropped with this, which tells the engine.
    _present: mpsc::Sender<()>,
}

/// Lines over a connection that was just made, and further ones as they are needed.
///
/// # Errors
/// The server's address cannot be an HTTP address.
pub fn open(
    dialer: Arc<Dialer>,
    first: TlsStream<TcpStream>,
    farewells: &Farewells,
) -> Result<HttpLines, ClientError> {
    let uri = endpoint(&dialer)?;
    let peer = dialer.target().address().into();
    let (near, far) = tokio::io::duplex(PIPE);
    let (reader, writer) = tokio::io::split(far);
    let (out, queue) = mpsc::channel(QUEUE);
    let (present, absent) = mpsc::channel(1);
    let ended_by = Arc::new(Mutex::new(None));
    let exchange = Exchange {
        http: client(dialer, first),
        uri,
        peer,
        shared: Arc::default(),
        out,
    };
    let engine = Engine {
        exchange,
        lines: Lines::new(MAX_LINE),
        reader,
        running: JoinSet::new(),
        by_task: HashMap::new(),
        standing: false,
        absent,
    };
    farewells.run(engine.run(write(writer, queue), Arc::clone(&ended_by)));
    Ok(HttpLines {
        pipe: near,
        ended_by,
        _present: present,
    })
}

async fn write(mut writer: WriteHalf<DuplexStream>, mut queue: mpsc::Receiver<Bytes>) {
    while let Some(line) = queue.recv().await {
        if writer.write_all(&line).await.is_err() {
            return;
        }
    }
    let _ = writer.shutdown().await;
}

struct Engine {
    exchange: Exchange,
    lines: Lines,
    reader: ReadHalf<DuplexStream>,
    running: JoinSet<Result<(), Lost>>,
    /// The running tasks: of which request, whether a modern one.
    by_task: HashMap<Id, Running>,
    /// Whether the stream of a legacy session is open.
    standing: bool,
    /// Never brings anything; closed when the lines are dropped.
    absent: mpsc::Receiver<()>,
}

struct Running {
    key: Option<String>,
    modern: bool,
    handle: AbortHandle,
}

impl Engine {
    async fn run(
        mut self,
        writing: impl Future<Output = ()> + Send + 'static,
        ended_by: Arc<Mutex<Option<io::Error>>>,
    ) {
        let writing = tokio::spawn(writing);
        if let Err(Lost(error)) = self.work().await {
            *ended_by.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
        self.running.shutdown().await;
        let Self { exchange, .. } = self;
        let farewell = tokio::time::timeout(Duration::from_secs(1), exchange.end());
        let _ = farewell.await;
        // With the last sender gone the writer ends the lines.
        drop(exchange);
        let _ = writing.await;
    }

    async fn work(&mut self) -> Result<(), Lost> {
        let mut ended = false;
        loop {
            // A session's own stream goes on for ever: nobody waits for it.
            if ended && self.by_task.values().all(|running| running.key.is_none()) {
                return Ok(());
            }
            tokio::select! {
                biased;
                _ = self.absent.recv() => return Ok(()),
                Some(done) = self.running.join_next_with_id(), if !self.running.is_empty() => {
                    self.done(done)?;
                }
                line = self.lines.next(&mut self.reader), if !ended => match line {
                    Ok(Some(line)) => self.line(line).await?,
                    Ok(None) | Err(LineError::Io(_)) => ended = true,
                    Err(LineError::TooLong(max)) => {
                        self.say(error("null", &format!("a line is longer than {max} bytes"))).await;
                    }
                },
            }
        }
    }

    fn done(
        &mut self,
        done: Result<(Id, Result<(), Lost>), tokio::task::JoinError>,
    ) -> Result<(), Lost> {
        match done {
            Ok((id, outcome)) => {
                self.by_task.remove(&id);
                outcome
            }
            // Cancelled: it was taken off the list by then.
            Err(failed) => {
                self.by_task.remove(&failed.id());
                Ok(())
            }
        }
    }

    async fn line(&mut self, line: Bytes) -> Result<(), Lost> {
        let text = line
            .strip_prefix(b"\xef\xbb\xbf")
            .unwrap_or(&line)
            .trim_ascii();
        if text.is_empty() {
            return Ok(());
        }
        let text = line.slice_ref(text);
        let head = Head::of(&text);
        if let Some(cancelled) = &head.cancels
            && self.cancel(&cancelled.key)
        {
            return Ok(());
        }
        if head.is_request() {
            if self.running.len() >= MOST {
                let token = head.id.as_ref().map_or("null", |id| &id.token);
                let answer = error(token, "too many requests are in flight");
                self.say(answer).await;
                return Ok(());
            }
            let key = head.id.as_ref().map(|id| id.key.clone());
            let modern = head.revision.is_some();
            self.start(key, modern, self.exchange.clone().carry(text, head));
            return Ok(());
        }
        // In order: a request that follows may build on it.
        let initialized = head.is("notifications/initialized");
        let sending = self.exchange.clone().carry(text, head);
        match tokio::time::timeout(ACCEPTING, sending).await {
            Ok(sent) => sent?,
            Err(_) => return Err(Lost(io::ErrorKind::TimedOut.into())),
        }
        if initialized
            && self.exchange.shared.is_open()
            && !std::mem::replace(&mut self.standing, true)
        {
            self.start(None, false, self.exchange.clone().stand_by());
        }
        Ok(())
    }

    fn start(
        &mut self,
        key: Option<String>,
        modern: bool,
        task: impl Future<Output = Result<(), Lost>> + Send + 'static,
    ) {
        let handle = self.running.spawn(task);
        self.by_task.insert(
            handle.id(),
            Running {
                key,
                modern,
                handle,
            },
        );
    }

    /// Cancels a modern request by dropping its stream. False for any other: the server is told.
    fn cancel(&mut self, key: &str) -> bool {
        let mut found = false;
        for running in self.by_task.values() {
            if running.modern && running.key.as_deref() == Some(key) {
                running.handle.abort();
                found = true;
            }
        }
        found
    }

    async fn say(&self, line: Bytes) {
        // Without a reader there is nobody to tell.
        let _ = self.exchange.out.send(line).await;
    }
}

impl HttpLines {
    fn ended(&self) -> io::Result<()> {
        let mut ended_by = self.ended_by.lock().unwrap_or_else(PoisonError::into_inner);
        ended_by.take().map_or(Ok(()), Err)
    }
}

impl AsyncRead for HttpLines {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.pipe).poll_read(cx, buffer))?;
        if buffer.filled().len() == before && buffer.remaining() > 0 {
            self.ended()?;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for HttpLines {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}
