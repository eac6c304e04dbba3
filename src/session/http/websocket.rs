//! From HTTP to a WebSocket (RFC 6455 section 4; RFC 8441 over HTTP/2): the opening handshake, and
//! the session over what comes after it. Extensions are never agreed on.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::ext::Protocol;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Method, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::audit::ConnectionFacts;
use crate::jsonrpc::code;
use crate::transport::http::{Busy, Paced, ReplyBody, empty, fault};
use crate::transport::{Wire, WsWire, accept_key};

use super::super::end::{End, gone};
use super::super::stream::serve_on;
use super::conn::{Conn, OnStream};

/// The subprotocol.
const PROTOCOL: &str = "mcp";

/// Whether this request asks for a WebSocket.
pub fn is_asked_for(head: &Parts) -> bool {
    if head.version == Version::HTTP_2 {
        let protocol = head.extensions.get::<Protocol>();
        return head.method == Method::CONNECT
            && protocol.is_some_and(|protocol| protocol.as_str() == "websocket");
    }
    head.method == Method::GET
        && tokens(&head.headers, header::UPGRADE.as_str())
            .into_iter()
            .any(|token| token == "websocket")
}

/// Answers the opening handshake; on HTTP/2 the session begins at once, on HTTP/1.1 when the
/// connection is free of HTTP.
pub fn open(conn: &Arc<Conn>, head: &mut Parts, busy: Busy) -> Response<ReplyBody> {
    let bad = |message| fault(StatusCode::BAD_REQUEST, code::INVALID_REQUEST, message);
    let headers = &head.headers;
    let version = headers.get(header::SEC_WEBSOCKET_VERSION);
    if version.is_none_or(|version| version != "13") {
        let mut response = fault(
            StatusCode::UPGRADE_REQUIRED,
            code::INVALID_REQUEST,
            "version 13 is spoken here",
        );
        let spoken = HeaderValue::from_static("13");
        response
            .headers_mut()
            .insert(header::SEC_WEBSOCKET_VERSION, spoken);
        return response;
    }
    let speaks_mcp = tokens(headers, header::SEC_WEBSOCKET_PROTOCOL.as_str())
        .into_iter()
        .any(|token| token == PROTOCOL);
    let mut response = if head.version == Version::HTTP_2 {
        empty(StatusCode::OK)
    } else {
        let connection = tokens(headers, header::CONNECTION.as_str());
        if !connection.into_iter().any(|token| token == "upgrade") {
            return bad("`Connection` must say `Upgrade`");
        }
        let mut keys = headers.get_all(header::SEC_WEBSOCKET_KEY).iter();
        let (Some(key), None) = (keys.next(), keys.next()) else {
            return bad("`Sec-WebSocket-Key` must stand there once");
        };
        if STANDARD
            .decode(key.as_bytes())
            .ok()
            .is_none_or(|nonce| nonce.len() != 16)
        {
            return bad("`Sec-WebSocket-Key` must be 16 bytes in base64");
        }
        let Ok(accept) = HeaderValue::from_str(&accept_key(key.as_bytes())) else {
            return bad("`Sec-WebSocket-Key` is not readable");
        };
        let mut response = empty(StatusCode::SWITCHING_PROTOCOLS);
        let headers = response.headers_mut();
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        response
    };
    if speaks_mcp {
        let protocol = HeaderValue::from_static(PROTOCOL);
        response
            .headers_mut()
            .insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    let Some(upgrade) = head.extensions.remove::<OnUpgrade>() else {
        return bad("this connection cannot be upgraded");
    };
    if head.version == Version::HTTP_2 {
        conn.service
            .sessions
            .spawn(over_http2(conn.on_stream(), upgrade, busy));
    } else {
        conn.upgrades(upgrade);
    }
    response
}

/// The lower-case tokens of all lines of a field.
fn tokens(headers: &HeaderMap, name: &str) -> Vec<String> {
    let lines = headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok());
    lines
        .flat_map(|line| line.split(','))
        .map(|token| token.trim().to_ascii_lowercase())
        .collect()
}

/// One stream of an HTTP/2 connection.
async fn over_http2(conn: OnStream, upgrade: OnUpgrade, busy: Busy) {
    if let Ok(upgraded) = upgrade.await {
        let wire = WsWire::server(TokioIo::new(upgraded), conn.limits.max_message_bytes);
        let end = talk(&conn, wire).await;
        tracing::debug!(reason = end.reason(), "a WebSocket over HTTP/2 is over");
    }
    drop((busy, conn));
}

/// A whole HTTP/1.1 connection, from its upgrade to its end.
pub async fn over_http1<S>(conn: &Conn, upgrade: OnUpgrade) -> End
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let upgraded: Upgraded = match upgrade.await {
        Ok(upgraded) => upgraded,
        Err(error) => return End::Broken(std::io::Error::other(error)),
    };
    // The connection itself, without what HTTP needed of it.
    let Ok(parts) = upgraded.downcast::<TokioIo<Paced<S>>>() else {
        return End::Unruly;
    };
    let (stream, ahead) = parts.io.into_inner().into_parts();
    // RFC 6455, section 4.1: a client waits for the answer before it sends anything else.
    if !parts.read_buf.is_empty() || !ahead.is_empty() {
        return End::Unruly;
    }
    // Empty, and yet it holds what HTTP read into.
    drop(parts.read_buf);
    talk(conn, WsWire::server(stream, conn.limits.max_message_bytes)).await
}

async fn talk<W: Wire>(conn: &Conn, wire: W) -> End {
    let basis = match conn.current_basis() {
        Ok(basis) => basis,
        Err(refusal) => return gone(&conn.peer, &conn.live, &refusal),
    };
    let facts = ConnectionFacts::new(&conn.peer, conn.live.id(), W::NAME);
    serve_on(
        basis,
        Arc::clone(&conn.service),
        conn.peer.clone(),
        &conn.live,
        facts,
        wire,
    )
    .await
}
