//! What comes in: messages are read, understood and decided on, in groups.

use bytes::Bytes;
use smallvec::SmallVec;

use crate::audit::{Pending, Ticket};
use crate::jsonrpc::{
    Message, Outline, RequestId, RpcError, ScanError, code, scan, scan_into, write_error,
};
use crate::mcp::{Call, Note, read_call};
use crate::policy::{Denied, Permitted};
use crate::transport::{Wire, WireError};

use super::super::end::End;
use super::super::judge::{Judged, judge};
use super::Session;

/// Requests that are decided on in one group.
const BATCH: usize = 64;

/// Requests that were decided on and wait for their records to be written.
#[derive(Default)]
pub(super) struct Batch {
    /// Most groups are of one, which needs no memory of its own.
    pub permitted: SmallVec<[Pending<Permitted<Box<Call>>>; 1]>,
    pub denied: Vec<Denied<Box<Call>>>,
    pub last: Option<Ticket>,
}

impl Batch {
    fn permitted(&mut self, pending: Pending<Permitted<Box<Call>>>) {
        self.last = Some(pending.ticket());
        self.permitted.push(pending);
    }

    pub fn len(&self) -> usize {
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

impl<W: Wire> Session<'_, W> {
    /// Decides on the messages that are here: waiting ones first, then new ones.
    pub(super) fn gather(&mut self) -> Result<Batch, End> {
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

    pub(super) fn most_calls(&self) -> usize {
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

    pub(super) fn too_long(&mut self, error: WireError) -> End {
        if let WireError::TooLong { max } = &error {
            let text = format!("a message is longer than {max} bytes");
            let error = RpcError::new(code::INVALID_REQUEST, text);
            self.wire.put(|out| write_error(out, None, &error));
        }
        error.into()
    }

    fn on_message(&mut self, frame: Bytes, batch: &mut Batch) {
        let mut outline = Outline::default();
        match scan_into(&frame, self.limits.max_depth, &mut outline) {
            Ok(Message::Request { id, method, params }) => {
                self.on_request(&frame, id.raw(), &method, params, &outline, batch);
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

    fn on_request<'a>(
        &mut self,
        frame: &Bytes,
        id: &[u8],
        method: &str,
        params: Option<&'a [u8]>,
        outline: &Outline<'a>,
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
        let call = match read_call(frame, id, method, params, outline, self.pinned) {
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
}

/// `requestId` of `notifications/cancelled`, raw.
pub(in super::super) fn cancelled_id(params: &[u8]) -> Option<&[u8]> {
    let fields = crate::jsonrpc::fields(params).ok()?;
    let found = fields.flatten().find(|(key, _)| key == "requestId");
    found.map(|(_, value)| value)
}
