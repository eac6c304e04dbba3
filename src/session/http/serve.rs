//! One HTTP connection from its first request to its end.

use std::error::Error as _;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::audit::ConnectionFacts;
use crate::clock::{self, Alarm};
use crate::listener::{Close, Live, Told, Vigil};
use crate::peer::Peer;
use crate::transport::Way;
use crate::transport::http::{Bounds, Connection, Late, Pace, Paced, Patience};

use super::super::end::End;
use super::super::service::Service;
use super::super::stream::LOOK_AGAIN;
use super::conn::Conn;
use super::handler::Handler;
use super::websocket;

/// A connection that speaks HTTP.
pub struct HttpStream<S> {
    /// The connection.
    pub stream: S,
    /// What was read of it already.
    pub read: Bytes,
    /// [`Way::Http1`] or [`Way::Http2`].
    pub way: Way,
}

/// How long the last words of WebSockets on HTTP/2, or to whom speaks it out of place, may take.
const FAREWELL: Duration = Duration::from_millis(200);

/// What woke the connection up.
enum Woke {
    Told(Close),
    Closing(End),
    Over(hyper::Result<()>),
    Alarm,
}

/// Serves one admitted connection to its end.
pub async fn serve_http<S>(
    service: Arc<Service>,
    peer: Peer,
    live: Live,
    facts: ConnectionFacts,
    http: HttpStream<S>,
) -> End
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let two = http.way == Way::Http2;
    let pace = Pace::new(!two);
    let conn = match Conn::new(service, peer, live, facts, Arc::clone(&pace)) {
        Ok(conn) => Arc::new(conn),
        Err(end) => return end,
    };
    let stream = Paced::new(http.stream, http.read, pace);
    let handler = Handler(Arc::clone(&conn));
    let mut connection = if two {
        let streams = u32::try_from(conn.limits.in_flight_per_connection).unwrap_or(u32::MAX);
        let bounds = Bounds {
            streams,
            extended_connect: true,
        };
        Connection::http2(stream, &bounds, handler)
    } else {
        Connection::http1(stream, handler)
    };
    match drive(&conn, &mut connection).await {
        Driven::Over(end) => end,
        Driven::Preface => {
            let refusal = connection.refuse_preface(conn.pace.has_asked());
            // Whoever does not take it misses it.
            let _ = tokio::time::timeout(FAREWELL, refusal).await;
            End::Unruly
        }
        Driven::Upgraded(upgrade) => {
            // What HTTP needed is not kept for as long as a WebSocket lives.
            drop(connection);
            Box::pin(websocket::over_http1::<S>(&conn, upgrade)).await
        }
    }
}

/// What became of a connection.
enum Driven {
    Over(End),
    /// With the preface of HTTP/2 where HTTP/1.1 was agreed on.
    Preface,
    Upgraded(OnUpgrade),
}

impl From<End> for Driven {
    fn from(end: End) -> Self {
        Self::Over(end)
    }
}

async fn drive<S>(conn: &Arc<Conn>, connection: &mut Connection<S, Handler>) -> Driven
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let patience = Patience {
        first: conn.limits.first_byte_timeout,
        head: conn.options.head_timeout,
        body: conn.options.body_timeout,
        write: conn.limits.write_timeout,
        idle: conn.limits.idle_timeout,
    };
    let mut alarm = Alarm::at(next_look(conn, &patience));
    let mut draining = false;
    let mut told = Told::new(&conn.live);
    loop {
        let woke = {
            let (mut closing, mut vigil) = (pin!(conn.closing()), Vigil::default());
            poll_fn(|cx| {
                if let Poll::Ready(why) = told.poll(cx) {
                    return Poll::Ready(Woke::Told(why));
                }
                let rings = conn.rings();
                if let Poll::Ready(end) = vigil.ask(cx, rings, |cx| closing.as_mut().poll(cx)) {
                    return Poll::Ready(Woke::Closing(end));
                }
                if let Poll::Ready(over) = connection.poll_run(cx) {
                    return Poll::Ready(Woke::Over(over));
                }
                if let Some((at, _)) = conn.pace.deadline(&patience)
                    && at < alarm.moment()
                {
                    alarm.set(at);
                }
                alarm.poll(cx).map(|()| Woke::Alarm)
            })
            .await
        };
        match woke {
            Woke::Told(Close::Draining) => {
                draining = true;
                told.drain();
                connection.graceful_shutdown();
            }
            Woke::Told(why) => {
                farewell(conn, connection).await;
                return End::Told(why).into();
            }
            Woke::Closing(end) => return end.into(),
            Woke::Over(Ok(())) => {
                if let Some(upgrade) = conn.take_upgrade() {
                    return Driven::Upgraded(upgrade);
                }
                return if draining {
                    End::Told(Close::Draining).into()
                } else {
                    End::Closed.into()
                };
            }
            Woke::Over(Err(error)) if error.is_parse_version_h2() => return Driven::Preface,
            Woke::Over(Err(error)) => return broken(conn, error).await.into(),
            Woke::Alarm => {
                if let Some(end) = late(conn, &patience) {
                    return end.into();
                }
                alarm.set(next_look(conn, &patience));
            }
        }
    }
}

/// WebSockets on streams of the connection were told as well, and say goodbye by themselves.
async fn farewell<S>(conn: &Conn, connection: &mut Connection<S, Handler>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if !conn.has_websockets() {
        return;
    }
    connection.graceful_shutdown();
    let said = poll_fn(|cx| match connection.poll_run(cx) {
        Poll::Pending if conn.has_websockets() => Poll::Pending,
        _ => Poll::Ready(()),
    });
    let _ = tokio::time::timeout(FAREWELL, said).await;
}

/// When the connection is to be looked at next.
fn next_look(conn: &Conn, patience: &Patience) -> Instant {
    let left = conn.until().since(clock::unix_now()).min(LOOK_AGAIN);
    let look = clock::monotonic() + left;
    conn.pace
        .deadline(patience)
        .map_or(look, |(at, _)| at.min(look))
}

/// The alarm rang: what is late?
fn late(conn: &Conn, patience: &Patience) -> Option<End> {
    if conn.until() <= clock::unix_now() {
        return Some(End::Told(Close::Expired));
    }
    let (at, late) = conn.pace.deadline(patience)?;
    if at > clock::monotonic() {
        return None;
    }
    match late {
        Late::Body => {
            conn.pace.give_up_body();
            None
        }
        Late::Head => Some(End::Slow),
        Late::Reading => Some(End::Unread),
        Late::First | Late::Idle => Some(End::Idle),
    }
}

/// Why a connection broke; a request that had it closed knows better.
async fn broken(conn: &Conn, error: hyper::Error) -> End {
    let mut closing = pin!(conn.closing());
    let known = poll_fn(|cx| match closing.as_mut().poll(cx) {
        Poll::Ready(end) => Poll::Ready(Some(end)),
        Poll::Pending => Poll::Ready(None),
    });
    if let Some(end) = known.await {
        return end;
    }
    tracing::debug!(%error, "an HTTP connection broke");
    let left = conn.pace.has_left()
        || error.is_incomplete_message()
        || error.is_closed()
        || error.is_canceled();
    if left || (conn.pace.busy() == 0 && closed_and_gone(&error)) {
        return End::Closed;
    }
    if error.is_parse() || error.is_user() {
        return End::Unruly;
    }
    End::Broken(std::io::Error::other(error))
}

/// Whether a peer that owed nothing and was owed nothing had closed its side before it was gone: a socket
/// reads as a broken pipe only if the reset came behind the end.
fn closed_and_gone(error: &hyper::Error) -> bool {
    let cause = error
        .source()
        .and_then(|cause| cause.downcast_ref::<std::io::Error>());
    cause.is_some_and(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}
