//! A call of an older revision: it goes on when its connection is gone (a disconnect is no
//! cancellation there), and its answer waits for a client that comes back.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::Poll;

use bytes::Bytes;
use futures_util::stream;
use hyper::{Response, StatusCode};
use tokio::sync::oneshot;

use crate::audit::Outcome;
use crate::clock;
use crate::dispatch::Reply;
use crate::framing::write_event;
use crate::jsonrpc::code;
use crate::transport::http::{Accepts, Busy, ReplyBody, event_stream, fault, json};

use super::super::identities::Place;
use super::call::Begun;
use super::conn::{Conn, Party};
use super::events::Events;
use super::flight::{ready, whole};
use super::reading::Reading;
use super::sessions::Held;

/// What one call tells whoever waits for its first word.
enum Word {
    /// It is over, and nothing was said before.
    Reply(Bytes),
    /// Events begin.
    Events,
}

/// Runs a call beside the connection, and answers with its result or with its stream of events.
pub async fn later(
    conn: &Arc<Conn>,
    held: Held,
    begun: Begun,
    mut future: Pin<Box<dyn Future<Output = Reply> + Send>>,
    place: Place,
    accepts: Accepts,
    busy: Busy,
) -> Response<ReplyBody> {
    if let Poll::Ready(reply) = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await {
        if begun.outbox.as_ref().is_none_or(|outbox| outbox.is_empty()) {
            begun.over(conn, &reply);
            return whole(conn, &begun, &reply, accepts);
        }
        // Kept for behind the notes.
        future = Box::pin(std::future::ready(reply));
    }
    let stream = Arc::new(OnceLock::<Arc<Events>>::new());
    let (tell, told) = oneshot::channel();
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
    stream: Arc<OnceLock<Arc<Events>>>,
    tell: Option<oneshot::Sender<Word>>,
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
