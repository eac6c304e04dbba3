//! `/healthz` and `/readyz` without TLS, on a loopback address, for orchestrators that have no
//! certificate. Off unless the configuration names an address. It answers nothing else.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use crate::listener::ListenError;
use crate::session::Service;
use crate::transport::http::{Pace, Paced, ReplyBody, text};

use super::run::when_stopped;

/// Probes at once.
const PROBES: usize = 16;
/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bound and not yet answering.
pub struct Health(TcpListener);

impl Health {
    /// # Errors
    /// The address is taken.
    pub async fn bind(address: SocketAddr) -> Result<Self, ListenError> {
        let bound = TcpListener::bind(address).await;
        Ok(Self(
            bound.map_err(|cause| ListenError::Bind { address, cause })?,
        ))
    }

    /// Answers until the server stops.
    pub async fn run(self, service: Arc<Service>, stopped: watch::Receiver<bool>) {
        let places = Arc::new(Semaphore::new(PROBES));
        let mut stop = std::pin::pin!(when_stopped(stopped));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            let accepted = tokio::select! {
                () = &mut stop => return,
                accepted = self.0.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let service = Arc::clone(&service);
            tokio::spawn(async move {
                let _ = tokio::time::timeout(PATIENCE, answer(service, stream)).await;
                drop(place);
            });
        }
    }
}

async fn answer(service: Arc<Service>, stream: TcpStream) {
    let respond = service_fn(move |request: Request<Incoming>| {
        let response = probe(&service, &request);
        async move { Ok::<_, Infallible>(response) }
    });
    // So that what hyper refuses by itself has the headers of every answer.
    let stream = Paced::new(stream, Bytes::new(), Pace::new(true));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(8192)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), respond);
    // A probe that goes away needs no answer.
    let _ = connection.await;
}

fn probe(service: &Service, request: &Request<Incoming>) -> Response<ReplyBody> {
    match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/healthz") => text(StatusCode::OK, "ok\n"),
        (&Method::GET | &Method::HEAD, "/readyz") if service.is_ready() => {
            text(StatusCode::OK, "ok\n")
        }
        (&Method::GET | &Method::HEAD, "/readyz") => {
            text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
        }
        _ => text(StatusCode::NOT_FOUND, "nothing is here\n"),
    }
}
