//! The endpoint's sockets: loopback addresses only, a bounded number of connections.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::forward::Forward;
use super::guard::{Guard, Token};
use crate::client::dial::Dialer;
use crate::client::fault::ClientError;
use crate::client::http::{client, endpoint};
use crate::transport::http::{Pace, Paced, secure};

/// Connections at once; further ones wait in the system's backlog.
const CONNECTIONS: usize = 128;
/// How long the head of a request may take.
const HEAD: Duration = Duration::from_secs(30);
/// Bytes of a request's head.
const HEAD_BYTES: usize = 64 * 1024;
/// The wait after an accept that failed for want of something.
const RETRY: Duration = Duration::from_millis(100);

/// There is no endpoint.
#[derive(Debug, thiserror::Error)]
pub enum LoopbackError {
    /// Other machines could reach it, and use the certificate.
    #[error("`{0}` is not a loopback address")]
    NotLoopback(SocketAddr),
    /// Taken, or not allowed.
    #[error("cannot listen on `{address}`: {cause}")]
    Bind {
        /// As it was given.
        address: SocketAddr,
        /// What the system says.
        cause: io::Error,
    },
}

/// Bound and not yet serving.
pub struct Loopback {
    socket: TcpListener,
    address: SocketAddr,
}

impl Loopback {
    /// Binds the address.
    ///
    /// # Errors
    /// Not a loopback address, taken, or not allowed.
    pub async fn bind(address: SocketAddr) -> Result<Self, LoopbackError> {
        if !address.ip().is_loopback() {
            return Err(LoopbackError::NotLoopback(address));
        }
        let bind = |cause| LoopbackError::Bind { address, cause };
        let socket = TcpListener::bind(address).await.map_err(bind)?;
        let address = socket.local_addr().map_err(bind)?;
        Ok(Self { socket, address })
    }

    /// Where it listens, with the port that the system chose.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until it is dropped. `report` is told when the server cannot be reached.
    ///
    /// # Errors
    /// The first connection to the server cannot be made.
    pub async fn run(
        self,
        dialer: Dialer,
        token: Option<&Token>,
        report: Box<dyn Fn(&str) + Send + Sync>,
    ) -> Result<Infallible, ClientError> {
        let dialer = Arc::new(dialer);
        let uri = endpoint(&dialer)?;
        let forward = Arc::new(Forward {
            guard: Guard::new(self.address.port(), token),
            peer: dialer.target().address(),
            http: client(Arc::clone(&dialer), dialer.tls().await?),
            uri,
            report,
        });
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let place = Arc::clone(&places).acquire_owned().await;
            match self.socket.accept().await {
                Ok((stream, _)) => {
                    let serving = serve(stream, Arc::clone(&forward));
                    tokio::spawn(async move {
                        let _place = place;
                        serving.await;
                    });
                }
                Err(cause) => {
                    tracing::warn!("accepting fails: {cause}");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

async fn serve(stream: TcpStream, forward: Arc<Forward>) {
    // Events are small and must not wait for each other.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let answering = Arc::clone(&forward).answer(request);
        async move {
            let mut answer = answering.await;
            secure(answer.headers_mut());
            Ok::<_, Infallible>(answer)
        }
    });
    // So that what hyper refuses by itself says it as well.
    let stream = Paced::new(stream, Bytes::new(), Pace::new(true));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a loopback connection ended");
    }
}
