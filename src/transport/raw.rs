//! The raw stream: one message a line over any byte stream, TLS in practice.
//!
//! Memory is held only while there is something in it: an idle connection has no buffers of its
//! own. A first read goes through a buffer that all connections of a thread share, because nobody
//! knows before it whether there is anything to read.

use std::future::poll_fn;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::framing::{LineTooLong, Lines};

use super::pipe::{Outlet, SHARED, keep, poll_shared};
use super::wire::{Goodbye, Wire, WireError};

/// Bytes that are made room for behind the beginning of a message: of one that goes on in the next
/// read, and of one that has filled a read already and may be much larger.
const MORE: usize = 16 * 1024;
const MUCH_MORE: usize = 64 * 1024;

/// A stream of lines.
#[derive(Debug)]
pub struct RawWire<S> {
    stream: S,
    lines: Lines,
    input: BytesMut,
    output: Outlet,
}

impl<S> RawWire<S> {
    /// `max_message`: bytes of one line.
    pub fn new(stream: S, max_message: usize) -> Self {
        let (input, output) = (BytesMut::new(), Outlet::default());
        Self {
            stream,
            lines: Lines::new(max_message),
            input,
            output,
        }
    }

    /// Puts what was read of the stream already before what is still to come.
    #[must_use]
    pub fn begun_with(mut self, input: BytesMut) -> Self {
        self.input = input;
        self
    }
}

impl From<LineTooLong> for WireError {
    fn from(error: LineTooLong) -> Self {
        Self::TooLong { max: error.max }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Wire for RawWire<S> {
    const NAME: &'static str = "raw";

    fn next(&mut self) -> Result<Option<Bytes>, WireError> {
        Ok(self.lines.next(&mut self.input)?)
    }

    async fn fill(&mut self) -> Result<bool, WireError> {
        let count = if self.input.is_empty() {
            // Whatever memory it still holds belongs to lines that were taken out of it.
            self.input = BytesMut::new();
            let Self { stream, input, .. } = self;
            poll_fn(|cx| {
                poll_shared(stream, cx, |bytes| {
                    *input = keep(bytes);
                    bytes.len()
                })
            })
            .await?
        } else {
            if self.input.capacity() - self.input.len() < MORE / 2 {
                let long = self.input.len() >= SHARED;
                self.input.reserve(if long { MUCH_MORE } else { MORE });
            }
            self.stream.read_buf(&mut self.input).await?
        };
        Ok(count > 0)
    }

    fn last(&mut self) -> Result<Option<Bytes>, WireError> {
        Ok(self.lines.last(&mut self.input)?)
    }

    fn put(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let output = self.output.bytes();
        write(output);
        output.push(b'\n');
    }

    fn waiting(&self) -> usize {
        self.output.waiting()
    }

    async fn flush(&mut self) -> Result<(), WireError> {
        Ok(poll_fn(|cx| self.output.poll_flush(&mut self.stream, cx)).await?)
    }

    async fn close(&mut self, _: Goodbye) {
        // The peer may be gone already: that it cannot be told any more is no error.
        let _ = self.stream.shutdown().await;
    }

    fn rest(&mut self) {
        self.output.rest();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_come_whole_and_answers_go_out_as_lines() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut wire = RawWire::new(near, 1000);
        let peer = tokio::spawn(async move {
            for byte in b"{\"a\":1}\r\n[2]\n3" {
                far.write_all(&[*byte]).await.unwrap();
            }
            far.shutdown().await.unwrap();
            let mut text = String::new();
            far.read_to_string(&mut text).await.unwrap();
            text
        });
        let mut messages = Vec::new();
        while wire.fill().await.unwrap() {
            while let Some(message) = wire.next().unwrap() {
                messages.push(message);
            }
        }
        messages.extend(wire.last().unwrap());
        assert_eq!(messages, [&b"{\"a\":1}"[..], b"[2]", b"3"]);
        wire.put(|out| out.extend_from_slice(b"yes"));
        assert_eq!(wire.waiting(), 4);
        wire.flush().await.unwrap();
        wire.rest();
        wire.close(Goodbye::Done).await;
        drop(wire);
        assert_eq!(peer.await.unwrap(), "yes\n");
    }

    #[tokio::test]
    async fn a_dropped_flush_goes_on_where_it_was() {
        let (near, mut far) = tokio::io::duplex(4);
        let mut wire = RawWire::new(near, 1000);
        wire.put(|out| out.extend_from_slice(b"0123456789"));
        let mut pending = Box::pin(wire.flush());
        assert!(futures_util::poll!(pending.as_mut()).is_pending());
        drop(pending);
        let reader = tokio::spawn(async move {
            let mut got = vec![0; 11];
            far.read_exact(&mut got).await.unwrap();
            got
        });
        wire.flush().await.unwrap();
        assert_eq!(reader.await.unwrap(), b"0123456789\n");
    }
}
