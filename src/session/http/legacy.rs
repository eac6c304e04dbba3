//! Requests of the older revisions: with sessions, and with calls that go on when their connection
//! is gone.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use futures_util::stream;
use hyper::header::{HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

use crate::audit::Outcome;
use crate::clock;
use crate::dispatch::{Dispatched, Effect, Reply};
use crate::framing::{KEEP_ALIVE, write_event, write_priming};
use crate::jsonrpc::code;
use crate::mcp::{Call, Detail, Revision};
use crate::transport::http::{Accepts, Busy, Gone, ReplyBody, event_stream, fault, json};

use super::super::answer::Cause;
use super::super::identities::Place;
use super::super::notes::Outbox;
use super::call::{Asked, Begun, Extra, begin, decide};
use super::conn::{Conn, Party};
use super::events::{Events, Next, Reader, split_id};
use super::flight::whole;
use super::news::{Teller, of};
use super::sessions::{Held, HttpSession};

const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");

/// Serves `initialize`, which opens a session.
///
/// # Errors
/// The peer may no longer stay.
pub async fn initialize(
    conn: &Arc<Conn>,
    mut call: Call,
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
    let (begun, dispatched) = begin(conn, caller, recorded, Extra::default(), false);
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
        let message = Cause::Busy.reply(asked.method);
        let body = asked.write(conn, &message);
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
    call: Call,
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
        capabilities: held.capabilities.clone(),
        level,
        open: held.open.clone().filter(|_| accepts.events),
    };
    let (begun, dispatched) = begin(conn, caller, recorded, extra, accepts.events);
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

/// What one call tells whoever waits for its first word.
enum Word {
    /// It is over, and nothing was said before.
    Reply(Bytes),
    /// Events begin.
    Events,
}

/// Runs a call beside the connection, and answers with its result or with its stream of events.
async fn later(
    conn: &Arc<Conn>,
    held: Held,
    begun: Begun,
    mut future: Pin<Box<dyn Future<Output = Reply> + Send>>,
    place: Place,
    accepts: Accepts,
    busy: Busy,
) -> Response<ReplyBody> {
    if let Poll::Ready(reply) = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
        && begun.outbox.as_ref().is_none_or(|outbox| outbox.is_empty())
    {
        begun.over(conn, &reply);
        return whole(conn, &begun, &reply, accepts);
    }
    let stream = Arc::new(std::sync::OnceLock::<Arc<Events>>::new());
    let (tell, told) = tokio::sync::oneshot::channel();
    held.state()
        .add_call(begun.asked.id.clone(), begun.cancel.clone());
    let session = Arc::clone(&held);
    let detached = Detached {
        party: Arc::clone(&conn.party),
        held,
        begun,
        future,
        stream: Arc::clone(&stream),
        tell: Some(tell),
        events: accepts.events,
        _place: place,
    };
    conn.service.sessions.spawn(detached.run());
    match told.await {
        Ok(Word::Reply(message)) if accepts.json => json(StatusCode::OK, message),
        Ok(Word::Reply(message)) => {
            let mut out = Vec::new();
            write_event(&mut out, None, &message);
            event_stream(stream::iter([Bytes::from(out)]))
        }
        Ok(Word::Events) if let Some(stream) = stream.get() => match stream.read_from(None) {
            Some(reader) => {
                let reading = Reading::new(conn, &session, Arc::clone(stream), reader, busy);
                event_stream(reading.events(true))
            }
            None => fault(StatusCode::GONE, code::INTERNAL, "the stream is over"),
        },
        // Cancelled: there is no answer, and nobody waits for one.
        _ => fault(StatusCode::OK, code::INTERNAL, "cancelled"),
    }
}

/// A call that goes on when its connection is gone.
struct Detached {
    party: Arc<Party>,
    held: Held,
    begun: Begun,
    future: Pin<Box<dyn Future<Output = Reply> + Send>>,
    stream: Arc<std::sync::OnceLock<Arc<Events>>>,
    tell: Option<tokio::sync::oneshot::Sender<Word>>,
    events: bool,
    _place: Place,
}

enum Step {
    Reply(Reply),
    Notes,
    Quiet,
    Cancelled,
    LookAgain,
}

impl Detached {
    async fn run(mut self) {
        let mut changes = self.party.service.changes();
        let outbox = self.begun.outbox.clone();
        let cancel = self.begun.cancel.clone();
        let quiet = self.party.options.keep_alive;
        loop {
            let commits = self.events && self.tell.is_some();
            let step = tokio::select! {
                biased;
                () = cancel.cancelled() => Step::Cancelled,
                reply = self.future.as_mut() => Step::Reply(reply),
                () = ready(outbox.as_deref()) => Step::Notes,
                Ok(()) = changes.changed() => Step::LookAgain,
                () = tokio::time::sleep(quiet), if commits => Step::Quiet,
            };
            match step {
                Step::Notes => self.put_notes(),
                Step::Quiet => drop(self.stream()),
                // The connection may be long gone, so this task itself looks whether its caller may
                // still go on.
                Step::LookAgain if self.party.grounds().is_ok() && self.in_time() => (),
                Step::LookAgain | Step::Cancelled => return self.cancelled(),
                Step::Reply(reply) => return self.reply(&reply),
            }
        }
    }

    fn in_time(&self) -> bool {
        self.party.until() > clock::unix_now()
    }

    /// The stream of this call; the first time it is asked for, the answer becomes one.
    fn stream(&mut self) -> Arc<Events> {
        let stream = self
            .stream
            .get_or_init(|| self.held.state().new_stream(&self.party.options));
        let stream = Arc::clone(stream);
        if let Some(tell) = self.tell.take() {
            let _ = tell.send(Word::Events);
        }
        stream
    }

    fn put_notes(&mut self) {
        let Some(outbox) = self.begun.outbox.clone() else {
            return;
        };
        let waiting = outbox.take();
        let release = self
            .begun
            .notes
            .as_ref()
            .is_some_and(|notes| notes.takes_release());
        if waiting.is_empty() && !release {
            return;
        }
        let stream = self.stream();
        for message in waiting {
            // The server's own requests are no hints: without them the call stands still.
            let hint = message.starts_with(br#"{"jsonrpc":"2.0","method""#);
            stream.push(message.into(), hint);
        }
        if release {
            stream.release();
        }
    }

    fn reply(mut self, reply: &Reply) {
        self.put_notes();
        self.begun.over(&self.party, reply);
        let message = Bytes::from(self.begun.asked.write(&self.party, reply));
        if let Some(tell) = self.tell.take() {
            let _ = tell.send(Word::Reply(message));
        } else {
            let stream = self.stream();
            stream.push(message, false);
            stream.finish();
        }
        self.out();
    }

    fn cancelled(mut self) {
        self.begun.cancel.cancel();
        self.begun.ended(&self.party, Outcome::Cancelled);
        drop(self.tell.take());
        if let Some(stream) = self.stream.get() {
            stream.finish();
        }
        self.out();
    }

    fn out(&self) {
        let mut state = self.held.state();
        state.remove_call(&self.begun.asked.id);
        state.trim(&self.party.options);
    }
}

async fn ready(outbox: Option<&Outbox>) {
    match outbox {
        Some(outbox) => outbox.ready().await,
        None => std::future::pending().await,
    }
}

/// A client that reads a stream of its session.
struct Reading {
    conn: Arc<Conn>,
    revision: Revision,
    stream: Arc<Events>,
    reader: Reader,
    /// Keeps the session from resting.
    _held: Option<Held>,
    _busy: Busy,
}

impl Reading {
    fn new(
        conn: &Arc<Conn>,
        session: &Arc<HttpSession>,
        stream: Arc<Events>,
        reader: Reader,
        busy: Busy,
    ) -> Self {
        let service = &conn.service;
        let held = service
            .sessions
            .find(service, conn.peer.name(), &session.id);
        let revision = session.revision;
        Self { conn: Arc::clone(conn), revision, stream, reader, _held: held, _busy: busy }
    }

    /// The first event of a stream of revision 2025-11-25: an id to come back with.
    fn priming(&self) -> Option<Bytes> {
        let wanted = self.revision >= Revision::V2025_11_25;
        wanted.then(|| {
            let mut out = Vec::new();
            let retry = u64::try_from(self.conn.options.retry.as_millis()).unwrap_or(1000);
            write_priming(&mut out, &self.stream.id(0), retry);
            out.into()
        })
    }

    /// Messages as they come, until there are no more for this reader.
    fn events(self, begins: bool) -> impl futures_util::Stream<Item = Bytes> + Send + 'static {
        let first = if begins { self.priming() } else { None };
        stream::unfold((self, first), |(reading, first)| async move {
            if let Some(first) = first {
                return Some((first, (reading, None)));
            }
            let out = reading.next().await?;
            Some((out, (reading, None)))
        })
    }

    async fn next(&self) -> Option<Bytes> {
        let keep_alive = self.conn.options.keep_alive;
        tokio::select! {
            biased;
            next = poll_fn(|cx| self.stream.poll(self.reader, cx)) => match next {
                Next::Message(number, message) => Some(self.event(number, &message)),
                Next::End => None,
            },
            () = tokio::time::sleep(keep_alive) => Some(Bytes::from_static(KEEP_ALIVE)),
        }
    }

    fn event(&self, number: u64, message: &[u8]) -> Bytes {
        let mut out = Vec::new();
        write_event(&mut out, Some(&self.stream.id(number)), message);
        out.into()
    }
}

/// `GET`: the stream that belongs to no request, or the rest of one that broke off.
///
/// # Errors
/// The peer may no longer stay.
pub fn get(
    conn: &Arc<Conn>,
    held: Held,
    last: Option<&str>,
    busy: Busy,
) -> Result<Response<ReplyBody>, Gone> {
    let unknown = || {
        fault(
            StatusCode::BAD_REQUEST,
            code::INVALID_REQUEST,
            "no stream goes on behind this event",
        )
    };
    let after = match last {
        None => None,
        Some(id) => match split_id(id) {
            None => return Ok(unknown()),
            known => known,
        },
    };
    if let Some((number, after)) = after.filter(|(number, _)| *number > 0) {
        let stream = held.state().stream(number);
        let reader = stream
            .as_ref()
            .and_then(|stream| stream.read_from(Some(after)));
        let (Some(stream), Some(reader)) = (stream, reader) else {
            return Ok(unknown());
        };
        let reading = Reading {
            conn: Arc::clone(conn),
            revision: held.revision,
            stream,
            reader,
            _held: Some(held),
            _busy: busy,
        };
        return Ok(event_stream(reading.events(false)));
    }
    standing(conn, held, after.map(|(_, after)| after), busy)
}

/// The stream that belongs to no request, with its news.
struct Standing {
    reading: Reading,
    session: Arc<HttpSession>,
    teller: Teller,
    first: Option<Bytes>,
}

fn standing(
    conn: &Arc<Conn>,
    held: Held,
    after: Option<u64>,
    busy: Busy,
) -> Result<Response<ReplyBody>, Gone> {
    let teller = Teller::new(conn)?;
    let stream = held.state().standing(&conn.options);
    // What is not kept any more is lost; the stream goes on with what comes.
    let reader = after.and_then(|after| stream.read_from(Some(after)));
    let Some(reader) = reader.or_else(|| stream.read_from(None)) else {
        return Ok(fault(
            StatusCode::GONE,
            code::INTERNAL,
            "the stream is over",
        ));
    };
    let session = Arc::clone(&held);
    let reading = Reading {
        conn: Arc::clone(conn),
        revision: session.revision,
        stream,
        reader,
        _held: Some(held),
        _busy: busy,
    };
    let first = if after.is_none() { reading.priming() } else { None };
    let standing = Standing { reading, session, teller, first };
    Ok(event_stream(stream::unfold(standing, |mut standing| async move {
        let out = standing.next().await?;
        Some((out, standing))
    })))
}

impl Standing {
    async fn next(&mut self) -> Option<Bytes> {
        // At once, so that the client knows that its stream is open.
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        loop {
            let reading = &self.reading;
            let keep_alive = reading.conn.options.keep_alive;
            let item = tokio::select! {
                biased;
                next = poll_fn(|cx| reading.stream.poll(reading.reader, cx)) => match next {
                    Next::Message(number, message) => return Some(reading.event(number, &message)),
                    Next::End => return None,
                },
                _ = reading.conn.live.told_to_close() => return None,
                () = self.session.over.cancelled() => return None,
                item = poll_fn(|cx| self.session.poll_news(&reading.conn.service, cx)) => item,
                () = tokio::time::sleep(keep_alive) => return Some(Bytes::from_static(KEEP_ALIVE)),
            };
            let told = {
                let state = self.session.state();
                self.teller
                    .tell(&self.reading.conn, &item, of(&state.wanted))
                    .ok()?
            };
            for message in told {
                self.reading.stream.push(message.into(), true);
            }
        }
    }
}
