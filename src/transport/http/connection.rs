//! One HTTP connection on hyper, HTTP/1.1 or HTTP/2, with every bound set.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::Request;
use hyper::Response;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::beside::{Beside, Inbox};
use super::body::ReplyBody;
use super::gathered::Gathered;
use super::pace::Paced;
use super::preface::{HTTP1_REQUIRED, SETTINGS};

/// Bytes of a request's head.
const HEAD_BYTES: usize = 32 * 1024;
/// Bytes that are read or written at once on HTTP/1.1.
const BUFFER: usize = 64 * 1024;
/// Streams that were reset before they were looked at, before the connection ends (CVE-2023-44487).
const PENDING_RESETS: usize = 20;
/// Streams that the server itself had to reset, before the connection ends (CVE-2025-8671).
const OWN_RESETS: usize = 256;
/// Window of one stream, bytes: a small request fits in whole.
const STREAM_WINDOW: u32 = 256 * 1024;
/// Window of a connection, bytes.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of one stream that wait to be written.
const SEND_BUFFER: usize = 128 * 1024;

/// What differs between servers.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Requests of one HTTP/2 connection at once.
    pub streams: u32,
    /// Whether WebSocket may come over HTTP/2 (RFC 8441).
    pub extended_connect: bool,
}

type Http1<S, H> = http1::UpgradeableConnection<TokioIo<Paced<S>>, H>;
type Http2<S, H> = http2::Connection<TokioIo<Gathered<Paced<S>>>, H, Inbox>;

/// One connection, to be polled to its end.
pub enum Connection<S, H>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Service<Request<Incoming>, Response = Response<ReplyBody>>,
    H::Error: std::error::Error + Send + Sync + 'static,
    H::Future: Send + 'static,
{
    /// HTTP/1.1 and its upgrades.
    One(Pin<Box<Http1<S, H>>>),
    /// HTTP/2, and its requests.
    Two(Pin<Box<Http2<S, H>>>, Box<Beside>),
}

impl<S, H> Connection<S, H>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Service<Request<Incoming>, Response = Response<ReplyBody>>,
    H::Error: std::error::Error + Send + Sync + 'static,
    H::Future: Send + 'static,
{
    /// HTTP/1.1. Heads are timed by the [`Paced`] stream: hyper's own timer would also end a
    /// connection that rests between two requests. The number of header lines is hyper's own
    /// bound, 100: to name it would have room for them made on the heap with every request. That a peer
    /// leaves before its answer is seen by the stream, so hyper is told not to look
    /// (`half_close`).
    pub fn http1(stream: Paced<S>, handler: H) -> Self {
        let connection = http1::Builder::new()
            .header_read_timeout(None)
            .half_close(true)
            .max_header_size(HEAD_BYTES)
            .max_buf_size(BUFFER)
            .serve_connection(TokioIo::new(stream), handler)
            .with_upgrades();
        Self::One(Box::pin(connection))
    }

    /// HTTP/2.
    pub fn http2(stream: Paced<S>, bounds: &Bounds, handler: H) -> Self {
        let beside = Box::<Beside>::default();
        let mut builder = http2::Builder::new(beside.inbox());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(bounds.streams)
            .max_pending_accept_reset_streams(PENDING_RESETS)
            .max_local_error_reset_streams(OWN_RESETS)
            .max_header_list_size(u32::try_from(HEAD_BYTES).unwrap_or(u32::MAX))
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER);
        if bounds.extended_connect {
            builder.enable_connect_protocol();
        }
        let stream = TokioIo::new(Gathered::new(stream));
        let connection = builder.serve_connection(stream, handler);
        Self::Two(Box::pin(connection), beside)
    }

    /// Ready when the connection is over; on HTTP/1.1 also when it was upgraded.
    pub fn poll_run(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        match self {
            Self::One(connection) => connection.as_mut().poll(cx),
            Self::Two(connection, beside) => {
                // First what can be answered by now, so that the connection writes it all at once.
                beside.poll(cx);
                loop {
                    let over = connection.as_mut().poll(cx);
                    if over.is_ready() || !beside.poll(cx) {
                        return over;
                    }
                }
            }
        }
    }

    /// Takes no further request; ends when those under way are answered.
    pub fn graceful_shutdown(&mut self) {
        match self {
            Self::One(connection) => connection.as_mut().graceful_shutdown(),
            Self::Two(connection, _) => connection.as_mut().graceful_shutdown(),
        }
    }

    /// Answers the preface of HTTP/2 on a connection of HTTP/1.1, which hyper hands back without a
    /// word: in a frame to who begins with it, as a bad request to who has asked before.
    ///
    /// # Errors
    /// The peer is gone.
    pub async fn refuse_preface(self, has_asked: bool) -> io::Result<()>
    where
        H: Unpin,
    {
        let Self::One(connection) = self else {
            return Ok(());
        };
        let Some(parts) = Pin::into_inner(connection).into_parts() else {
            return Ok(());
        };
        let mut stream = parts.io.into_inner();
        let words = if has_asked {
            b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_vec()
        } else {
            [&SETTINGS[..], &HTTP1_REQUIRED].concat()
        };
        stream.write_all(&words).await?;
        stream.shutdown().await?;
        // A socket that is closed with unread bytes in it is reset, and the words may be lost.
        let mut rest = [0; 512];
        while stream.read(&mut rest).await? > 0 {}
        Ok(())
    }
}

/// The error of a handler that wants its connection closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection is to be closed")]
pub struct Gone;

impl From<Infallible> for Gone {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}
