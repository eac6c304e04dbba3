//! A call of the modern era while it runs. It lives and dies with the answer that is written: who
//! closes the answer's stream has cancelled the call.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use hyper::Response;
use hyper::header::HeaderMap;

use crate::audit::Outcome;
use crate::dispatch::Reply;
use crate::framing::{KEEP_ALIVE, write_event};
use crate::transport::http::{Accepts, Busy, ReplyBody, event_stream, json_again};

use super::super::identities::Place;
use super::super::notes::Outbox;
use super::call::Begun;
use super::conn::{Conn, Party};
use super::status::status_of;

/// A call that is not answered yet.
pub struct Flight {
    conn: Arc<Conn>,
    begun: Begun,
    future: Pin<Box<dyn Future<Output = Reply> + Send>>,
    _busy: Busy,
    _place: Place,
    over: bool,
}

impl Drop for Flight {
    fn drop(&mut self) {
        if !self.over {
            self.begun.cancel.cancel();
            self.begun.ended(&self.conn, Outcome::Cancelled);
            self.conn.abandoned();
        }
    }
}

/// What came first.
enum First {
    Reply(Reply),
    Notes,
    Quiet,
}

impl Flight {
    pub fn new(
        conn: Arc<Conn>,
        begun: Begun,
        future: Pin<Box<dyn Future<Output = Reply> + Send>>,
        busy: Busy,
        place: Place,
    ) -> Self {
        Self {
            conn,
            begun,
            future,
            _busy: busy,
            _place: place,
            over: false,
        }
    }

    /// Waits for the outcome, the first notification, or as long as a client may be left without a
    /// word; then the status is known.
    pub async fn answer(mut self, accepts: Accepts) -> Response<ReplyBody> {
        let patience = self.conn.options.keep_alive;
        match self.next(accepts.events.then_some(patience)).await {
            First::Reply(reply) => self.whole(&reply, accepts),
            First::Notes | First::Quiet => event_stream(self.events()),
        }
    }

    async fn next(&mut self, patience: Option<Duration>) -> First {
        let outbox = self.begun.outbox.clone();
        // Most calls are done by now; a timer is for the others.
        if let Poll::Ready(reply) = poll_fn(|cx| Poll::Ready(self.future.as_mut().poll(cx))).await {
            return self.finished(outbox.as_deref(), patience.is_some(), reply);
        }
        let Some(patience) = patience else {
            return First::Reply(self.future.as_mut().await);
        };
        tokio::select! {
            biased;
            reply = self.future.as_mut() => self.finished(outbox.as_deref(), true, reply),
            () = ready(outbox.as_deref()) => First::Notes,
            () = tokio::time::sleep(patience) => First::Quiet,
        }
    }

    /// A reply with notes before it: the notes go first, and the reply is kept for behind them.
    fn finished(&mut self, outbox: Option<&Outbox>, events: bool, reply: Reply) -> First {
        if events && outbox.is_some_and(|outbox| !outbox.is_empty()) {
            self.future = Box::pin(std::future::ready(reply));
            return First::Notes;
        }
        First::Reply(reply)
    }

    fn whole(mut self, reply: &Reply, accepts: Accepts) -> Response<ReplyBody> {
        self.over = true;
        self.begun.over(&self.conn, reply);
        self.conn.answered();
        whole(&self.conn, &self.begun, reply, accepts)
    }

    /// Notes as they come, then the reply, then the end.
    fn events(self) -> impl futures_util::Stream<Item = Bytes> + Send + 'static {
        stream::unfold(Some(self), |flight| async move {
            let mut flight = flight?;
            let outbox = flight.begun.outbox.clone();
            let waiting = outbox.as_deref().map(Outbox::take).unwrap_or_default();
            if !waiting.is_empty() {
                return Some((events_of(waiting), Some(flight)));
            }
            let patience = flight.conn.options.keep_alive;
            match flight.next(Some(patience)).await {
                First::Quiet => Some((Bytes::from_static(KEEP_ALIVE), Some(flight))),
                First::Notes => {
                    let waiting = outbox.as_deref().map(Outbox::take).unwrap_or_default();
                    Some((events_of(waiting), Some(flight)))
                }
                First::Reply(reply) => {
                    flight.over = true;
                    flight.begun.over(&flight.conn, &reply);
                    flight.conn.answered();
                    let message = flight.begun.asked.write(&flight.conn, &reply);
                    let mut out = Vec::new();
                    write_event(&mut out, None, &message);
                    Some((out.into(), None))
                }
            }
        })
    }
}

fn events_of(messages: VecDeque<Vec<u8>>) -> Bytes {
    let mut out = Vec::new();
    for message in messages {
        write_event(&mut out, None, &message);
    }
    out.into()
}

/// Ready when notes wait; never where there can be none.
pub async fn ready(outbox: Option<&Outbox>) {
    match outbox {
        Some(outbox) => outbox.ready().await,
        None => std::future::pending().await,
    }
}

/// An answer in one piece.
pub fn whole(party: &Party, begun: &Begun, reply: &Reply, accepts: Accepts) -> Response<ReplyBody> {
    whole_again(HeaderMap::new(), party, begun, reply, accepts)
}

/// The same, in the map of the request's fields ([`json_again`]).
pub fn whole_again(
    map: HeaderMap,
    party: &Party,
    begun: &Begun,
    reply: &Reply,
    accepts: Accepts,
) -> Response<ReplyBody> {
    let status = if begun.asked.revision.is_modern() {
        status_of(reply)
    } else {
        hyper::StatusCode::OK
    };
    let message = begun.asked.write(party, reply);
    if accepts.json || !status.is_success() {
        return json_again(map, status, message.into());
    }
    let mut out = Vec::new();
    write_event(&mut out, None, &message);
    event_stream(stream::iter([Bytes::from(out)]))
}
