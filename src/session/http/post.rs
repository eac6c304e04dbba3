//! `POST`: one message in, one answer out.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use hyper::header::HeaderMap;
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};

use crate::audit::{AuditError, Outcome, Ticket, Written};
use crate::backend::Caller;
use crate::dispatch::{Dispatched, Reply};
use crate::jsonrpc::{
    Message, Outline, RequestId, RpcError, ScanError, code, scan_into, write_error,
};
use crate::mcp::{Call, CallError, Detail, Method, Note, Revision, read_call, unsupported_version};
use crate::transport::http::{
    Accepts, BodyError, Busy, Fields, Gone, ReplyBody, empty, fault, is_json, json,
};

use super::super::answer::Cause;
use super::super::stream::cancelled_id;
use super::agree::{params_agree, routing_agrees, version_agrees};
use super::call::{Asked, Decided, Extra, begin, decide};
use super::conn::Conn;
use super::flight::{Flight, whole_again};
use super::gate::closing;
use super::sessions::Held;
use super::status::{status_of, status_of_code};
use super::{legacy, listen};

/// An answer, or the end of the connection.
pub type Answered = Result<Response<ReplyBody>, Gone>;

/// How far a message gets without waiting.
///
/// A future inside a future inside a future is made and moved, whole, by each that holds it. So what every
/// call goes through are functions, with one future around them that waits where one must wait
/// (`handler.rs`); what few need is a future of its own on the heap.
pub enum Step<'a> {
    /// It is answered.
    Answer(Answered),
    /// It takes a way of its own.
    Later(Pin<Box<dyn Future<Output = Answered> + Send + 'a>>),
}

/// The same of a message that was only read.
pub enum Taken<'a> {
    /// It needs nothing written first.
    Step(Step<'a>),
    /// Its decision must be written, up to here.
    Commit(Ticket, Committing<'a>),
}

impl<'a> Step<'a> {
    fn later(way: impl Future<Output = Answered> + Send + 'a) -> Self {
        Self::Later(Box::pin(way))
    }
}

impl<'a> From<Step<'a>> for Taken<'a> {
    fn from(step: Step<'a>) -> Self {
        Self::Step(step)
    }
}

/// What stands in the way of reading a body.
///
/// # Errors
/// The refusal.
#[expect(
    clippy::result_large_err,
    reason = "the answer is moved once, and only where the request is refused"
)]
pub fn expects(head: &Parts, fields: &Fields<'_>) -> Result<Accepts, Response<ReplyBody>> {
    if !fields.content_type.is_some_and(is_json) {
        let message = "the body must be `application/json`";
        return Err(closing(refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, message)));
    }
    let accepts = Accepts::read(&head.headers);
    if !accepts.json && !accepts.events {
        let message = "`Accept` must take `application/json` or `text/event-stream`";
        return Err(closing(refuse(StatusCode::NOT_ACCEPTABLE, message)));
    }
    Ok(accepts)
}

/// Takes one message as far as it gets.
pub fn post<'a>(
    conn: &'a Arc<Conn>,
    head: &Parts,
    fields: &Fields<'_>,
    accepts: Accepts,
    frame: &Bytes,
    busy: Busy,
) -> Taken<'a> {
    let request = Request {
        conn,
        headers: &head.headers,
        fields,
        accepts,
        frame,
    };
    let scanned = {
        // Not kept while the answer is waited for.
        let mut outline = Outline::default();
        scan_into(frame, conn.limits.max_depth, &mut outline).map(|message| match message {
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
        Ok(Scanned::Request(id, read)) => request.request(id.raw(), read, busy),
        Ok(Scanned::Told(answer)) => Step::Answer(Ok(answer)).into(),
        Err(error) => Step::Answer(Ok(fault_of(&error))).into(),
    }
}

/// The answer to a body that cannot be had.
pub fn no_body(error: &BodyError) -> Response<ReplyBody> {
    let status = match error {
        BodyError::TooLong(_) => StatusCode::PAYLOAD_TOO_LARGE,
        BodyError::Slow(_) => StatusCode::REQUEST_TIMEOUT,
        BodyError::Broken(_) => StatusCode::BAD_REQUEST,
    };
    closing(refuse(status, &error.to_string()))
}

fn refuse(status: StatusCode, message: &str) -> Response<ReplyBody> {
    fault(status, code::INVALID_REQUEST, message)
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
    call: Result<Box<Call>, CallError>,
}

/// One `POST`, read.
struct Request<'a, 'b> {
    conn: &'a Arc<Conn>,
    headers: &'b HeaderMap,
    fields: &'b Fields<'b>,
    accepts: Accepts,
    frame: &'b Bytes,
}

impl<'a> Request<'a, '_> {
    /// The session that the header names: `Some(None)` where it names one that this identity does
    /// not have.
    fn session(&self) -> Option<Option<Held>> {
        let id = self.fields.session?;
        let service = &self.conn.service;
        let found = id
            .to_str()
            .ok()
            .filter(|_| self.fields.twice(&["Mcp-Session-Id"]).is_none())
            .and_then(|id| service.sessions.find(self.conn.peer.name(), id));
        Some(found)
    }

    /// The revision that the header names, if it names one that is served.
    fn header_revision(&self) -> Result<Option<Revision>, RpcError> {
        let Some(version) = self.fields.version else {
            return Ok(None);
        };
        let text = version.to_str().unwrap_or_default();
        let once = self.fields.twice(&["MCP-Protocol-Version"]).is_none();
        match Revision::named(text).filter(|_| once) {
            Some(revision) => Ok(Some(revision)),
            None => Err(unsupported_version(text)),
        }
    }

    /// Understands a request, in the era and the session that its headers and its body name.
    fn read<'m>(
        &self,
        id: &[u8],
        method: &str,
        params: Option<&'m [u8]>,
        outline: &Outline<'m>,
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

    fn request(&self, id: &[u8], read: Read, busy: Busy) -> Taken<'a> {
        let answer = |response| Taken::Step(Step::Answer(Ok(response)));
        let bad = |error: &RpcError| answer(rpc_error(StatusCode::BAD_REQUEST, Some(id), error));
        let Read {
            header,
            session,
            call,
        } = read;
        let call = match call {
            Ok(call) => call,
            Err(CallError::Version(asked)) => {
                let error = version_agrees(self.fields, &asked).err();
                return bad(&error.unwrap_or_else(|| unsupported_version(&asked)));
            }
            Err(CallError::NoEra) if matches!(session, Some(None)) => {
                return answer(unknown_session());
            }
            Err(error) => return bad(&header.err().unwrap_or_else(|| error.reply())),
        };
        if call.revision.is_modern() {
            let agreed = version_agrees(self.fields, call.revision.as_str())
                .and_then(|()| routing_agrees(self.fields, &call));
            return match agreed {
                Ok(()) => self.modern(call, busy),
                Err(error) => bad(&error),
            };
        }
        match header {
            Err(error) => return bad(&error),
            Ok(Some(revision)) if revision.is_modern() => return bad(&CallError::NoEra.reply()),
            Ok(_) => (),
        }
        let (conn, accepts) = (self.conn, self.accepts);
        if call.method == Method::Initialize {
            return Step::later(legacy::initialize(conn, call, accepts)).into();
        }
        match session {
            Some(Some(held)) => {
                Step::later(legacy::request(conn, held, call, accepts, busy)).into()
            }
            Some(None) => answer(unknown_session()),
            None if call.method == Method::Unknown => {
                Step::later(unknown_method(conn, call)).into()
            }
            None => {
                let message = "`Mcp-Session-Id` is missing: begin with `initialize`";
                bad(&RpcError::new(code::INVALID_REQUEST, message))
            }
        }
    }

    fn modern(&self, call: Box<Call>, busy: Busy) -> Taken<'a> {
        let conn = self.conn;
        let caller = match conn.caller() {
            Ok(caller) => caller,
            Err(gone) => return Step::Answer(Err(gone)).into(),
        };
        let asked = Asked::of(&call);
        let params = self.param_headers(&call).map_err(Box::new);
        let decided = Decided::on(conn, &caller, call);
        if let Some(now) = decided.at() {
            conn.pace.heard_at(now);
        }
        let committing = Committing {
            conn,
            accepts: self.accepts,
            caller,
            asked,
            params,
            decided,
            busy,
        };
        Taken::Commit(committing.decided.ticket(), committing)
    }

    fn param_headers(&self, call: &Call) -> Result<(), RpcError> {
        let Detail::Tool {
            name, arguments, ..
        } = &call.detail
        else {
            return Ok(());
        };
        let declared = self.conn.service.router.catalogue().headers(name);
        let header = |name: &str| self.headers.get_all(name).iter().collect();
        params_agree(declared, header, arguments.as_deref())
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

/// An unknown method of no session: refused and recorded like any other.
async fn unknown_method(conn: &Arc<Conn>, call: Box<Call>) -> Answered {
    let caller = conn.caller()?;
    let asked = Asked::of(&call);
    let reply = decide(conn, &caller, call).await.map_or_else(
        |reply| reply,
        |_| Reply::error(code::METHOD_NOT_FOUND, "unknown method"),
    );
    Ok(refusal(conn, &asked, &reply))
}

fn refusal(conn: &Conn, asked: &Asked, reply: &Reply) -> Response<ReplyBody> {
    json(status_of(reply), asked.write(conn, reply).into())
}

/// A call of the modern era whose decision is on its way to the log.
pub struct Committing<'a> {
    conn: &'a Arc<Conn>,
    accepts: Accepts,
    caller: Arc<Caller>,
    asked: Asked,
    /// Whether the headers that repeat parameters say the same.
    params: Result<(), Box<RpcError>>,
    decided: Decided,
    busy: Busy,
}

impl<'a> Committing<'a> {
    /// Takes the call to its answer, or to where that must be waited for. `map`: the request's
    /// fields, which are done with.
    pub fn committed(self, written: Result<Written, AuditError>, map: HeaderMap) -> Step<'a> {
        let Self {
            conn,
            accepts,
            caller,
            asked,
            params,
            decided,
            busy,
        } = self;
        let answer = |response| Step::Answer(Ok(response));
        let recorded = match decided.recorded(conn, &caller, written) {
            Ok(recorded) => recorded,
            Err(reply) => return answer(refusal(conn, &asked, &reply)),
        };
        // Only now: whoever may not use a tool must not learn what its schema says.
        if let Err(error) = params {
            let (_, ticket) = recorded.into_parts();
            let outcome = Outcome::ProtocolError(error.code);
            conn.service
                .audit
                .outcome(&conn.facts, ticket, outcome, None);
            return answer(rpc_error(
                status_of_code(error.code),
                Some(&asked.id),
                &error,
            ));
        }
        let extra = Extra {
            events: accepts.events,
            ..Extra::default()
        };
        let (begun, dispatched) = begin(conn, caller, recorded, asked, extra);
        let fly = |begun, future, busy, place| {
            let flight = Flight::new(Arc::clone(conn), begun, future, busy, place);
            Step::later(async move { Ok(flight.answer(accepts).await) })
        };
        let reply = match dispatched {
            Dispatched::Now(reply) | Dispatched::Effect(reply, _) => reply,
            Dispatched::Listen(listening) => {
                let conn = Arc::clone(conn);
                return answer(listen::listen(conn, begun, listening, accepts, busy));
            }
            Dispatched::Later(future) => match conn.identity.place() {
                Some(place) => return fly(begun, future, busy, place),
                None => Cause::Busy.reply(begun.asked.method),
            },
        };
        let has_notes = begun
            .outbox
            .as_ref()
            .is_some_and(|outbox| !outbox.is_empty());
        if has_notes && let Some(place) = conn.identity.place() {
            return fly(begun, Box::pin(std::future::ready(reply)), busy, place);
        }
        busy.over_at(begun.over(conn, &reply));
        conn.answered();
        let whole = whole_again(map, conn, &begun, &reply, accepts);
        begun.cancel.over();
        answer(whole)
    }
}

/// 404: the client begins anew.
pub fn unknown_session() -> Response<ReplyBody> {
    refuse(StatusCode::NOT_FOUND, "no such session")
}
