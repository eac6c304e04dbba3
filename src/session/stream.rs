//! A session over a stream of messages: the raw stream and the WebSocket.
//!
//! One task serves one connection and owns all of its state. It reads what is there, decides on
//! every request of it, has the decisions recorded in one group, and only then runs the calls.
//! What cannot be answered at once runs beside the reading, within a bound; behind the bound
//! requests wait, and behind those the reading stops. While the peer does not read its answers,
//! nothing more is taken from it.

use std::collections::VecDeque;
use std::iter;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::time::Sleep;

use crate::audit::{ConnectionFacts, Outcome, Pending, Ticket};
use crate::backend::{Cancel, Context, Happening, Notes};
use crate::clock;
use crate::dispatch::{Dispatched, Effect, Listening, Reply};
use crate::jsonrpc::{Message, RequestId, RpcError, ScanError, code, scan, write_error};
use crate::listener::{Close, Live};
use crate::mcp::{Call, Method, Note, Revision, Severity, read_call};
use crate::peer::Peer;
use crate::policy::{Denied, Permitted};
use crate::tls::{Class, Refusal};
use crate::transport::{Goodbye, Wire, WireError};

use super::answer::{Cause, denial, outcome, write_reply};
use super::asks::{Asks, Open, can_be_asked};
use super::identities::{Identity, Watches};
use super::judge::{Judged, cause, judge};
use super::limits::Limits;
use super::notes::{CallNotes, Outbox};
use super::running::{Calls, Running};
use super::service::{Basis, Service};
use super::subscriptions::{Subscriptions, write_stream_end};

/// Requests that are decided on in one group.
const BATCH: usize = 64;
/// Answers that may gather before they are written, bytes.
const FLUSH_AT: usize = 256 * 1024;
/// The longest sleep until a connection's certificate is looked at again: wall clocks move.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(3600);

/// How a session ended.
#[derive(Debug)]
pub enum End {
    /// The peer closed its side, and everything was answered.
    Closed,
    /// The server told it to.
    Told(Close),
    /// The peer broke the protocol beyond repair: a message over the limit.
    TooLong,
    /// The peer broke the rules of its transport.
    Violation,
    /// The peer did not read what was sent to it.
    Unread,
    /// The peer said nothing for longer than it may.
    Idle,
    /// The peer took too long over a request.
    Slow,
    /// The peer broke HTTP, or gave up request after request.
    Unruly,
    /// The connection broke.
    Broken(std::io::Error),
}

impl End {
    /// The reason for the audit log.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Closed => "closed by the peer",
            Self::Told(Close::Revoked) => "revoked",
            Self::Told(Close::Unpinned) => "unpinned",
            Self::Told(Close::Expired) => "expired",
            Self::Told(Close::Draining) => "server stopping",
            Self::TooLong => "message over the limit",
            Self::Violation => "transport rules broken",
            Self::Unread => "answers left unread",
            Self::Idle => "idle",
            Self::Slow => "request too slow",
            Self::Unruly => "protocol broken",
            Self::Broken(_) => "connection broken",
        }
    }

    /// What the peer is told. A certificate's end is told as a TLS alert would tell it.
    const fn goodbye(&self) -> Goodbye {
        match self {
            Self::Told(Close::Revoked) => Goodbye::Refused("the certificate was revoked"),
            Self::Told(Close::Expired) => Goodbye::Refused("the certificate has expired"),
            Self::Told(Close::Unpinned) => Goodbye::Refused("not admitted any more"),
            Self::Unread => Goodbye::Refused("answers were left unread"),
            Self::Told(Close::Draining) | Self::Idle | Self::Broken(_) => Goodbye::GoingAway,
            _ => Goodbye::Done,
        }
    }
}

impl From<WireError> for End {
    fn from(error: WireError) -> Self {
        match error {
            WireError::TooLong { .. } => Self::TooLong,
            WireError::Violation(_) => Self::Violation,
            WireError::Closed => Self::Closed,
            WireError::Dead => Self::Broken(std::io::ErrorKind::TimedOut.into()),
            WireError::Io(error) => Self::Broken(error),
        }
    }
}

/// Serves one admitted connection to its end.
pub async fn serve<W: Wire>(
    service: Arc<Service>,
    peer: Peer,
    live: &Live,
    facts: ConnectionFacts,
    wire: W,
) -> End {
    match service.basis(&peer) {
        Ok(basis) => serve_on(basis, service, peer, live, facts, wire).await,
        Err(refusal) => gone(&peer, live, &refusal),
    }
}

/// The same, on a basis that is known already.
pub(super) async fn serve_on<W: Wire>(
    basis: Basis,
    service: Arc<Service>,
    peer: Peer,
    live: &Live,
    facts: ConnectionFacts,
    wire: W,
) -> End {
    let limits = service.limits();
    let identity = service.identities.of(peer.name(), &limits);
    let watches = Watches::none(Arc::clone(&identity));
    let mut session = Session {
        expiry: Box::pin(tokio::time::sleep(Duration::ZERO)),
        heard: clock::monotonic(),
        spoke: false,
        silent: true,
        service,
        peer,
        live,
        facts,
        wire,
        basis,
        limits,
        identity,
        pinned: None,
        capabilities: None,
        open: None,
        level: None,
        spare: None,
        calls: Calls::default(),
        backlog: VecDeque::new(),
        outbox: None,
        subscriptions: None,
        watches,
        draining: false,
        ended: false,
    };
    session.run().await
}

/// A peer that may no longer stay, found by looking before it was told.
pub(super) fn gone(peer: &Peer, live: &Live, refusal: &Refusal) -> End {
    tracing::info!(name = %peer.name(), %refusal, "may no longer stay");
    let seen = match refusal.class {
        Class::Revoked => Close::Revoked,
        Class::Expired => Close::Expired,
        _ => Close::Unpinned,
    };
    End::Told(live.close_reason().map_or(seen, |told| told.max(seen)))
}

struct Session<'a, W> {
    service: Arc<Service>,
    peer: Peer,
    live: &'a Live,
    facts: ConnectionFacts,
    wire: W,
    basis: Basis,
    limits: Arc<Limits>,
    identity: Arc<Identity>,
    /// The revision that an `initialize` fixed.
    pinned: Option<Revision>,
    /// What `initialize` declared.
    capabilities: Option<Bytes>,
    /// The server's own requests to a legacy client that can be asked.
    open: Option<Arc<Open>>,
    /// `logging/setLevel` of a legacy client.
    level: Option<Severity>,
    /// A cancel that nobody else holds any more, for the next call.
    spare: Option<Cancel>,
    calls: Calls,
    /// Requests that wait for a place among the calls.
    backlog: VecDeque<Bytes>,
    outbox: Option<Arc<Outbox>>,
    subscriptions: Option<Box<Subscriptions>>,
    /// What of the identity's watches is this connection's.
    watches: Watches,
    /// Rings when the certificate ends, when the peer was silent for too long, or to look again.
    expiry: Pin<Box<Sleep>>,
    /// When the peer was last heard.
    heard: Instant,
    /// It was heard since: `heard` is set when the clock is read anyway.
    spoke: bool,
    /// Whether it has not been heard at all.
    silent: bool,
    draining: bool,
    /// The peer has closed its side.
    ended: bool,
}

/// Requests that were decided on and wait for their records to be written.
#[derive(Default)]
struct Batch {
    permitted: Vec<Pending<Permitted<Call>>>,
    denied: Vec<Denied<Call>>,
    last: Option<Ticket>,
}

impl Batch {
    /// Most batches are of one, and room for four would be memory that the allocator looks for.
    fn permitted(&mut self, pending: Pending<Permitted<Call>>) {
        self.last = Some(pending.ticket());
        match self.permitted.len() {
            0 => self.permitted.reserve_exact(1),
            1 => self.permitted.reserve(15),
            _ => {}
        }
        self.permitted.push(pending);
    }

    fn len(&self) -> usize {
        self.permitted.len() + self.denied.len()
    }

    fn has(&self, id: &[u8]) -> bool {
        let permitted = self
            .permitted
            .iter()
            .map(|pending| &pending.peek().call().id);
        let denied = self.denied.iter().map(|denied| &denied.call.id);
        permitted
            .chain(denied)
            .any(|known| RequestId::same(known, id))
    }
}

/// What woke the session up.
enum Event {
    Told(Close),
    Expiry,
    Finished(Box<Running>, Option<Reply>),
    Notes,
    Happened(Happening),
    WorldChanged,
    Read(bool),
}

impl<W: Wire> Session<'_, W> {
    async fn run(&mut self) -> End {
        self.arm();
        let end = loop {
            match self.step().await {
                Ok(true) => (),
                Ok(false) => {
                    break if self.draining {
                        End::Told(Close::Draining)
                    } else {
                        End::Closed
                    };
                }
                Err(end) => break end,
            }
        };
        self.finish(&end).await;
        end
    }

    /// One round: take what is there, write what is to be written, wait for more. False at the end.
    async fn step(&mut self) -> Result<bool, End> {
        loop {
            let batch = self.gather()?;
            if batch.len() == 0 {
                break;
            }
            self.run_batch(batch).await?;
            if self.wire.waiting() > FLUSH_AT {
                self.flush().await?;
            }
        }
        self.flush().await?;
        let over = self.ended || self.draining;
        if over && self.calls.is_empty() && self.backlog.is_empty() && !self.has_stream() {
            return Ok(false);
        }
        self.wire.rest();
        if self.spoke {
            self.hear(clock::monotonic());
        }
        let event = self.wait().await?;
        self.handle(event).await?;
        // Whatever else is ready by now goes out in the same write.
        while let Some((running, reply)) = self.calls.finished().now_or_never() {
            self.finished(&running, reply);
        }
        Ok(true)
    }

    /// Sets the timer to what comes first: the certificate's end, the end of the time in which the
    /// peer may be silent, or the next look at a wall clock that may have moved.
    fn arm(&mut self) {
        let left = self.basis.until.since(clock::unix_now()).min(LOOK_AGAIN);
        let idle = self
            .idle_limit()
            .map(|limit| limit.saturating_sub(clock::monotonic().duration_since(self.heard)));
        let wait = idle.map_or(left, |idle| left.min(idle));
        self.expiry.as_mut().set(tokio::time::sleep(wait));
    }

    /// Notes that the peer was heard, if it was.
    fn hear(&mut self, now: Instant) {
        if std::mem::take(&mut self.spoke) {
            self.heard = now;
        }
    }

    /// How long the peer may be silent as things stand.
    fn idle_limit(&self) -> Option<Duration> {
        if self.silent {
            Some(self.limits.first_byte_timeout)
        } else {
            self.limits.idle_timeout
        }
    }

    /// The timer rang.
    fn look(&mut self) -> Result<(), End> {
        // The end may have come nearer while the peer was silent.
        self.refresh()?;
        if self.basis.until <= clock::unix_now() {
            return Err(End::Told(Close::Expired));
        }
        self.hear(clock::monotonic());
        let busy = !self.calls.is_empty() || self.has_stream();
        let silent_for = clock::monotonic().duration_since(self.heard);
        match self.idle_limit() {
            Some(limit) if silent_for >= limit && !busy => return Err(End::Idle),
            // Whoever waits for an answer or for news is not idle: its time starts anew.
            Some(limit) if silent_for >= limit => self.heard = clock::monotonic(),
            _ => (),
        }
        self.arm();
        Ok(())
    }

    /// A stream keeps a connection open whose peer has closed its side; it cannot cancel any more,
    /// so only the transport's end or the server's ends it.
    fn has_stream(&self) -> bool {
        !self.ended
            && !self.draining
            && self
                .subscriptions
                .as_ref()
                .is_some_and(|all| all.streams() + all.watched() > 0)
    }

    /// Decides on the messages that are here: waiting ones first, then new ones.
    fn gather(&mut self) -> Result<Batch, End> {
        let mut batch = Batch::default();
        while batch.len() < BATCH && self.calls.len() + batch.len() < self.most_calls() {
            let Some(message) = self.backlog.pop_front() else {
                break;
            };
            self.refresh()?;
            self.on_message(message, &mut batch);
        }
        while batch.len() < BATCH && self.backlog.len() < self.most_calls() && !self.draining {
            let message = match self.wire.next() {
                Ok(Some(message)) => message,
                Ok(None) => break,
                Err(error) => return Err(self.too_long(error)),
            };
            self.refresh()?;
            if self.calls.len() + batch.len() < self.most_calls() {
                self.on_message(message, &mut batch);
            } else {
                self.set_aside(message);
            }
        }
        Ok(batch)
    }

    fn most_calls(&self) -> usize {
        self.limits.in_flight_per_connection
    }

    /// All places are taken. A request waits; a notification does not, because it may be the one
    /// that cancels a call.
    fn set_aside(&mut self, message: Bytes) {
        match scan(&message, self.limits.max_depth) {
            Ok(Message::Notification { method, params }) => {
                let (method, params) = (method.into_owned(), params.map(|p| message.slice_ref(p)));
                self.on_notification(&method, params.as_deref());
            }
            _ => self.backlog.push_back(message),
        }
    }

    fn too_long(&mut self, error: WireError) -> End {
        if let WireError::TooLong { max } = &error {
            let text = format!("a message is longer than {max} bytes");
            let error = RpcError::new(code::INVALID_REQUEST, text);
            self.wire.put(|out| write_error(out, None, &error));
        }
        error.into()
    }

    /// Looks at the policy and the registry again if either has changed.
    fn refresh(&mut self) -> Result<(), End> {
        if self.service.is_current(&self.basis) {
            return Ok(());
        }
        let basis = self
            .service
            .basis(&self.peer)
            .map_err(|refusal| gone(&self.peer, self.live, &refusal))?;
        let before = std::mem::replace(&mut self.basis, basis);
        self.arm();
        let changed = before.caller.grounds.steps() != self.basis.caller.grounds.steps();
        if changed && let Some(subscriptions) = &self.subscriptions {
            let lists = [
                Happening::ToolsChanged,
                Happening::PromptsChanged,
                Happening::ResourcesChanged,
            ];
            for list in lists {
                for message in subscriptions.notifications(&list, &self.basis.caller) {
                    self.wire.put(|out| out.extend_from_slice(&message));
                }
            }
        }
        Ok(())
    }

    fn on_message(&mut self, frame: Bytes, batch: &mut Batch) {
        match scan(&frame, self.limits.max_depth) {
            Ok(Message::Request { id, method, params }) => {
                self.on_request(&frame, id.raw(), &method, params, batch);
            }
            Ok(Message::Notification { method, params }) => self.on_notification(&method, params),
            Ok(Message::Response { id, result, error }) => {
                // Nothing was asked of the peer, or this is no answer to it: nobody is waiting.
                if let (Some(asks), Some(id)) = (&self.open, id) {
                    asks.answered(id.raw(), result, error);
                }
            }
            Err(error) => self.on_fault(&error),
        }
    }

    fn on_fault(&mut self, error: &ScanError) {
        let reply = RpcError::new(error.code(), error.to_string());
        self.wire
            .put(|out| write_error(out, error.id.as_deref(), &reply));
    }

    fn on_request(
        &mut self,
        frame: &Bytes,
        id: &[u8],
        method: &str,
        params: Option<&[u8]>,
        batch: &mut Batch,
    ) {
        let in_use = batch.has(id)
            || self.calls.has(id)
            || self.subscriptions.as_ref().is_some_and(|all| all.has(id));
        if in_use {
            let error = RpcError::new(
                code::INVALID_REQUEST,
                "a request with this id is not answered yet",
            );
            return self.wire.put(|out| write_error(out, Some(id), &error));
        }
        let call = match read_call(frame, id, method, params, self.pinned) {
            Ok(call) => call,
            Err(error) => {
                return self
                    .wire
                    .put(|out| write_error(out, Some(id), &error.reply()));
            }
        };
        match judge(&self.service, &self.facts, &self.basis.caller, call) {
            Judged::Permitted(pending) => batch.permitted(pending),
            Judged::Denied(denied, ticket) => {
                batch.last = Some(ticket);
                batch.denied.push(*denied);
            }
        }
    }

    fn on_notification(&mut self, method: &str, params: Option<&[u8]>) {
        match Note::named(method) {
            Some(Note::Initialized) if self.pinned.is_some() => self.subscriptions().unasked = true,
            Some(Note::Cancelled) => self.cancel(params),
            _ => (),
        }
    }

    fn cancel(&mut self, params: Option<&[u8]>) {
        let Some(id) = params.and_then(cancelled_id) else {
            return;
        };
        if self.calls.cancel(id) {
            return;
        }
        if let Some(subscriptions) = &mut self.subscriptions
            && subscriptions.cancel(id)
        {
            return self.count_watches();
        }
        let depth = self.limits.max_depth;
        self.backlog.retain(|message| {
            !matches!(scan(message, depth),
                Ok(Message::Request { id: waiting, .. }) if RequestId::same(waiting.raw(), id))
        });
    }

    /// Has the decisions of the batch recorded, refuses what was denied, and runs the rest.
    async fn run_batch(&mut self, batch: Batch) -> Result<(), End> {
        let Some(last) = batch.last else {
            return Ok(());
        };
        let Ok(written) = self.service.audit.commit(last).await else {
            self.refuse_all(&batch);
            return Ok(());
        };
        for denied in &batch.denied {
            let reply = denial(denied, self.basis.caller.grounds.denials());
            self.answer(
                &denied.call.id,
                denied.call.method,
                denied.call.revision,
                reply,
            );
        }
        let mut now = clock::monotonic();
        self.hear(now);
        let stale = self.service.registry_is_stale(now);
        let mut permitted = batch.permitted.into_iter();
        while let Some(pending) = permitted.next() {
            // Answers to a peer that does not read must not pile up.
            if self.wire.waiting() > FLUSH_AT
                && let Err(end) = self.flush().await
            {
                for ticket in iter::once(pending).chain(permitted).map(|one| one.ticket()) {
                    let outcome = Outcome::ConnectionClosed;
                    self.service
                        .audit
                        .outcome(&self.facts, ticket, outcome, Duration::ZERO);
                }
                return Err(end);
            }
            let (id, method, revision) = {
                let call = pending.peek().call();
                (call.id.clone(), call.method, call.revision)
            };
            let ticket = pending.ticket();
            if let Some(cause) = cause(&self.identity, method, stale) {
                let reply = cause.reply(method);
                self.service.audit.outcome(
                    &self.facts,
                    ticket,
                    Outcome::RateLimited,
                    Duration::ZERO,
                );
                self.answer(&id, method, revision, reply);
                continue;
            }
            match self.service.audit.recorded(pending, &written) {
                Ok(recorded) => {
                    let (context, notes) = self.context(recorded.get().call());
                    let cancel = context.cancel.clone();
                    let (ticket, dispatched) = self.service.router.dispatch(recorded, context);
                    let begun = Begun {
                        id,
                        method,
                        revision,
                        ticket,
                        since: now,
                        notes,
                        cancel,
                    };
                    self.dispatched(begun, dispatched, &mut now);
                }
                Err(_) => self.answer(&id, method, revision, Cause::Audit.reply(method)),
            }
        }
        Ok(())
    }

    fn refuse_all(&mut self, batch: &Batch) {
        let permitted = batch.permitted.iter().map(|pending| pending.peek().call());
        let denied = batch.denied.iter().map(|denied| &denied.call);
        let all: Vec<_> = permitted
            .chain(denied)
            .map(|call| (call.id.clone(), call.method, call.revision))
            .collect();
        for (id, method, revision) in all {
            self.answer(&id, method, revision, Cause::Audit.reply(method));
        }
    }

    /// What the provider is given. A call that wants notes gets a sink for them.
    fn context(&mut self, call: &Call) -> (Context, Option<Arc<CallNotes>>) {
        let mut context = Context::new(Arc::clone(&self.basis.caller));
        context.cancel = match self.spare.take() {
            Some(spare) => spare,
            // Not the default, which is never cancelled.
            None => Cancel::new(),
        };
        let level = if call.revision.is_modern() {
            call.meta.log_level
        } else {
            context.client_capabilities.clone_from(&self.capabilities);
            if let Some(open) = &self.open {
                let outbox = Arc::clone(self.outbox.get_or_insert_default());
                context.asker = Some(Asks::new(Arc::clone(open), outbox));
            }
            self.level
        };
        if call.meta.progress_token.is_none() && level.is_none() {
            return (context, None);
        }
        let outbox = Arc::clone(self.outbox.get_or_insert_default());
        let notes = Arc::new(CallNotes::new(
            outbox,
            call.meta.progress_token.clone(),
            level,
        ));
        context.notes = Some(Arc::clone(&notes) as Arc<dyn Notes>);
        (context, Some(notes))
    }

    fn dispatched(&mut self, begun: Begun, dispatched: Dispatched, now: &mut Instant) {
        match dispatched {
            Dispatched::Now(reply) => self.answered(begun, reply, now),
            Dispatched::Effect(reply, effect) => {
                let reply = self.apply(effect, begun.method, reply);
                self.answered(begun, reply, now);
            }
            Dispatched::Listen(listening) => self.listen(begun, listening, now),
            Dispatched::Later(future) => {
                let Some(place) = self.identity.place() else {
                    let reply = Cause::Busy.reply(begun.method);
                    return self.answered(begun, reply, now);
                };
                let running = Running {
                    id: begun.id,
                    ticket: begun.ticket,
                    since: begun.since,
                    method: begun.method,
                    revision: begun.revision,
                    cancel: begun.cancel,
                    notes: begun.notes,
                    place,
                };
                self.calls.start(running, future);
            }
        }
    }

    /// A call that was answered on the spot.
    fn answered(&mut self, begun: Begun, reply: Reply, now: &mut Instant) {
        if let Some(notes) = &begun.notes {
            notes.finish();
            self.put_notes();
        }
        let after = clock::monotonic();
        let took = after.duration_since(*now);
        *now = after;
        self.service
            .audit
            .outcome(&self.facts, begun.ticket, outcome(&reply), took);
        self.answer(&begun.id, begun.method, begun.revision, reply);
        self.spare = begun.cancel.unused();
    }

    fn apply(&mut self, effect: Effect, method: Method, reply: Reply) -> Reply {
        match effect {
            Effect::Pin(revision, capabilities) => {
                self.pinned = Some(revision);
                // Copied: it would keep the whole message in memory.
                self.capabilities = capabilities.map(|raw| Bytes::copy_from_slice(&raw));
                self.open = can_be_asked(self.capabilities.as_deref()).then(Arc::default);
            }
            Effect::Level(level) => self.level = Some(level),
            Effect::Subscribe(watch) => {
                if !self.has_room_for(1) {
                    return Cause::Busy.reply(method);
                }
                self.subscriptions().subscribe(watch);
                self.count_watches();
            }
            Effect::Unsubscribe(uri) => {
                if let Some(subscriptions) = &mut self.subscriptions {
                    subscriptions.unsubscribe(&uri);
                }
                self.count_watches();
            }
        }
        reply
    }

    fn listen(&mut self, begun: Begun, listening: Listening, now: &mut Instant) {
        let most = self.limits.subscriptions_per_connection;
        if !self.has_room_for(listening.watches.len()) || self.subscriptions().streams() >= most {
            let reply = Cause::Busy.reply(begun.method);
            return self.answered(begun, reply, now);
        }
        let acknowledged = self.subscriptions().listen(begun.id, listening);
        self.count_watches();
        self.wire.put(|out| out.extend_from_slice(&acknowledged));
        self.service
            .audit
            .outcome(&self.facts, begun.ticket, Outcome::Ok, Duration::ZERO);
    }

    fn has_room_for(&mut self, more: usize) -> bool {
        let watched = self.subscriptions().watched() + more;
        watched <= self.limits.subscriptions_per_connection && self.watches.has_room_for(more)
    }

    /// Tells the identity's count how many resources this connection watches now.
    fn count_watches(&mut self) {
        let watched = self.subscriptions.as_ref().map_or(0, |all| all.watched());
        self.watches.set(watched);
    }

    fn subscriptions(&mut self) -> &mut Subscriptions {
        let service = &self.service;
        self.subscriptions.get_or_insert_with(|| {
            let events = service.router.catalogue().events();
            Box::new(Subscriptions::new(events, service.changes()))
        })
    }

    fn answer(&mut self, id: &[u8], method: Method, revision: Revision, reply: Reply) {
        let info = self.service.router.info();
        self.wire
            .put(|out| write_reply(info, out, id, method, revision, &reply));
    }

    fn put_notes(&mut self) {
        if let Some(outbox) = &self.outbox {
            for message in outbox.take() {
                self.wire.put(|out| out.extend_from_slice(&message));
            }
        }
    }

    fn finished(&mut self, running: &Running, reply: Option<Reply>) {
        self.put_notes();
        let took = clock::monotonic().duration_since(running.since);
        let Some(reply) = reply else {
            self.service
                .audit
                .outcome(&self.facts, running.ticket, Outcome::Cancelled, took);
            return;
        };
        self.service
            .audit
            .outcome(&self.facts, running.ticket, outcome(&reply), took);
        self.answer(&running.id, running.method, running.revision, reply);
    }

    /// Waits for whatever comes first. Dropping the other futures loses nothing.
    async fn wait(&mut self) -> Result<Event, End> {
        let can_read = !self.ended && !self.draining && self.backlog.len() < self.most_calls();
        let outbox = self.outbox.as_ref();
        let subscriptions = &mut self.subscriptions;
        Ok(tokio::select! {
            biased;
            why = told(self.live, self.draining) => Event::Told(why),
            () = self.expiry.as_mut() => Event::Expiry,
            (running, reply) = self.calls.finished(), if !self.calls.is_empty() => {
                Event::Finished(Box::new(running), reply)
            }
            () = async { match outbox { Some(outbox) => outbox.ready().await, None => std::future::pending().await } } => Event::Notes,
            event = async { match subscriptions { Some(all) => next_event(all).await, None => std::future::pending().await } } => event,
            more = self.wire.fill(), if can_read => Event::Read(more?),
        })
    }

    async fn handle(&mut self, event: Event) -> Result<(), End> {
        match event {
            Event::Told(Close::Draining) => self.draining = true,
            Event::Told(why) => return Err(End::Told(why)),
            Event::Expiry => self.look()?,
            Event::Finished(running, reply) => self.finished(&running, reply),
            Event::Notes => self.put_notes(),
            Event::Happened(happening) => {
                self.refresh()?;
                if let Some(subscriptions) = &self.subscriptions {
                    for message in subscriptions.notifications(&happening, &self.basis.caller) {
                        self.wire.put(|out| out.extend_from_slice(&message));
                    }
                }
            }
            Event::WorldChanged => self.refresh()?,
            Event::Read(true) => {
                self.spoke = true;
                if std::mem::take(&mut self.silent) {
                    self.hear(clock::monotonic());
                    self.arm();
                }
            }
            Event::Read(false) => {
                self.ended = true;
                match self.wire.last() {
                    Ok(Some(message)) => self.backlog.push_back(message),
                    Ok(None) => (),
                    Err(error) => return Err(self.too_long(error)),
                }
            }
        }
        Ok(())
    }

    /// Writes what waits. A peer that does not read holds up nobody but itself, and not for ever.
    async fn flush(&mut self) -> Result<(), End> {
        if let Some(done) = self.wire.flush().now_or_never() {
            return Ok(done?);
        }
        let deadline = tokio::time::sleep(self.limits.write_timeout);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                biased;
                why = told(self.live, self.draining) => match why {
                    Close::Draining => self.draining = true,
                    sterner => return Err(End::Told(sterner)),
                },
                () = self.expiry.as_mut() => self.look()?,
                () = deadline.as_mut() => return Err(End::Unread),
                done = self.wire.flush() => return Ok(done?),
            }
        }
    }

    /// Ends what is left and says goodbye.
    async fn finish(&mut self, end: &End) {
        for running in self.calls.abandon() {
            let took = clock::monotonic().duration_since(running.since);
            self.service.audit.outcome(
                &self.facts,
                running.ticket,
                Outcome::ConnectionClosed,
                took,
            );
        }
        if let Some(subscriptions) = &mut self.subscriptions {
            for id in subscriptions.end() {
                self.wire.put(|out| write_stream_end(out, &id));
            }
        }
        // The last words are worth a moment, not more: the peer may be gone or not reading.
        let farewell = async {
            if !matches!(end, End::Broken(_) | End::Unread) {
                let _ = self.wire.flush().await;
            }
            self.wire.close(end.goodbye()).await;
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), farewell).await;
    }
}

/// A call that was taken to its provider.
struct Begun {
    id: Bytes,
    method: Method,
    revision: Revision,
    ticket: Ticket,
    since: Instant,
    notes: Option<Arc<CallNotes>>,
    cancel: Cancel,
}

/// Ready when the connection must end; while it drains already, only for a sterner reason.
pub(super) async fn told(live: &Live, draining: bool) -> Close {
    if draining {
        live.told_to_stop().await
    } else {
        live.told_to_close().await
    }
}

async fn next_event(all: &mut Subscriptions) -> Event {
    use tokio::sync::broadcast::error::RecvError;
    loop {
        tokio::select! {
            biased;
            changed = all.changes.changed() => {
                if changed.is_ok() {
                    return Event::WorldChanged;
                }
                return std::future::pending().await;
            }
            event = all.events.recv() => match event {
                Ok(happening) => return Event::Happened(happening),
                // What was missed is gone; what a client sees next is the present.
                Err(RecvError::Lagged(missed)) => tracing::warn!(missed, "a session fell behind"),
                Err(RecvError::Closed) => return std::future::pending().await,
            }
        }
    }
}

/// `requestId` of `notifications/cancelled`, raw.
pub(super) fn cancelled_id(params: &[u8]) -> Option<&[u8]> {
    let fields = crate::jsonrpc::fields(params).ok()?;
    let found = fields.flatten().find(|(key, _)| key == "requestId");
    found.map(|(_, value)| value)
}
