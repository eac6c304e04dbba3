//! What is carried out: a group's records are written, its calls go to their providers, and their
//! answers to the wire.

use std::iter;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::audit::{Outcome, Ticket};
use crate::backend::{Cancel, Context, Notes};
use crate::dispatch::{Dispatched, Effect, Listening, Reply};
use crate::jsonrpc::OwnedId;
use crate::mcp::{Call, Method, Revision};
use crate::transport::Wire;

use super::super::answer::{Cause, denial, outcome, write_reply};
use super::super::asks::{Asks, can_be_asked};
use super::super::end::End;
use super::super::judge::cause;
use super::super::notes::CallNotes;
use super::super::running::Running;
use super::super::subscriptions::Subscriptions;
use super::intake::Batch;
use super::{FLUSH_AT, Session};

impl<W: Wire> Session<'_, W> {
    /// Has the decisions of the batch recorded, refuses what was denied, and runs the rest.
    pub(super) async fn run_batch(&mut self, batch: Batch) -> Result<(), End> {
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
        let mut now = written.at();
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
                        .outcome(&self.facts, ticket, outcome, None);
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
                self.service
                    .audit
                    .outcome(&self.facts, ticket, Outcome::RateLimited, None);
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
        // Not the default, which is never cancelled.
        context.cancel = Cancel::new();
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
        *now = self
            .service
            .audit
            .outcome(&self.facts, begun.ticket, outcome(&reply), Some(*now));
        self.answer(&begun.id, begun.method, begun.revision, reply);
        begun.cancel.over();
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
            .outcome(&self.facts, begun.ticket, Outcome::Ok, None);
    }

    fn has_room_for(&mut self, more: usize) -> bool {
        let watched = self.subscriptions().watched() + more;
        watched <= self.limits.subscriptions_per_connection && self.watches.has_room_for(more)
    }

    /// Tells the identity's count how many resources this connection watches now.
    pub(super) fn count_watches(&mut self) {
        let watched = self.subscriptions.as_ref().map_or(0, |all| all.watched());
        self.watches.set(watched);
    }

    pub(super) fn subscriptions(&mut self) -> &mut Subscriptions {
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

    pub(super) fn put_notes(&mut self) {
        if let Some(outbox) = &self.outbox {
            for message in outbox.take() {
                self.wire.put(|out| out.extend_from_slice(&message));
            }
        }
    }

    pub(super) fn finished(&mut self, running: &Running, reply: Option<Reply>) {
        self.put_notes();
        let how = reply.as_ref().map_or(Outcome::Cancelled, outcome);
        self.service
            .audit
            .outcome(&self.facts, running.ticket, how, Some(running.since));
        let Some(reply) = reply else {
            return;
        };
        self.answer(&running.id, running.method, running.revision, reply);
    }
}

/// A call that was taken to its provider.
struct Begun {
    id: OwnedId,
    method: Method,
    revision: Revision,
    ticket: Ticket,
    since: Instant,
    notes: Option<Arc<CallNotes>>,
    cancel: Cancel,
}
