//! From a request's head to whoever serves it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use hyper::body::{Body as _, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use hyper::service::Service;
use hyper::{Method, Request, Response, StatusCode, Version};

use crate::jsonrpc::code;
use crate::listener::Close;
use crate::mcp::Revision;
use crate::transport::http::{Accepts, Busy, Fields, Gone, ReplyBody, allow, empty, fault, text};

use super::conn::Conn;
use super::gate::{closing, gate, preflight, share_with};
use super::{post, reading, websocket};

/// Everything that the endpoint knows.
const METHODS: &str = "GET, POST, DELETE, OPTIONS";

/// Serves the requests of one connection.
pub struct Handler(pub Arc<Conn>);

impl Service<Request<Incoming>> for Handler {
    type Response = Response<ReplyBody>;
    type Error = Gone;
    // Boxed: the connection keeps the place of this future while it rests.
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Gone>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let busy = self.0.pace.begin();
        if request.body().is_end_stream() {
            busy.body_done();
        }
        Box::pin(serve(Arc::clone(&self.0), request, busy))
    }
}

async fn serve(
    conn: Arc<Conn>,
    request: Request<Incoming>,
    busy: Busy,
) -> Result<Response<ReplyBody>, Gone> {
    let (mut head, body) = request.into_parts();
    conn.pace.room().await;
    if websocket::is_asked_for(&head) && head.uri.path() == conn.options.path {
        let origin = gate(&conn.options, &head, &Fields::read(&head.headers));
        return Ok(match origin {
            Ok(_) => websocket::open(&conn, &mut head, busy),
            Err(refusal) => refusal,
        });
    }
    let fields = Fields::read(&head.headers);
    let origin = match gate(&conn.options, &head, &fields) {
        Ok(origin) => origin,
        Err(refusal) => return Ok(refusal),
    };
    // RFC 9112, section 6.1: a length that is told in chunks ends the connection's trust in where
    // the next request begins.
    let chunked =
        head.version == Version::HTTP_11 && head.headers.contains_key(header::TRANSFER_ENCODING);
    let mut response = match head.uri.path() {
        path if path == conn.options.path => endpoint(&conn, &head, &fields, body, busy).await?,
        "/healthz" => probe(&head, true),
        "/readyz" => probe(&head, is_ready(&conn)),
        _ => fault(
            StatusCode::NOT_FOUND,
            code::INVALID_REQUEST,
            "nothing is here",
        ),
    };
    if let Some(origin) = origin {
        share_with(origin, &mut response);
    }
    let mut response = if chunked { closing(response) } else { response };
    response.body_mut().counted_by(&conn.pace);
    Ok(response)
}

async fn endpoint(
    conn: &Arc<Conn>,
    head: &Parts,
    fields: &Fields<'_>,
    body: Incoming,
    busy: Busy,
) -> Result<Response<ReplyBody>, Gone> {
    match head.method {
        Method::POST => post::post(conn, head, fields, body, busy).await,
        Method::GET => get(conn, head, fields, busy),
        Method::DELETE => Ok(delete(conn, fields)),
        Method::OPTIONS => {
            let mut response = empty(StatusCode::NO_CONTENT);
            response
                .headers_mut()
                .insert(header::ALLOW, HeaderValue::from_static(METHODS));
            if fields.origin.is_some() {
                preflight(&mut response);
            }
            Ok(response)
        }
        _ => Ok(allow(METHODS)),
    }
}

/// Whether the client names a revision that has neither sessions nor streams of its own.
fn is_modern(fields: &Fields<'_>) -> bool {
    let version = fields.version.and_then(|version| version.to_str().ok());
    version
        .and_then(Revision::named)
        .is_some_and(Revision::is_modern)
}

/// Session and revision of a request without a body.
#[expect(
    clippy::result_large_err,
    reason = "the answer is moved once, and only where the request is refused"
)]
fn session(
    conn: &Arc<Conn>,
    fields: &Fields<'_>,
) -> Result<super::sessions::Held, Response<ReplyBody>> {
    let bad = |message| fault(StatusCode::BAD_REQUEST, code::INVALID_REQUEST, message);
    if let Some(version) = fields.version
        && version.to_str().ok().and_then(Revision::named).is_none()
    {
        return Err(bad(
            "`MCP-Protocol-Version` names no revision that is served",
        ));
    }
    let Some(id) = fields.session else {
        return Err(bad("`Mcp-Session-Id` is missing"));
    };
    if fields.twice == Some("Mcp-Session-Id") {
        return Err(bad("`Mcp-Session-Id` stands twice"));
    }
    let service = &conn.service;
    let id = id.to_str().unwrap_or_default();
    service
        .sessions
        .find(service, conn.peer.name(), id)
        .ok_or_else(post::unknown_session)
}

fn get(
    conn: &Arc<Conn>,
    head: &Parts,
    fields: &Fields<'_>,
    busy: Busy,
) -> Result<Response<ReplyBody>, Gone> {
    if is_modern(fields) {
        return Ok(allow("POST, OPTIONS"));
    }
    if !Accepts::read(&head.headers).events {
        let message = "`Accept` must take `text/event-stream`";
        return Ok(fault(
            StatusCode::NOT_ACCEPTABLE,
            code::INVALID_REQUEST,
            message,
        ));
    }
    let held = match session(conn, fields) {
        Ok(held) => held,
        Err(refusal) => return Ok(refusal),
    };
    let last = fields
        .last_event
        .map(|last| last.to_str().unwrap_or_default());
    reading::get(conn, held, last, busy)
}

fn delete(conn: &Arc<Conn>, fields: &Fields<'_>) -> Response<ReplyBody> {
    if is_modern(fields) {
        return allow("POST, OPTIONS");
    }
    match session(conn, fields) {
        Ok(held) => {
            conn.service.sessions.end(conn.peer.name(), &held.id);
            empty(StatusCode::NO_CONTENT)
        }
        Err(refusal) => refusal,
    }
}

/// Whether this server should be sent more work.
fn is_ready(conn: &Conn) -> bool {
    conn.service.is_ready() && conn.live.close_reason() != Some(Close::Draining)
}

fn probe(head: &Parts, good: bool) -> Response<ReplyBody> {
    match head.method {
        Method::GET | Method::HEAD if good => text(StatusCode::OK, "ok\n"),
        Method::GET | Method::HEAD => text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
        _ => allow("GET, HEAD"),
    }
}
