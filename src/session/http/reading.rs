//! Clients that read the streams of their session: of a call, for the first time or again, and the
//! one that belongs to no request.

use std::future::poll_fn;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use hyper::{Response, StatusCode};

use crate::framing::{KEEP_ALIVE, write_event, write_priming};
use crate::jsonrpc::code;
use crate::mcp::Revision;
use crate::transport::http::{Busy, Gone, ReplyBody, event_stream, fault};

use super::conn::Conn;
use super::events::{Events, Next, Reader, split_id};
use super::news::{Teller, of};
use super::sessions::{Held, HttpSession};

/// A client that reads a stream of its session.
pub struct Reading {
    conn: Arc<Conn>,
    revision: Revision,
    stream: Arc<Events>,
    reader: Reader,
    /// Keeps the session from resting.
    _held: Option<Held>,
    _busy: Busy,
}

impl Reading {
    pub fn new(
        conn: &Arc<Conn>,
        session: &Arc<HttpSession>,
        stream: Arc<Events>,
        reader: Reader,
        busy: Busy,
    ) -> Self {
        let service = &conn.service;
        let held = service.sessions.find(conn.peer.name(), &session.id);
        let revision = session.revision;
        Self {
            conn: Arc::clone(conn),
            revision,
            stream,
            reader,
            _held: held,
            _busy: busy,
        }
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
    pub fn events(self, begins: bool) -> impl futures_util::Stream<Item = Bytes> + Send + 'static {
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
    let first = if after.is_none() {
        reading.priming()
    } else {
        None
    };
    let standing = Standing {
        reading,
        session,
        teller,
        first,
    };
    Ok(event_stream(stream::unfold(
        standing,
        |mut standing| async move {
            let out = standing.next().await?;
            Some((out, standing))
        },
    )))
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
