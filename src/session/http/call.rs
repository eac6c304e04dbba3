//! One request from the decision to the provider: decided, recorded, dispatched.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::audit::{AuditError, Outcome, Recorded, Ticket, Written};
use crate::backend::{Caller, Cancel, Context, Notes};
use crate::dispatch::{Dispatched, Reply};
use crate::jsonrpc::OwnedId;
use crate::mcp::{Call, Method, Revision, Severity};
use crate::policy::Permitted;

use super::super::answer::{Cause, denial, outcome, write_reply};
use super::super::asks::{Asks, Open};
use super::super::judge::{Judged, cause, judge};
use super::super::notes::{CallNotes, Outbox};
use super::conn::Party;

/// What an answer needs to know of its request.
#[derive(Clone, Debug)]
pub struct Asked {
    pub id: OwnedId,
    pub method: Method,
    pub revision: Revision,
}

impl Asked {
    pub fn of(call: &Call) -> Self {
        Self {
            id: call.id.clone(),
            method: call.method,
            revision: call.revision,
        }
    }

    /// The whole message.
    pub fn write(&self, party: &Party, reply: &Reply) -> Vec<u8> {
        let mut out = Vec::new();
        let info = party.service.router.info();
        write_reply(info, &mut out, &self.id, self.method, self.revision, reply);
        out
    }
}

/// A call that was taken to its provider.
pub struct Begun {
    pub asked: Asked,
    pub ticket: Ticket,
    pub since: Instant,
    pub cancel: Cancel,
    pub outbox: Option<Arc<Outbox>>,
    pub notes: Option<Arc<CallNotes>>,
}

impl Begun {
    /// Records how it ended, and when that was.
    pub fn over(&self, party: &Party, reply: &Reply) -> Instant {
        self.ended(party, outcome(reply))
    }

    /// Records an end without a reply.
    pub fn ended(&self, party: &Party, how: Outcome) -> Instant {
        if let Some(notes) = &self.notes {
            notes.finish();
        }
        let since = Some(self.since);
        party
            .service
            .audit
            .outcome(&party.facts, self.ticket, how, since)
    }
}

/// What a call comes with besides itself: of the answer, and of a session of an older revision.
#[derive(Default)]
pub struct Extra {
    /// Whether the client takes a stream, on which notes can go.
    pub events: bool,
    pub capabilities: Option<Bytes>,
    pub level: Option<Severity>,
    /// The server's own requests, where the client can be asked and takes a stream.
    pub open: Option<Arc<Open>>,
}

/// A call that is decided on, with its record on its way to the log.
pub struct Decided {
    judged: Judged,
    method: Method,
}

impl Decided {
    /// Decides; the record is gathering.
    pub fn on(party: &Party, caller: &Caller, call: Box<Call>) -> Self {
        let method = call.method;
        Self {
            judged: judge(&party.service, &party.facts, caller, call),
            method,
        }
    }

    /// When that was, of a call that is permitted.
    pub fn at(&self) -> Option<Instant> {
        match &self.judged {
            Judged::Permitted(pending) => Some(pending.at()),
            Judged::Denied(..) => None,
        }
    }

    /// What must be written before anything else happens.
    pub const fn ticket(&self) -> Ticket {
        match &self.judged {
            Judged::Permitted(pending) => pending.ticket(),
            Judged::Denied(_, ticket) => *ticket,
        }
    }

    /// What becomes of the call once the log has said whether its record is written.
    ///
    /// # Errors
    /// The reply that refuses the call.
    pub fn recorded(
        self,
        party: &Party,
        caller: &Caller,
        written: Result<Written, AuditError>,
    ) -> Result<Recorded<Permitted<Box<Call>>>, Reply> {
        let (service, method, ticket) = (&party.service, self.method, self.ticket());
        let audit_is_out = || Cause::Audit.reply(method);
        let written = written.map_err(|_| audit_is_out())?;
        let pending = match self.judged {
            Judged::Permitted(pending) => pending,
            Judged::Denied(denied, _) => {
                return Err(denial(&denied, caller.grounds.denials()));
            }
        };
        let stale = service.registry_is_stale(written.at());
        if let Some(cause) = cause(&party.identity, method, stale) {
            let limited = Outcome::RateLimited;
            service.audit.outcome(&party.facts, ticket, limited, None);
            return Err(cause.reply(method));
        }
        service
            .audit
            .recorded(pending, &written)
            .map_err(|_| audit_is_out())
    }
}

/// Decides and has the decision written down.
///
/// # Errors
/// The reply that refuses the call.
pub async fn decide(
    party: &Party,
    caller: &Caller,
    call: Box<Call>,
) -> Result<Recorded<Permitted<Box<Call>>>, Reply> {
    let decided = Decided::on(party, caller, call);
    let written = party.service.audit.commit(decided.ticket()).await;
    decided.recorded(party, caller, written)
}

/// Takes a recorded call to its provider.
pub fn begin(
    party: &Party,
    caller: Arc<Caller>,
    recorded: Recorded<Permitted<Box<Call>>>,
    asked: Asked,
    extra: Extra,
) -> (Begun, Dispatched) {
    let since = recorded.at();
    let call = recorded.get().call();
    let modern = asked.revision.is_modern();
    let level = if modern {
        call.meta.log_level
    } else {
        extra.level
    };
    let token = call.meta.progress_token.clone();
    let mut context = Context::new(caller);
    context.cancel = Cancel::new();
    context.client_capabilities = extra.capabilities;
    // A call of an older revision may let its stream go, whether or not it has anything to tell.
    let wants_notes = extra.events && (token.is_some() || level.is_some() || !modern);
    let outbox = (wants_notes || extra.open.is_some()).then(Arc::<Outbox>::default);
    let notes = outbox.as_ref().filter(|_| wants_notes).map(|outbox| {
        let notes = Arc::new(CallNotes::new(Arc::clone(outbox), token, level));
        context.notes = Some(Arc::clone(&notes) as Arc<dyn Notes>);
        notes
    });
    if let (Some(open), Some(outbox)) = (extra.open, &outbox) {
        context.asker = Some(Asks::new(open, Arc::clone(outbox)));
    }
    let cancel = context.cancel.clone();
    let (ticket, dispatched) = party.service.router.dispatch(recorded, context);
    (
        Begun {
            asked,
            ticket,
            since,
            cancel,
            outbox,
            notes,
        },
        dispatched,
    )
}
