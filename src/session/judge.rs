//! Deciding on one call and having the decision written down: the same few steps for every
//! transport.

use crate::audit::{ConnectionFacts, Pending, Ticket};
use crate::backend::Caller;
use crate::grant::Kind;
use crate::mcp::{Call, Detail, Method};
use crate::policy::{Action, Ask, Denied, Permitted, decide};

use super::answer::Cause;
use super::identities::Identity;
use super::service::Service;

/// A call that was decided on; its record is gathering.
pub enum Judged {
    /// To be run once the record is written.
    Permitted(Pending<Permitted<Box<Call>>>),
    /// To be refused once the record is written.
    Denied(Box<Denied<Box<Call>>>, Ticket),
}

/// Decides and appends the decision to the audit log.
pub fn judge(
    service: &Service,
    facts: &ConnectionFacts,
    caller: &Caller,
    mut call: Box<Call>,
) -> Judged {
    service.router.complete_call(&mut call);
    note_denied_entries(service, facts, caller, &call);
    match decide(&caller.grounds, call) {
        Ok(permitted) => Judged::Permitted(service.audit.permitted(facts, permitted)),
        Err(denied) => {
            let ticket = service.audit.denied(facts, &denied);
            Judged::Denied(denied, ticket)
        }
    }
}

/// A `subscriptions/listen` is answered with what it may hear of; each URI that it may not is
/// recorded as a denial of its own.
fn note_denied_entries(service: &Service, facts: &ConnectionFacts, caller: &Caller, call: &Call) {
    let Detail::Listen(filter) = &call.detail else {
        return;
    };
    for uri in &filter.uris {
        if let Err(denied) = decide(&caller.grounds, Entry { call, uri }) {
            service.audit.denied(facts, &denied);
        }
    }
}

/// What stands in the way of a permitted call now. `stale`: whether the registry was out of reach
/// for too long.
pub fn cause(identity: &Identity, method: Method, stale: bool) -> Option<Cause> {
    if stale {
        return Some(Cause::Registry);
    }
    if matches!(method, Method::ToolsCall | Method::Complete)
        && let Err(wait) = identity.check_rate()
    {
        return Some(Cause::Rate(wait));
    }
    None
}

/// One entry of `resourceSubscriptions`, asked for by itself.
struct Entry<'a> {
    call: &'a Call,
    uri: &'a str,
}

impl Ask for Entry<'_> {
    fn action(&self) -> Action<'_> {
        Action::Use(Kind::Resources, self.uri)
    }

    fn method(&self) -> &str {
        self.call.method()
    }

    fn target(&self) -> &str {
        self.uri
    }

    fn request_id(&self) -> &[u8] {
        self.call.request_id()
    }

    fn arguments(&self) -> Option<&[u8]> {
        None
    }

    fn revision(&self) -> &'static str {
        self.call.revision()
    }
}
