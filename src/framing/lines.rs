//! One JSON-RPC message a line: the stdio framing of the specification, over any byte stream.
//!
//! `\r\n`, empty lines and a byte-order mark at the start are accepted. A line over the limit is an
//! error at the latest when limit + 1 bytes of it are buffered, so the buffer stays bounded.

use bytes::{Bytes, BytesMut};

/// Cuts a growing buffer into lines.
#[derive(Debug, Clone)]
pub struct Lines {
    max: usize,
    /// Bytes of the buffer in which no line feed was found.
    searched: usize,
    started: bool,
}

/// A line is longer than the limit. The stream cannot be followed any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message is longer than {max} bytes")]
pub struct LineTooLong {
    /// The limit.
    pub max: usize,
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

impl Lines {
    /// `max`: bytes of one line, its end not counted.
    #[must_use]
    pub const fn new(max: usize) -> Self {
        Self {
            max,
            searched: 0,
            started: false,
        }
    }

    /// Takes the next whole line out of `buffer`, if there is one. No copy: the line shares the
    /// buffer's memory.
    ///
    /// # Errors
    /// [`LineTooLong`]; the buffer is left as it is.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, LineTooLong> {
        loop {
            let Some(found) = memchr::memchr(b'\n', &buffer[self.searched..]) else {
                self.searched = buffer.len();
                // One more for the carriage return that may stand before the line feed, and room for
                // a byte-order mark before the first line.
                let mark = if self.started {
                    0
                } else {
                    BYTE_ORDER_MARK.len()
                };
                return if buffer.len() > self.max + 1 + mark {
                    Err(self.too_long())
                } else {
                    Ok(None)
                };
            };
            let end = self.searched + found;
            self.searched = 0;
            let line = self.trimmed(buffer.split_to(end + 1).freeze());
            if line.len() > self.max {
                return Err(self.too_long());
            }
            if !is_blank(&line) {
                return Ok(Some(line));
            }
        }
    }

    /// What is left when the peer has closed its side: a last line without an end.
    ///
    /// # Errors
    /// [`LineTooLong`].
    pub fn last(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, LineTooLong> {
        self.searched = 0;
        let line = self.trimmed(buffer.split().freeze());
        if line.len() > self.max {
            return Err(self.too_long());
        }
        Ok((!is_blank(&line)).then_some(line))
    }

    fn trimmed(&mut self, mut line: Bytes) -> Bytes {
        if !std::mem::replace(&mut self.started, true) && line.starts_with(BYTE_ORDER_MARK) {
            line = line.slice(BYTE_ORDER_MARK.len()..);
        }
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let end = text.len();
        line.truncate(end);
        line
    }

    const fn too_long(&self) -> LineTooLong {
        LineTooLong { max: self.max }
    }
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(|byte| matches!(byte, b' ' | b'\t'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(chunks: &[&[u8]], max: usize) -> Result<Vec<Bytes>, LineTooLong> {
        let mut lines = Lines::new(max);
        let mut buffer = BytesMut::new();
        let mut out = Vec::new();
        for chunk in chunks {
            buffer.extend_from_slice(chunk);
            while let Some(line) = lines.next(&mut buffer)? {
                out.push(line);
            }
        }
        out.extend(lines.last(&mut buffer)?);
        Ok(out)
    }

    #[test]
    fn the_same_lines_however_the_bytes_are_cut() {
        let text = b"\xef\xbb\xbf{\"a\":1}\r\n\n  \r\n[2]\n{\"c\":3}";
        let whole = all(&[text], 100).unwrap();
        assert_eq!(whole, [&b"{\"a\":1}"[..], b"[2]", b"{\"c\":3}"]);
        for size in 1..text.len() {
            let chunks: Vec<&[u8]> = text.chunks(size).collect();
            assert_eq!(all(&chunks, 100).unwrap(), whole, "chunks of {size}");
        }
    }

    #[test]
    fn a_line_at_the_limit_passes_and_one_over_it_does_not() {
        assert_eq!(all(&[b"12345678\r\n"], 8).unwrap().len(), 1);
        assert_eq!(all(&[b"123456789\n"], 8), Err(LineTooLong { max: 8 }));
        let mut lines = Lines::new(8);
        let mut endless = BytesMut::from(&b"1234567890"[..]);
        assert_eq!(lines.next(&mut endless), Err(LineTooLong { max: 8 }));
    }
}
