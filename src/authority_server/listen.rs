//! Accepting: a place before a connection, a deadline for everything, and an end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::crl::Crls;
use super::http::{Caller, Est};
use crate::audit::Event;
use crate::identity::Fingerprint;
use crate::tls::OpenTls;

/// Connections at once; further ones wait in the system's queue.
const CONNECTIONS: usize = 1024;
/// From accept to the end of the handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// The head of a request, and how long a connection may stay without one.
const HEAD: Duration = Duration::from_secs(15);
/// The longest life of a connection.
const LIFE: Duration = Duration::from_secs(300);
/// How long what is being answered may take when the server goes.
const DRAIN: Duration = Duration::from_secs(5);
/// The wait after an accept that failed for want of something.
const WAIT: Duration = Duration::from_millis(50);

/// Accepts until stopped, then lets what runs come to its end.
pub(super) async fn accept<F>(
    listener: Arc<TcpListener>,
    mut stopped: watch::Receiver<bool>,
    serve: impl Fn(TcpStream, SocketAddr, watch::Receiver<bool>) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut running = JoinSet::new();
    loop {
        while running.try_join_next().is_some() {}
        let next = async {
            // It is never closed.
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let accepted = tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => break,
            accepted = next => accepted,
        };
        match accepted {
            (place, Ok((tcp, address))) => {
                // Only a delay is lost without it.
                let _ = tcp.set_nodelay(true);
                let served = serve(tcp, address, stopped.clone());
                running.spawn(async move {
                    served.await;
                    drop(place);
                });
            }
            (_, Err(error)) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(WAIT).await;
            }
        }
    }
    drop(listener);
    let all = async { while running.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, all).await.is_err() {
        running.shutdown().await;
    }
}

/// One connection of EST.
pub(super) async fn est(
    est: Arc<Est>,
    tls: Arc<OpenTls>,
    audit: crate::audit::AuditLog,
    tcp: TcpStream,
    address: SocketAddr,
    stopped: watch::Receiver<bool>,
) {
    let handshake = tokio::time::timeout(HANDSHAKE, tls.accept(tcp)).await;
    let (stream, presented) = match handshake {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(refusal)) => {
            let event = Event::Refused {
                address,
                reason: &refusal.reason,
                class: refusal.class.as_str(),
                name: None,
                fingerprint: None,
            };
            // Kept and tried again by the log itself.
            let _ = audit.event(event).await;
            return;
        }
        Err(_) => return,
    };
    let certificate = presented.first().map(|der| Fingerprint::of_der(der));
    let caller = Caller {
        address,
        certificate,
    };
    let service = service_fn(move |request| {
        let est = Arc::clone(&est);
        async move { est.answer(request, caller).await }
    });
    http(stream, service, stopped).await;
}

/// One connection for CRLs.
pub(super) async fn crls(crls: Arc<Crls>, tcp: TcpStream, stopped: watch::Receiver<bool>) {
    let service = service_fn(move |request| {
        let answer = crls.answer(&request);
        async move { Ok::<_, std::convert::Infallible>(answer) }
    });
    http(tcp, service, stopped).await;
}

async fn http<S>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    service: S,
    mut stopped: watch::Receiver<bool>,
) where
    S: hyper::service::Service<
            hyper::Request<hyper::body::Incoming>,
            Response = super::http::Answer,
            Error = std::convert::Infallible,
        >,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_headers(64)
        .max_buf_size(32 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = async {
        tokio::select! {
            ended = connection.as_mut() => return ended,
            _ = stopped.wait_for(|stopped| *stopped) => {}
        }
        connection.as_mut().graceful_shutdown();
        connection.await
    };
    // How a stranger's connection ends is no news.
    let _ = tokio::time::timeout(LIFE, ended).await;
}
