//! From a request's head to whoever serves it.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use hyper::body::{Body as _, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use hyper::service::Service;
use hyper::{Method, Request, Response, StatusCode, Version};

use crate::jsonrpc::code;
use crate::listener::Close;
use crate::mcp::Revision;
use crate::transport::http::{
    Accepts, Busy, Collecting, Fields, Gone, ReplyBody, allow, empty, fault, text,
};

use super::conn::Conn;
use super::gate::{Allowed, closing, gate, preflight, share_with};
use super::post::{Answered, Step, Taken};
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
        let conn = Arc::clone(&self.0);
        let busy = conn.pace.begin();
        if request.body().is_end_stream() {
            busy.body_done();
        }
        let (mut head, body) = request.into_parts();
        // A block: what an `async fn` is given it would hold twice. What is not needed beyond a wait ends
        // before it, so that the whole is small: it is made and wiped with every request.
        Box::pin(async move {
            if conn.pace.is_full() {
                Box::pin(conn.pace.room()).await;
            }
            let (ticket, committing, after) = 'read: {
                let fields = Fields::read(&head.headers);
                let (accepts, busy, after) = {
                    let (first, after) = begin(&conn, &head, &fields, busy);
                    match first {
                        First::Message(accepts, busy) => (accepts, busy, after),
                        First::Answer(answer) => return after.answered(&conn, answer),
                        First::Upgrade(busy) => {
                            let answer = websocket::open(&conn, &mut head, busy);
                            return after.answered(&conn, Ok(answer));
                        }
                    }
                };
                let whole = {
                    let mut body = Collecting::new(body, conn.limits.max_message_bytes);
                    match poll_fn(|cx| Poll::Ready(body.poll(cx))).await {
                        Poll::Ready(whole) => whole,
                        Poll::Pending => {
                            Box::pin(body.rest(&busy, conn.options.body_timeout)).await
                        }
                    }
                };
                busy.body_done();
                let frame = match whole {
                    Ok(frame) => frame,
                    Err(error) => return after.answered(&conn, Ok(post::no_body(&error))),
                };
                let way = match post::post(&conn, &head, &fields, accepts, &frame, busy) {
                    Taken::Commit(ticket, committing) => break 'read (ticket, committing, after),
                    Taken::Step(Step::Answer(answer)) => return after.answered(&conn, answer),
                    Taken::Step(Step::Later(way)) => way,
                };
                return after.answered(&conn, way.await);
            };
            let written = conn.service.audit.commit(ticket).await;
            let way = match committing.committed(written, std::mem::take(&mut head.headers)) {
                Step::Answer(answer) => return after.answered(&conn, answer),
                Step::Later(way) => way,
            };
            after.answered(&conn, way.await)
        })
    }
}

/// What is done to every answer.
struct After {
    /// The `Origin` that was let in.
    origin: Allowed,
    /// The request's length was told in chunks, which ends the connection's trust in where the next one
    /// begins (RFC 9112, section 6.1).
    chunked: bool,
}

impl After {
    fn answered(self, conn: &Conn, answered: Answered) -> Answered {
        let mut response = answered?;
        if let Some(origin) = self.origin {
            share_with(origin, &mut response);
        }
        // What was upgraded is no longer HTTP's to close.
        let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if self.chunked && !upgraded {
            response = closing(response);
        }
        response.body_mut().counted_by(&conn.pace);
        Ok(response)
    }
}

/// What a request comes to by its head alone.
enum First {
    Answer(Answered),
    /// A WebSocket is asked for.
    Upgrade(Busy),
    /// There is a message to be read.
    Message(Accepts, Busy),
}

/// Looks at the head.
fn begin(conn: &Arc<Conn>, head: &Parts, fields: &Fields<'_>, busy: Busy) -> (First, After) {
    let answer = |response| First::Answer(Ok(response));
    let chunked = head.version == Version::HTTP_11 && fields.transfer_encoding.is_some();
    let after = |origin| After { origin, chunked };
    let after = match gate(&conn.options, head, fields) {
        Ok(origin) => after(origin),
        Err(refusal) => return (answer(refusal), after(None)),
    };
    if head.uri.path() != conn.options.path {
        let response = match head.uri.path() {
            "/healthz" => probe(head, true),
            "/readyz" => probe(head, is_ready(conn)),
            _ => fault(
                StatusCode::NOT_FOUND,
                code::INVALID_REQUEST,
                "nothing is here",
            ),
        };
        return (answer(response), after);
    }
    if websocket::is_asked_for(head) {
        return (First::Upgrade(busy), after);
    }
    let first = match head.method {
        Method::POST => match post::expects(head, fields) {
            Ok(accepts) => First::Message(accepts, busy),
            Err(refusal) => answer(refusal),
        },
        Method::GET => First::Answer(get(conn, head, fields, busy)),
        Method::DELETE => answer(delete(conn, fields)),
        Method::OPTIONS => {
            let mut response = empty(StatusCode::NO_CONTENT);
            response
                .headers_mut()
                .insert(header::ALLOW, HeaderValue::from_static(METHODS));
            if fields.origin.is_some() {
                preflight(&mut response);
            }
            answer(response)
        }
        _ => answer(allow(METHODS)),
    };
    (first, after)
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
    if fields.twice(&["Mcp-Session-Id"]).is_some() {
        return Err(bad("`Mcp-Session-Id` stands twice"));
    }
    let service = &conn.service;
    let id = id.to_str().unwrap_or_default();
    service
        .sessions
        .find(conn.peer.name(), id)
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
