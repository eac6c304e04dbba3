//! `POST`: one message in, one answer out.

use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};

use crate::dispatch::Dispatched;
use crate::jsonrpc::{
    Message, Outline, RequestId, RpcError, ScanError, code, scan_into, write_error,
};
use crate::mcp::{Call, CallError, Detail, Method, Note, Revision, read_call, unsupported_version};
use crate::transport::http::{
    Accepts, BodyError, Busy, Fields, Gone, ReplyBody, collect, empty, fault, is_json, json,
};

use super::super::answer::Cause;
use super::super::stream::cancelled_id;
use super::agree::{params_agree, routing_agrees, version_agrees};
use super::call::{Asked, Extra, begin, decide};
use super::conn::Conn;
use super::flight::{Flight, whole};
use super::gate::closing;
use super::sessions::Held;
use super::status::{status_of, status_of_code};
use super::{legacy, listen};

/// Serves one message.
///
/// # Errors
/// The peer may no longer stay.
pub async fn post(
    conn: &Arc<Conn>,
    head: &Parts,
    fields: &Fields<'_>,
    body: Incoming,
    busy: Busy,
) -> Result<Response<ReplyBody>, Gone> {
    if !fields.content_type.is_some_and(is_json) {
        let message = "the body must be `application/json`";
        return Ok(closing(refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, message)));
    }
    let accepts = Accepts::read(&head.headers);
    if !accepts.json && !accepts.events {
        let message = "`Accept` must take `application/json` or `text/event-stream`";
        return Ok(closing(refuse(StatusCode::NOT_ACCEPTABLE, message)));
    }
    let (limit, timeout) = (conn.limits.max_message_bytes, conn.options.body_timeout);
    let frame = match collect(body, limit, &busy, timeout).await {
        Ok(frame) => frame,
        Err(error) => return Ok(closing(no_body(&error))),
    };
    let request = Request {
        conn,
        headers: &head.headers,
        fields,
        accepts,
        frame: &frame,
    };
    let scanned = {
        // Not kept while the answer is waited for.
        let mut outline = Outline::default();
        scan_into(&frame, conn.limits.max_depth, &mut outline).map(|message| match message {
            Message::Request { id, method, params } => {
                Scanned::Request(id, request.read(id.raw(), &method, params, &outline))
            }
            Message::Notification { method, params } => {
                Scanned::Told(request.notification(&method, params))
            }
            Message::Response { id, result, error } => {
                Scanned::Told(request.response(id.map(|id| id.raw()), result, error))
            }
        })
    };
    match scanned {
        Ok(Scanned::Request(id, read)) => request.request(id.raw(), read, busy).await,
        Ok(Scanned::Told(answer)) => Ok(answer),
        Err(error) => Ok(fault_of(&error)),
    }
}

fn refuse(status: StatusCode, message: &str) -> Response<ReplyBody> {
    fault(status, code::INVALID_REQUEST, message)
}

fn no_body(error: &BodyError) -> Response<ReplyBody> {
    let status = match error {
        BodyError::TooLong(_) => StatusCode::PAYLOAD_TOO_LARGE,
        BodyError::Slow(_) => StatusCode::REQUEST_TIMEOUT,
        BodyError::Broken(_) => StatusCode::BAD_REQUEST,
    };
    refuse(status, &error.to_string())
}

fn fault_of(error: &ScanError) -> Response<ReplyBody> {
    let reply = RpcError::new(error.code(), error.to_string());
    rpc_error(StatusCode::BAD_REQUEST, error.id.as_deref(), &reply)
}

fn rpc_error(status: StatusCode, id: Option<&[u8]>, error: &RpcError) -> Response<ReplyBody> {
    let mut out = Vec::new();
    write_error(&mut out, id, error);
    json(status, out.into())
}

/// What a message turned out to be.
#[expect(
    clippy::large_enum_variant,
    reason = "a request is the rule, and is moved on at once"
)]
enum Scanned<'a> {
    Request(RequestId<'a>, Read),
    /// What needs no more than this answer.
    Told(Response<ReplyBody>),
}

/// A request as its headers and its body have it.
struct Read {
    /// The revision that the header names.
    header: Result<Option<Revision>, RpcError>,
    /// The session that the header names.
    session: Option<Option<Held>>,
    call: Result<Call, CallError>,
}

/// One `POST`, read.
struct Request<'a> {
    conn: &'a Arc<Conn>,
    headers: &'a HeaderMap,
    fields: &'a Fields<'a>,
    accepts: Accepts,
    frame: &'a Bytes,
}

impl Request<'_> {
    /// The session that the header names: `Some(None)` where it names one that this identity does
    /// not have.
    fn session(&self) -> Option<Option<Held>> {
        let id = self.fields.session?;
        let service = &self.conn.service;
        let found = id
            .to_str()
            .ok()
            .filter(|_| self.fields.twice != Some("Mcp-Session-Id"))
            .and_then(|id| service.sessions.find(service, self.conn.peer.name(), id));
        Some(found)
    }

    /// The revision that the header names, if it names one that is served.
    fn header_revision(&self) -> Result<Option<Revision>, RpcError> {
        let Some(version) = self.fields.version else {
            return Ok(None);
        };
        let text = version.to_str().unwrap_or_default();
        let once = self.fields.twice != Some("MCP-Protocol-Version");
        match Revision::named(text).filter(|_| once) {
            Some(revision) => Ok(Some(revision)),
            None => Err(unsupported_version(text)),
        }
    }

    /// Understands a request, in the era and the session that its headers and its body name.
    fn read<'a>(
        &self,
        id: &[u8],
        method: &str,
        params: Option<&'a [u8]>,
        outline: &Outline<'a>,
    ) -> Read {
        let header = self.header_revision();
        // What names a modern revision has no session, whatever else it carries.
        let modern = matches!(header, Ok(Some(revision)) if revision.is_modern());
        let session = if modern { None } else { self.session() };
        let pinned = session
            .as_ref()
            .and_then(|found| Some(found.as_ref()?.revision));
        let call = read_call(self.frame, id, method, params, outline, pinned);
        Read {
            header,
            session,
            call,
        }
    }

    async fn request(
        &self,
        id: &[u8],
        read: Read,
        busy: Busy,
    ) -> Result<Response<ReplyBody>, Gone> {
        let bad = |error: &RpcError| rpc_error(StatusCode::BAD_REQUEST, Some(id), error);
        let Read {
            header,
            session,
            call,
        } = read;
        let call = match call {
            Ok(call) => call,
            Err(CallError::Version(asked)) => {
                let error = version_agrees(self.fields, &asked).err();
                return Ok(bad(&error.unwrap_or_else(|| unsupported_version(&asked))));
            }
            Err(CallError::NoEra) if matches!(session, Some(None)) => return Ok(unknown_session()),
            Err(error) => {
                return Ok(bad(&header.err().unwrap_or_else(|| error.reply())));
            }
        };
        if call.revision.is_modern() {
            let agreed = version_agrees(self.fields, call.revision.as_str())
                .and_then(|()| routing_agrees(self.fields, &call));
            return match agreed {
                Ok(()) => self.modern(call, busy).await,
                Err(error) => Ok(bad(&error)),
            };
        }
        match header {
            Err(error) => return Ok(bad(&error)),
            Ok(Some(revision)) if revision.is_modern() => {
                return Ok(bad(&CallError::NoEra.reply()));
            }
            Ok(_) => (),
        }
        if call.method == Method::Initialize {
            return Box::pin(legacy::initialize(self.conn, call, self.accepts)).await;
        }
        match session {
            // Boxed, like all that is not on the way of every modern call: its place would be
            // made and moved with each of them.
            Some(Some(held)) => {
                Box::pin(legacy::request(self.conn, held, call, self.accepts, busy)).await
            }
            Some(None) => Ok(unknown_session()),
            None if call.method == Method::Unknown => Box::pin(self.unknown_method(call)).await,
            None => {
                let message = "`Mcp-Session-Id` is missing: begin with `initialize`";
                Ok(bad(&RpcError::new(code::INVALID_REQUEST, message)))
            }
        }
    }

    /// An unknown method of no session: refused and recorded like any other.
    async fn unknown_method(&self, call: Call) -> Result<Response<ReplyBody>, Gone> {
        let caller = self.conn.caller()?;
        let asked = Asked::of(&call);
        let reply = decide(self.conn, &caller, call).await.map_or_else(
            |reply| reply,
            |_| crate::dispatch::Reply::error(code::METHOD_NOT_FOUND, "unknown method"),
        );
        Ok(json(
            status_of(&reply),
            asked.write(self.conn, &reply).into(),
        ))
    }

    async fn modern(&self, call: Call, busy: Busy) -> Result<Response<ReplyBody>, Gone> {
        let (conn, accepts) = (self.conn, self.accepts);
        let caller = conn.caller()?;
        let asked = Asked::of(&call);
        let params = self.param_headers(&call);
        let recorded = match decide(conn, &caller, call).await {
            Ok(recorded) => recorded,
            Err(reply) => {
                return Ok(json(status_of(&reply), asked.write(conn, &reply).into()));
            }
        };
        // Only now: whoever may not use a tool must not learn what its schema says.
        if let Err(error) = params {
            let (_, ticket) = recorded.into_parts();
            let outcome = crate::audit::Outcome::ProtocolError(error.code);
            conn.service
                .audit
                .outcome(&conn.facts, ticket, outcome, std::time::Duration::ZERO);
            return Ok(rpc_error(
                status_of_code(error.code),
                Some(&asked.id),
                &error,
            ));
        }
        let (begun, dispatched) = begin(conn, caller, recorded, Extra::default(), accepts.events);
        let reply = match dispatched {
            Dispatched::Now(reply) | Dispatched::Effect(reply, _) => reply,
            Dispatched::Listen(listening) => {
                return Ok(listen::listen(
                    Arc::clone(conn),
                    begun,
                    listening,
                    accepts,
                    busy,
                ));
            }
            Dispatched::Later(future) => match conn.identity.place() {
                Some(place) => {
                    let flight = Flight::new(Arc::clone(conn), begun, future, busy, place);
                    return Ok(Box::pin(flight.answer(accepts)).await);
                }
                None => Cause::Busy.reply(begun.asked.method),
            },
        };
        if begun
            .outbox
            .as_ref()
            .is_some_and(|outbox| !outbox.is_empty())
            && let Some(place) = conn.identity.place()
        {
            let done = Box::pin(std::future::ready(reply));
            let flight = Flight::new(Arc::clone(conn), begun, done, busy, place);
            return Ok(Box::pin(flight.answer(accepts)).await);
        }
        begun.over(conn, &reply);
        conn.answered();
        Ok(whole(conn, &begun, &reply, accepts))
    }

    fn param_headers(&self, call: &Call) -> Result<(), RpcError> {
        let Detail::Tool {
            name, arguments, ..
        } = &call.detail
        else {
            return Ok(());
        };
        let tool = self.conn.service.router.catalogue().tool(name);
        let Some(tool) = tool.filter(|tool| !tool.headers.is_empty()) else {
            return Ok(());
        };
        let header = |name: &str| self.headers.get_all(name).iter().collect();
        params_agree(&tool.headers, header, arguments.as_deref())
    }

    fn notification(&self, method: &str, params: Option<&[u8]>) -> Response<ReplyBody> {
        let header = match self.header_revision() {
            Ok(header) => header,
            Err(error) => return rpc_error(StatusCode::BAD_REQUEST, None, &error),
        };
        if header.is_some_and(Revision::is_modern) {
            // A modern client cancels by closing its stream, so there is nothing to be told.
            return empty(StatusCode::ACCEPTED);
        }
        let session = match self.session() {
            Some(Some(session)) => session,
            Some(None) => return unknown_session(),
            None => return refuse(StatusCode::BAD_REQUEST, "`Mcp-Session-Id` is missing"),
        };
        match Note::named(method) {
            Some(Note::Initialized) => {
                let mut state = session.state();
                state.wanted.unasked = true;
                // From now on, although the stream for it may be opened later.
                state.news(&self.conn.service);
            }
            Some(Note::Cancelled) => {
                if let Some(id) = params.and_then(cancelled_id) {
                    session.state().cancel(id);
                }
            }
            None => (),
        }
        empty(StatusCode::ACCEPTED)
    }

    fn response(
        &self,
        id: Option<&[u8]>,
        result: Option<&[u8]>,
        error: Option<&[u8]>,
    ) -> Response<ReplyBody> {
        match self.session() {
            Some(Some(session)) => {
                if let (Some(open), Some(id)) = (&session.open, id) {
                    open.answered(id, result, error);
                }
                empty(StatusCode::ACCEPTED)
            }
            Some(None) => unknown_session(),
            None => refuse(StatusCode::BAD_REQUEST, "nothing was asked of this client"),
        }
    }
}

/// 404: the client begins anew.
pub fn unknown_session() -> Response<ReplyBody> {
    refuse(StatusCode::NOT_FOUND, "no such session")
}
