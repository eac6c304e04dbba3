//! Lines out of a byte stream, bounded, each with its terminator, byte for byte.
//!
//! Looks at no content: the bridge must pass on exactly what came.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest line that is taken, in bytes, its terminator included: 16 MiB, as SDKs do. A larger
/// message is refused, because a peer could fill the memory with one.
pub const MAX_LINE: usize = 16 * 1024 * 1024;

/// How much is asked for at once, in bytes.
const CHUNK: usize = 64 * 1024;

/// No further line.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The stream failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The line is dropped up to its end; the next one can be read.
    #[error("a line is longer than {0} bytes")]
    TooLong(usize),
}

/// The bytes between the stream and the next line.
#[derive(Debug)]
pub struct Lines {
    buffer: BytesMut,
    scanned: usize,
    max: usize,
    dropping: bool,
    ended: bool,
}

impl Lines {
    /// `max`: the longest line in bytes, terminator included.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            scanned: 0,
            max,
            dropping: false,
            ended: false,
        }
    }

    /// The next line with its terminator; a last one without is given as it is; `None` at the end.
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    /// The stream failed, or the line is too long.
    pub async fn next<R: AsyncRead + Unpin>(
        &mut self,
        reader: &mut R,
    ) -> Result<Option<Bytes>, LineError> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.buffer[self.scanned..]) {
                let line = self.buffer.split_to(self.scanned + end + 1).freeze();
                self.scanned = 0;
                if std::mem::take(&mut self.dropping) {
                    continue;
                }
                return self.fits(line);
            }
            self.scanned = self.buffer.len();
            if self.dropping {
                self.buffer.clear();
                self.scanned = 0;
            } else if self.buffer.len() > self.max {
                self.dropping = true;
                return Err(LineError::TooLong(self.max));
            }
            if self.ended {
                return self.last();
            }
            self.buffer.reserve(CHUNK);
            self.ended = reader.read_buf(&mut self.buffer).await? == 0;
        }
    }

    fn fits(&self, line: Bytes) -> Result<Option<Bytes>, LineError> {
        if line.len() > self.max {
            Err(LineError::TooLong(self.max))
        } else {
            Ok(Some(line))
        }
    }

    fn last(&mut self) -> Result<Option<Bytes>, LineError> {
        let rest = self.buffer.split().freeze();
        self.scanned = 0;
        if rest.is_empty() {
            Ok(None)
        } else {
            self.fits(rest)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(input: &[u8], max: usize) -> Vec<Result<Vec<u8>, ()>> {
        let (mut lines, mut reader, mut out) = (Lines::new(max), input, Vec::new());
        loop {
            match lines.next(&mut reader).await {
                Ok(None) => return out,
                Ok(Some(line)) => out.push(Ok(line.to_vec())),
                Err(LineError::TooLong(_)) => out.push(Err(())),
                Err(LineError::Io(cause)) => panic!("{cause}"),
            }
        }
    }

    #[tokio::test]
    async fn passes_every_byte_on() {
        let input = b"{}\r\n\n \xff\xfe\nlast";
        let lines = all(input, 64).await;
        assert_eq!(lines.len(), 4);
        let joined: Vec<u8> = lines.into_iter().flat_map(Result::unwrap).collect();
        assert_eq!(joined, input);
    }

    #[tokio::test]
    async fn drops_a_line_over_the_limit_and_only_that() {
        assert_eq!(
            all(b"1234567\nab\n", 8).await,
            [Ok(b"1234567\n".to_vec()), Ok(b"ab\n".to_vec())]
        );
        assert_eq!(
            all(b"12345678\nab\n", 8).await,
            [Err(()), Ok(b"ab\n".to_vec())]
        );
        let mut long = vec![b'x'; 3 * CHUNK];
        long.extend_from_slice(b"\nab\n");
        assert_eq!(all(&long, 100).await, [Err(()), Ok(b"ab\n".to_vec())]);
        assert_eq!(all(&vec![b'x'; 3 * CHUNK], 100).await, [Err(())]);
    }

    #[tokio::test]
    async fn a_dropped_read_loses_nothing() {
        let (mut near, mut far) = tokio::io::duplex(64);
        let mut lines = Lines::new(64);
        tokio::io::AsyncWriteExt::write_all(&mut far, b"{\"a\":")
            .await
            .unwrap();
        {
            let mut reading = Box::pin(lines.next(&mut near));
            // One poll takes what is there and waits; then the future goes.
            assert!(futures_util::poll!(reading.as_mut()).is_pending());
        }
        tokio::io::AsyncWriteExt::write_all(&mut far, b"1}\n")
            .await
            .unwrap();
        assert_eq!(
            lines.next(&mut near).await.unwrap().unwrap(),
            &b"{\"a\":1}\n"[..]
        );
    }
}
