//! The floors of the other two ways in: what a WebSocket and HTTP cost above mutual TLS when every
//! message comes back as it was.
//!
//! The WebSocket is tokio-tungstenite with a read buffer of 4 KiB: the 128 KiB that it would have
//! otherwise are cleared before each read, which makes a floor that is easier to meet; a second one, as it
//! comes, is beside it, and the target is judged by both. HTTP is hyper as it comes. With an answer, each
//! message is answered by it instead.

use std::convert::Infallible;
use std::io;

use bytes::Bytes;
use countersign::transport::accept_key;
use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::floor::Speech;

/// What a WebSocket reads at once.
const READ: usize = 4 * 1024;

/// One connection.
pub(crate) async fn serve(
    speech: Speech,
    tcp: TcpStream,
    acceptor: TlsAcceptor,
    answer: Option<Bytes>,
) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let stream = acceptor.accept(tcp).await?;
    let config = WebSocketConfig::default();
    match speech {
        Speech::Websocket => {
            return websocket(stream, config.read_buffer_size(READ), answer).await;
        }
        Speech::WebsocketStock => return websocket(stream, config, answer).await,
        _ => {}
    }
    let echo = service_fn(move |request| echo(request, answer.clone()));
    match speech {
        Speech::Http2 => http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), echo)
            .await
            .map_err(io::Error::other),
        _ => http1::Builder::new()
            .serve_connection(TokioIo::new(stream), echo)
            .await
            .map_err(io::Error::other),
    }
}

async fn echo(
    request: Request<Incoming>,
    answer: Option<Bytes>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = match request.into_body().collect().await {
        Ok(body) => answer.unwrap_or_else(|| body.to_bytes()),
        Err(_) => Bytes::new(),
    };
    Ok(Response::new(Full::new(body)))
}

async fn websocket(
    mut stream: TlsStream<TcpStream>,
    config: WebSocketConfig,
    answer: Option<Bytes>,
) -> io::Result<()> {
    open(&mut stream).await?;
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
    let answer = answer
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned().into())
        .map(Message::Text);
    while let Some(message) = socket.next().await {
        match message.map_err(io::Error::other)? {
            message @ Message::Text(_) => {
                let message = answer.clone().unwrap_or(message);
                socket.send(message).await.map_err(io::Error::other)?;
            }
            _ => break,
        }
    }
    Ok(())
}

/// The opening handshake, read as little as an echo needs.
async fn open(stream: &mut TlsStream<TcpStream>) -> io::Result<()> {
    let mut head = Vec::with_capacity(1024);
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let mut fields = text.lines().filter_map(|line| line.split_once(": "));
    let key = fields.find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"));
    let (_, key) = key.ok_or(io::ErrorKind::InvalidData)?;
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        accept_key(key.trim().as_bytes())
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.flush().await
}
