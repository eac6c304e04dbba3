//! Requests of the older revisions: `initialize`, which opens a session, and what comes in one.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use hyper::header::{HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

use crate::audit::Outcome;
use crate::dispatch::{Dispatched, Effect, Reply};
use crate::framing::write_event;
use crate::jsonrpc::code;
use crate::mcp::{Call, Detail, Revision};
use crate::transport::http::{Accepts, Busy, Gone, ReplyBody, event_stream, fault, json};

use super::super::answer::Cause;
use super::call::{Asked, Begun, Extra, begin, decide};
use super::conn::Conn;
use super::detached::later;
use super::flight::whole;
use super::sessions::{Held, HttpSession};

const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");

/// Serves `initialize`, which opens a session.
///
/// # Errors
/// The peer may no longer stay.
pub async fn initialize(
    conn: &Arc<Conn>,
    mut call: Box<Call>,
    accepts: Accepts,
) -> Result<Response<ReplyBody>, Gone> {
    // What is served over HTTP begins with 2025-06-18: there was another transport before.
    if let Detail::Initialize { version, .. } = &mut call.detail
        && Revision::negotiate(version) == Revision::V2024_11_05
    {
        *version = Revision::NEWEST_LEGACY.as_str().to_owned();
    }
    let caller = conn.caller()?;
    let asked = Asked::of(&call);
    let recorded = match decide(conn, &caller, call).await {
        Ok(recorded) => recorded,
        Err(reply) => return Ok(json(StatusCode::OK, asked.write(conn, &reply).into())),
    };
    let (begun, dispatched) = begin(conn, caller, recorded, asked, Extra::default());
    let Dispatched::Effect(reply, Effect::Pin(revision, capabilities)) = dispatched else {
        return Ok(fault(
            StatusCode::INTERNAL_SERVER_ERROR,
            code::INTERNAL,
            "internal error",
        ));
    };
    let service = &conn.service;
    let opened = service.sessions.open(
        service,
        conn.peer.name(),
        &conn.identity,
        revision,
        capabilities,
    );
    let Ok(held) = opened else {
        begun.ended(conn, Outcome::RateLimited);
        let message = Cause::Busy.reply(begun.asked.method);
        let body = begun.asked.write(conn, &message);
        let mut response = json(StatusCode::TOO_MANY_REQUESTS, body.into());
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from_static("60"));
        return Ok(response);
    };
    begun.over(conn, &reply);
    let mut response = whole(conn, &begun, &reply, accepts);
    if let Ok(id) = HeaderValue::from_str(&held.id) {
        response.headers_mut().insert(SESSION, id);
    }
    Ok(response)
}

/// Serves a request of a session.
///
/// # Errors
/// The peer may no longer stay.
pub async fn request(
    conn: &Arc<Conn>,
    held: Held,
    call: Box<Call>,
    accepts: Accepts,
    busy: Busy,
) -> Result<Response<ReplyBody>, Gone> {
    let caller = conn.caller()?;
    let asked = Asked::of(&call);
    let refused = |reply: &Reply| json(StatusCode::OK, asked.write(conn, reply).into());
    let (level, calls, in_use) = {
        let state = held.state();
        (state.level, state.calls(), state.has_call(&asked.id))
    };
    if in_use {
        let reply = Reply::error(
            code::INVALID_REQUEST,
            "a request with this id is not answered yet",
        );
        return Ok(json(
            StatusCode::BAD_REQUEST,
            asked.write(conn, &reply).into(),
        ));
    }
    let recorded = match decide(conn, &caller, call).await {
        Ok(recorded) => recorded,
        Err(reply) => return Ok(refused(&reply)),
    };
    let extra = Extra {
        events: accepts.events,
        capabilities: held.capabilities.clone(),
        level,
        open: held.open.clone().filter(|_| accepts.events),
    };
    let (begun, dispatched) = begin(conn, caller, recorded, asked, extra);
    let reply = match dispatched {
        Dispatched::Now(reply) => reply,
        Dispatched::Effect(reply, effect) => apply(conn, &held, effect, reply, &begun),
        Dispatched::Listen(_) => Reply::error(code::METHOD_NOT_FOUND, "unknown method"),
        Dispatched::Later(future) => {
            let room = calls < conn.limits.in_flight_per_connection;
            match conn.identity.place().filter(|_| room) {
                None => Cause::Busy.reply(begun.asked.method),
                Some(place) => {
                    return Ok(later(conn, held, begun, future, place, accepts, busy).await);
                }
            }
        }
    };
    begun.over(conn, &reply);
    conn.answered();
    if let Some(waiting) = begun.outbox.as_ref().map(|outbox| outbox.take())
        && !waiting.is_empty()
        && accepts.events
    {
        let mut out = Vec::new();
        for message in waiting {
            write_event(&mut out, None, &message);
        }
        write_event(&mut out, None, &begun.asked.write(conn, &reply));
        return Ok(event_stream(stream::iter([Bytes::from(out)])));
    }
    Ok(whole(conn, &begun, &reply, accepts))
}

fn apply(conn: &Conn, session: &HttpSession, effect: Effect, reply: Reply, begun: &Begun) -> Reply {
    let mut state = session.state();
    match effect {
        Effect::Level(level) => state.level = Some(level),
        Effect::Subscribe(watch) => {
            let more = state.wanted.watched() + 1;
            if more > conn.limits.subscriptions_per_connection || !state.watches.has_room_for(1) {
                return Cause::Busy.reply(begun.asked.method);
            }
            state.wanted.subscribe(watch);
            // From now on: a stream that is opened later hears of what happened in between.
            state.news(&conn.service);
            let watched = state.wanted.watched();
            state.watches.set(watched);
        }
        Effect::Unsubscribe(uri) => {
            state.wanted.unsubscribe(&uri);
            let watched = state.wanted.watched();
            state.watches.set(watched);
        }
        // A second `initialize` in a session has opened another one.
        Effect::Pin(..) => (),
    }
    reply
}
