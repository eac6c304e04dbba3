//! A stream of lines to the server, whatever carries them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::http::HttpLines;
use super::websocket::WsLines;

/// The three ways in, as one stream.
#[derive(Debug)]
pub enum Carrier {
    /// TLS itself.
    Raw(Box<TlsStream<TcpStream>>),
    /// A WebSocket's messages.
    WebSocket(Box<WsLines>),
    /// Requests and event streams.
    Http(HttpLines),
}

macro_rules! each {
    ($carrier:expr, $stream:ident => $what:expr) => {
        match $carrier.get_mut() {
            Carrier::Raw(stream) => {
                let $stream = Pin::new(&mut **stream);
                $what
            }
            Carrier::WebSocket(stream) => {
                let $stream = Pin::new(&mut **stream);
                $what
            }
            Carrier::Http(stream) => {
                let $stream = Pin::new(stream);
                $what
            }
        }
    };
}

impl AsyncRead for Carrier {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_read(cx, buffer))
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => stream.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_shutdown(cx))
    }
}
