//! A session over a stream of messages: the raw stream and the WebSocket.
//!
//! One task serves one connection and owns all of its state. It reads what is there, decides on
//! every request of it, has the decisions recorded in one group, and only then runs the calls.
//! What cannot be answered at once runs beside the reading, within a bound; behind the bound
//! requests wait, and behind those the reading stops. While the peer does not read its answers,
//! nothing more is taken from it. What comes in is in `intake`, what is carried out in `calls`; here is
//! what they share, and the waiting.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;

use crate::audit::{ConnectionFacts, Outcome};
use crate::backend::Happening;
use crate::clock::{self, Alarm};
use crate::dispatch::Reply;
use crate::listener::{Close, Live, Told};
use crate::mcp::{Revision, Severity};
use crate::peer::Peer;
use crate::transport::Wire;

use super::asks::Open;
use super::end::{End, gone};
use super::identities::{Identity, Watches};
use super::limits::Limits;
use super::notes::Outbox;
use super::running::{Calls, Running};
use super::service::{Basis, Service};
use super::subscriptions::{Subscriptions, write_stream_end};

pub(super) use intake::cancelled_id;

mod calls;
mod intake;

/// Answers that may gather before they are written, bytes.
const FLUSH_AT: usize = 256 * 1024;
/// The longest sleep until a connection's certificate is looked at again: wall clocks move.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(3600);

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
        expiry: Alarm::after(Duration::ZERO),
        heard: clock::monotonic(),
        spoke: false,
        silent: true,
        service,
        peer,
        told: Told::new(live),
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

struct Session<'a, W> {
    service: Arc<Service>,
    peer: Peer,
    live: &'a Live,
    told: Told<'a>,
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
    calls: Calls,
    /// Requests that wait for a place among the calls.
    backlog: VecDeque<Bytes>,
    outbox: Option<Arc<Outbox>>,
    subscriptions: Option<Box<Subscriptions>>,
    /// What of the identity's watches is this connection's.
    watches: Watches,
    /// Rings when the certificate ends, when the peer was silent for too long, or to look again.
    expiry: Alarm,
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

    /// Sets the alarm to what comes first: the certificate's end, the end of the time in which the
    /// peer may be silent, or the next look at a wall clock that may have moved.
    fn arm(&mut self) {
        let left = self.basis.until.since(clock::unix_now()).min(LOOK_AGAIN);
        let idle = self
            .idle_limit()
            .map(|limit| limit.saturating_sub(clock::monotonic().duration_since(self.heard)));
        let wait = idle.map_or(left, |idle| left.min(idle));
        self.expiry.set_after(wait);
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

    /// The alarm rang.
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

    /// Waits for whatever comes first. Dropping the other futures loses nothing.
    async fn wait(&mut self) -> Result<Event, End> {
        let can_read = !self.ended && !self.draining && self.backlog.len() < self.most_calls();
        let outbox = self.outbox.as_ref();
        let subscriptions = &mut self.subscriptions;
        Ok(tokio::select! {
            biased;
            why = self.told.hear() => Event::Told(why),
            () = self.expiry.rung() => Event::Expiry,
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
            Event::Told(Close::Draining) => self.drain(),
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

    fn drain(&mut self) {
        self.draining = true;
        self.told.drain();
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
                why = self.told.hear() => match why {
                    Close::Draining => self.drain(),
                    sterner => return Err(End::Told(sterner)),
                },
                () = self.expiry.rung() => self.look()?,
                () = deadline.as_mut() => return Err(End::Unread),
                done = self.wire.flush() => return Ok(done?),
            }
        }
    }

    /// Ends what is left and says goodbye.
    async fn finish(&mut self, end: &End) {
        for running in self.calls.abandon() {
            self.service.audit.outcome(
                &self.facts,
                running.ticket,
                Outcome::ConnectionClosed,
                Some(running.since),
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
