//! A WebSocket to the server, seen as a stream of lines: what the client and the bridge understand.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, Bytes};
use http_body_util::Empty;
use hyper::header::{
    CONNECTION, HOST, HeaderMap, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::upgrade::Upgraded;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::farewell::Farewells;
use super::fault::ClientError;
use super::lines::MAX_LINE;
use crate::transport::{Goodbye, Wire, WireError, WsWire};

/// The path of the endpoint.
pub const ENDPOINT: &str = "/mcp";
/// The subprotocol.
const PROTOCOL: &str = "mcp";
/// Bytes that may wait for a server that does not read.
const MOST_WAITING: usize = 64 * 1024;
/// What a line that is not UTF-8 is answered with: no text message can carry it.
const NOT_UTF8: &[u8] =
    b"{\"jsonrpc\":\"2.0\",\"error\":{\"code\":-32700,\"message\":\"the message is not UTF-8\"}}\n";

type Inner = WsWire<TokioIo<Upgraded>>;

/// The lines of a WebSocket. Says goodbye when it is dropped.
#[derive(Debug)]
pub struct WsLines {
    wire: Option<Inner>,
    /// Lines for the reader, the current one first.
    inbound: VecDeque<Bytes>,
    /// The beginning of a line that is not whole.
    outbound: Vec<u8>,
    farewells: Farewells,
}

/// The handshake (RFC 6455, section 4.1) over a fresh connection.
///
/// # Errors
/// The connection broke, or the server does not agree.
pub async fn open<S>(stream: S, peer: &str, farewells: Farewells) -> Result<WsLines, ClientError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken =
        |error: hyper::Error| ClientError::of_io(peer, &super::http::io_error(&error), false);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    // It ends with the upgrade, or with the sender that is dropped below.
    tokio::spawn(connection.with_upgrades());
    let key = key().ok_or_else(|| ClientError::Tls("there is no randomness".to_owned()))?;
    let request = Request::get(ENDPOINT)
        .header(HOST, peer)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, &key)
        .header(SEC_WEBSOCKET_PROTOCOL, PROTOCOL)
        .body(Empty::<Bytes>::new())
        .map_err(|cause| protocol(peer, cause.to_string()))?;
    let response = sender.send_request(request).await.map_err(broken)?;
    agreed(&response, &key).map_err(|cause| protocol(peer, cause))?;
    let upgraded = hyper::upgrade::on(response).await.map_err(broken)?;
    let wire = WsWire::client(TokioIo::new(upgraded), MAX_LINE);
    Ok(WsLines {
        wire: Some(wire),
        inbound: VecDeque::new(),
        outbound: Vec::new(),
        farewells,
    })
}

fn key() -> Option<String> {
    let mut random = [0; 16];
    SystemRandom::new().fill(&mut random).ok()?;
    Some(STANDARD.encode(random))
}

fn protocol(peer: &str, cause: String) -> ClientError {
    ClientError::Protocol {
        peer: peer.to_owned(),
        cause,
    }
}

fn agreed<B>(response: &Response<B>, key: &str) -> Result<(), String> {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(format!(
            "it answers the WebSocket handshake with `{}`",
            response.status()
        ));
    }
    let headers = response.headers();
    let says = |name: &HeaderName, value: &str| {
        one(headers, name).is_some_and(|said| said.eq_ignore_ascii_case(value))
    };
    let upgrades = says(&UPGRADE, "websocket") && says(&CONNECTION, "upgrade");
    // The accept value is base64: its case counts.
    let accepts = one(headers, &SEC_WEBSOCKET_ACCEPT) == Some(&derive_accept_key(key.as_bytes()));
    if !upgrades || !accepts {
        return Err("its answer to the WebSocket handshake is not one".to_owned());
    }
    if one(headers, &SEC_WEBSOCKET_PROTOCOL) != Some(PROTOCOL) {
        return Err("it does not agree on the WebSocket subprotocol `mcp`".to_owned());
    }
    if headers.contains_key(SEC_WEBSOCKET_EXTENSIONS) {
        return Err("it uses a WebSocket extension that was not offered".to_owned());
    }
    Ok(())
}

/// The value of a header that is there exactly once.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

impl WsLines {
    fn wire(&mut self) -> io::Result<&mut Inner> {
        self.wire
            .as_mut()
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Takes over one line without its end.
    fn send(&mut self) -> io::Result<()> {
        let line = std::mem::take(&mut self.outbound);
        let text = line
            .strip_prefix(b"\xef\xbb\xbf")
            .unwrap_or(&line)
            .trim_ascii();
        if text.is_empty() {
            return Ok(());
        }
        if std::str::from_utf8(text).is_err() {
            self.inbound.push_back(Bytes::from_static(NOT_UTF8));
            return Ok(());
        }
        self.wire()?.put(|out| out.extend_from_slice(text));
        Ok(())
    }

    /// Waits for a line. False at the end.
    fn poll_inbound(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            if !self.inbound.is_empty() {
                return Poll::Ready(Ok(true));
            }
            let wire = self.wire()?;
            match wire.next() {
                Ok(Some(message)) => self.inbound.extend([message, Bytes::from_static(b"\n")]),
                Ok(None) => {
                    ready!(wire.poll_fill(cx)).map_err(sort)?;
                }
                Err(WireError::Closed) => return Poll::Ready(Ok(false)),
                Err(error) => return Poll::Ready(Err(sort(error))),
            }
        }
    }
}

fn sort(error: WireError) -> io::Error {
    match error {
        WireError::Io(error) => error,
        WireError::Closed => io::ErrorKind::UnexpectedEof.into(),
        WireError::Dead => io::Error::new(io::ErrorKind::TimedOut, error),
        WireError::TooLong { .. } | WireError::Violation(_) => {
            io::Error::new(io::ErrorKind::InvalidData, error)
        }
    }
}

impl AsyncRead for WsLines {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !ready!(self.poll_inbound(cx))? {
            return Poll::Ready(Ok(()));
        }
        while let Some(line) = self.inbound.front_mut() {
            let count = line.len().min(buffer.remaining());
            buffer.put_slice(&line[..count]);
            line.advance(count);
            if !line.is_empty() {
                break;
            }
            self.inbound.pop_front();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for WsLines {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.wire()?.waiting() > MOST_WAITING {
            ready!(self.wire()?.poll_flush(cx)).map_err(sort)?;
        }
        let end = memchr::memchr(b'\n', bytes);
        let taken = end.unwrap_or(bytes.len());
        self.outbound.extend_from_slice(&bytes[..taken]);
        if end.is_some() {
            self.send()?;
            return Poll::Ready(Ok(taken + 1));
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire()?.poll_flush(cx).map_err(sort)
    }

    /// A WebSocket has no half that could be closed: answers may still be to come. The connection
    /// is closed when this is dropped.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

impl Drop for WsLines {
    fn drop(&mut self) {
        if let Some(mut wire) = self.wire.take() {
            self.farewells
                .say(async move { wire.close(Goodbye::Done).await });
        }
    }
}
