//! Both ends of a byte stream as the wires use them: a read that needs no memory of its own, and
//! bytes on their way out that survive a dropped write.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of the shared read buffer: one TLS record.
pub const SHARED: usize = 16 * 1024;
/// Bytes of the largest spare output buffer that a thread keeps.
const SPARE: usize = 256 * 1024;
/// What came in one read and is at most this long shares memory with what comes next on its thread.
const SMALL: usize = 1024;
/// Bytes that such reads share: what one message that is held for long holds at the most.
const TOGETHER: usize = 4096;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; SHARED]);
    static OUTPUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static INPUT: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// Reads once through a buffer that all connections of a thread share, because nobody knows before
/// a read whether there is anything to read. `take` is given what came; nothing at the end.
pub fn poll_shared<S: AsyncRead + Unpin, T>(
    stream: &mut S,
    cx: &mut Context<'_>,
    take: impl FnOnce(&[u8]) -> T,
) -> Poll<io::Result<T>> {
    BUFFER.with_borrow_mut(|shared| {
        let mut buffer = ReadBuf::new(shared);
        ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(take(buffer.filled())))
    })
}

/// A copy of what was read. Short ones stand behind one another in memory that is used again once
/// all of them are gone, so that a short message costs no allocation.
pub fn keep(bytes: &[u8]) -> BytesMut {
    if bytes.len() > SMALL {
        return BytesMut::from(bytes);
    }
    INPUT.with_borrow_mut(|input| {
        if input.capacity() < bytes.len() {
            input.reserve(TOGETHER);
        }
        input.extend_from_slice(bytes);
        input.split()
    })
}

/// Bytes on their way out. Between two answers the memory goes back to the thread, which lends it to
/// whichever connection answers next.
#[derive(Debug, Default)]
pub struct Outlet {
    bytes: Vec<u8>,
    written: usize,
}

impl Outlet {
    /// Where to append.
    pub fn bytes(&mut self) -> &mut Vec<u8> {
        if self.bytes.capacity() == 0 {
            self.bytes = OUTPUT.take();
        }
        &mut self.bytes
    }

    /// Bytes that wait.
    pub const fn waiting(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Writes all that waits; what is written already stays written when this is not ready.
    pub fn poll_flush<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if self.bytes.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while self.written < self.bytes.len() {
            let left = &self.bytes[self.written..];
            let count = ready!(Pin::new(&mut *stream).poll_write(cx, left))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
        }
        ready!(Pin::new(stream).poll_flush(cx))?;
        self.bytes.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    /// Gives memory back while nothing waits.
    pub fn rest(&mut self) {
        if !self.bytes.is_empty() || self.bytes.capacity() == 0 {
            return;
        }
        let mine = std::mem::take(&mut self.bytes);
        OUTPUT.with_borrow_mut(|spare| {
            if mine.capacity() > spare.capacity() && mine.capacity() <= SPARE {
                *spare = mine;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_reads_share_memory_and_long_ones_do_not() {
        let (one, two) = (keep(b"one"), keep(b"two"));
        assert_eq!((&one[..], &two[..]), (&b"one"[..], &b"two"[..]));
        assert_eq!(two.as_ptr(), one.as_ptr().wrapping_add(3));
        let long = keep(&[7; SMALL + 1]);
        assert_eq!(long[..], [7; SMALL + 1]);
        assert!(long.capacity() < TOGETHER);
        // What is still held is not written over, however often the memory comes round.
        for round in 0..20 {
            let next = [round; SMALL];
            assert_eq!(keep(&next)[..], next);
        }
        assert_eq!((&one[..], &two[..]), (&b"one"[..], &b"two"[..]));
    }

    #[test]
    fn the_output_of_one_is_lent_to_the_next() {
        let mut one = Outlet::default();
        one.bytes().extend_from_slice(&[0; 5000]);
        one.rest();
        assert_eq!(one.waiting(), 5000, "what waits stays");
        one.bytes().clear();
        one.rest();
        let mut two = Outlet::default();
        assert!(two.bytes().is_empty() && two.bytes().capacity() >= 5000);
        assert_eq!(one.bytes().capacity(), 0, "nobody else has it");
        let mut large = Outlet::default();
        large.bytes().reserve(SPARE + 1);
        large.rest();
        assert!(Outlet::default().bytes().capacity() <= SPARE);
    }
}
