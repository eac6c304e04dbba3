//! `subscriptions/listen`: a stream of events that begins with its acknowledgement, carries what was
//! asked for and may be heard, and ends with its result when the server goes.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use hyper::{Response, StatusCode};

use crate::audit::Outcome;
use crate::dispatch::{Listening, Reply};
use crate::framing::{KEEP_ALIVE, write_event};
use crate::jsonrpc::code;
use crate::transport::http::{Accepts, Busy, ReplyBody, event_stream, json};

use super::super::answer::Cause;
use super::super::identities::Watches;
use super::super::subscriptions::{Wanted, write_stream_end};
use super::call::Begun;
use super::conn::Conn;
use super::flight::whole;
use super::news::{News, Teller, of};

/// One stream.
struct Listen {
    conn: Arc<Conn>,
    begun: Begun,
    wanted: Wanted,
    news: News,
    teller: Teller,
    first: Option<Vec<u8>>,
    _watches: Watches,
    _busy: Busy,
}

/// Begins the stream, or says why not.
pub fn listen(
    conn: Arc<Conn>,
    begun: Begun,
    listening: Listening,
    accepts: Accepts,
    busy: Busy,
) -> Response<ReplyBody> {
    let watched = listening.watches.len();
    let mut watches = Watches::none(Arc::clone(&conn.identity));
    let Ok(teller) = Teller::new(&conn) else {
        return whole(
            &conn,
            &begun,
            &Cause::Registry.reply(begun.asked.method),
            accepts,
        );
    };
    if !accepts.events {
        let message = "`Accept` must take `text/event-stream`";
        let reply = Reply::error(code::INVALID_REQUEST, message);
        begun.over(&conn, &reply);
        let body = begun.asked.write(&conn, &reply);
        return json(StatusCode::NOT_ACCEPTABLE, body.into());
    }
    let fits = watched <= conn.limits.subscriptions_per_connection && watches.has_room_for(watched);
    if !fits {
        let reply = Cause::Busy.reply(begun.asked.method);
        begun.over(&conn, &reply);
        return whole(&conn, &begun, &reply, accepts);
    }
    watches.set(watched);
    begun.ended(&conn, Outcome::Ok);
    // Before the acknowledgement: what happens after it is not missed.
    let news = News::new(&conn.service);
    let mut wanted = Wanted::default();
    let first = Some(wanted.listen(begun.asked.id.clone(), listening));
    let listen = Listen {
        conn,
        begun,
        wanted,
        news,
        teller,
        first,
        _watches: watches,
        _busy: busy,
    };
    event_stream(stream::unfold(Some(listen), |listen| async move {
        let mut listen = listen?;
        let (out, goes_on) = listen.next().await?;
        Some((out, goes_on.then_some(listen)))
    }))
}

impl Listen {
    /// The next bytes, and whether more will come. `None`: the peer must go.
    async fn next(&mut self) -> Option<(Bytes, bool)> {
        if let Some(first) = self.first.take() {
            return Some((events(&[first]), true));
        }
        let keep_alive = self.conn.options.keep_alive;
        loop {
            let item = tokio::select! {
                biased;
                _ = self.conn.live.told_to_close() => {
                    let mut end = Vec::new();
                    write_stream_end(&mut end, &self.begun.asked.id);
                    return Some((events(&[end]), false));
                }
                item = self.news.next() => item,
                () = tokio::time::sleep(keep_alive) => {
                    return Some((Bytes::from_static(KEEP_ALIVE), true));
                }
            };
            let told = self.teller.tell(&self.conn, &item, of(&self.wanted)).ok()?;
            if !told.is_empty() {
                return Some((events(&told), true));
            }
        }
    }
}

fn events(messages: &[Vec<u8>]) -> Bytes {
    let mut out = Vec::new();
    for message in messages {
        write_event(&mut out, None, message);
    }
    out.into()
}
