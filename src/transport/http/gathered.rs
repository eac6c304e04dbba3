//! A stream that holds what is written until it is flushed, up to one TLS record. HTTP/2 writes
//! frame by frame; without this every answer would be a record and a system call of its own. Who
//! does not begin with the preface of HTTP/2 is told so on it, and what h2 refuses by itself is completed
//! (`bare.rs`).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::pipe::{Outlet, poll_shared};
use super::bare::Frames;
use super::preface::{NOT_HTTP2, Preface};

/// Bytes that go out together.
const TOGETHER: usize = 16 * 1024;

/// The stream. While nothing waits it holds no memory.
#[derive(Debug)]
pub struct Gathered<S> {
    stream: S,
    waiting: Outlet,
    preface: Preface,
    frames: Frames,
}

impl<S> Gathered<S> {
    /// Over this stream.
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            waiting: Outlet::default(),
            preface: Preface::default(),
            frames: Frames::default(),
        }
    }
}

impl<S: AsyncWrite + Unpin> Gathered<S> {
    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.waiting.poll_flush(&mut self.stream, cx))?;
        self.waiting.rest();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Gathered<S> {
    /// Tells the peer that it does not speak HTTP/2, and reads over what it still says: h2 would
    /// close without a word.
    fn poll_goodbye(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_waiting(cx))?;
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        while ready!(poll_shared(&mut self.stream, cx, <[u8]>::len))? > 0 {}
        Poll::Ready(Err(io::ErrorKind::InvalidData.into()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.preface.is_wrong() {
            return self.poll_goodbye(cx);
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if self.preface.is_over() || self.preface.goes_on(&buffer.filled()[before..]) {
            return Poll::Ready(Ok(()));
        }
        buffer.set_filled(before);
        self.waiting.bytes().extend_from_slice(&NOT_HTTP2);
        self.poll_goodbye(cx)
    }
}

// Not vectored: for such a stream h2 itself puts short bodies behind their heads.
impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.waiting.waiting() + bytes.len() > TOGETHER {
            ready!(self.poll_waiting(cx))?;
        }
        if bytes.len() > TOGETHER {
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
            self.frames.pass(&bytes[..count]);
            return Poll::Ready(Ok(count));
        }
        let Self {
            waiting, frames, ..
        } = &mut *self;
        frames.put(waiting.bytes(), bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_waiting(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_waiting(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn bytes_wait_for_the_flush_and_stay_in_order() {
        let (near, mut far) = tokio::io::duplex(TOGETHER);
        let mut stream = Gathered::new(near);
        stream.write_all(b"one ").await.unwrap();
        stream.write_all(b"two").await.unwrap();
        let mut got = [0; 16];
        let reading = tokio::time::timeout(std::time::Duration::ZERO, far.read(&mut got));
        assert!(reading.await.is_err());
        stream.flush().await.unwrap();
        assert_eq!(far.read(&mut got).await.unwrap(), 7);
        assert_eq!(&got[..7], b"one two");
        assert_eq!(stream.waiting.waiting(), 0);
        // What is too much to wait goes out, behind what waited.
        let long = vec![b'x'; TOGETHER + 1];
        let writer = tokio::spawn(async move {
            stream.write_all(b"first").await.unwrap();
            stream.write_all(&long).await.unwrap();
            stream.shutdown().await.unwrap();
        });
        let mut all = Vec::new();
        far.read_to_end(&mut all).await.unwrap();
        writer.await.unwrap();
        assert_eq!((all.len(), &all[..6]), (TOGETHER + 6, &b"firstx"[..]));
    }
}
