//! Connections for hyper's client: ours, with our certificate; HTTP/2 where the server agrees.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper::body::Body;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tower_service::Service;

use crate::client::dial::Dialer;
use crate::client::fault::ClientError;
use crate::client::websocket::ENDPOINT;

/// How often a quiet HTTP/2 connection is asked for a sign of life, and how long it may take.
const ALIVE: Duration = Duration::from_secs(20);
/// Idle connections that are kept, and for how long.
const IDLE: usize = 8;
const IDLE_FOR: Duration = Duration::from_secs(60);

/// hyper's pooling client over our connections.
pub type HttpClient<B> = Client<Connector, B>;

/// A client for one server. `first`: a connection that was made already.
pub fn client<B>(dialer: Arc<Dialer>, first: TlsStream<TcpStream>) -> HttpClient<B>
where
    B: Body + Send + 'static + Unpin,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_FOR)
        .pool_max_idle_per_host(IDLE)
        .http2_keep_alive_interval(ALIVE)
        .http2_keep_alive_timeout(ALIVE)
        .build(Connector {
            dialer,
            first: Arc::new(Mutex::new(Some(first))),
        })
}

/// The endpoint's address.
///
/// # Errors
/// A host that cannot be written in a URI (an IPv6 address with a zone).
pub fn endpoint(dialer: &Dialer) -> Result<Uri, ClientError> {
    let peer = dialer.target().address();
    Uri::builder()
        .scheme("https")
        .authority(peer.as_str())
        .path_and_query(ENDPOINT)
        .build()
        .map_err(|cause| ClientError::Protocol {
            peer,
            cause: format!("it has no HTTP address: {cause}"),
        })
}

/// The cause of a failed request as the error of a connection: what TLS said, where it said it.
pub fn io_error(error: &(dyn Error + 'static)) -> io::Error {
    let mut next = Some(error);
    let mut last = error;
    while let Some(cause) = next {
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return io::Error::new(io::ErrorKind::InvalidData, tls.clone());
        }
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            // An error inside an io::Error is not in the chain of sources by itself.
            return match io.get_ref() {
                Some(inner) => io_error(inner),
                None => io.kind().into(),
            };
        }
        if let Some(http) = cause.downcast_ref::<hyper::Error>()
            && http.is_parse()
        {
            return io::Error::new(io::ErrorKind::InvalidData, http.to_string());
        }
        last = cause;
        next = cause.source();
    }
    io::Error::new(io::ErrorKind::ConnectionReset, last.to_string())
}

/// Dials our one server, whatever the request's address.
#[derive(Clone)]
pub struct Connector {
    dialer: Arc<Dialer>,
    first: Arc<Mutex<Option<TlsStream<TcpStream>>>>,
}

impl Service<Uri> for Connector {
    type Response = Link;
    type Error = ClientError;
    type Future = Pin<Box<dyn Future<Output = Result<Link, ClientError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let first = self
            .first
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let dialer = Arc::clone(&self.dialer);
        Box::pin(async move {
            let stream = match first {
                Some(stream) => stream,
                None => dialer.tls().await?,
            };
            Ok(Link(TokioIo::new(stream)))
        })
    }
}

/// One connection.
pub struct Link(TokioIo<TlsStream<TcpStream>>);

impl Connection for Link {
    fn connected(&self) -> Connected {
        let connected = Connected::new();
        if self.0.inner().get_ref().1.alpn_protocol() == Some(b"h2") {
            connected.negotiated_h2()
        } else {
            connected
        }
    }
}

impl Read for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl Write for Link {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
