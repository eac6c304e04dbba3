//! One stream of events of a session of an older revision: what was written to it, as far as it is
//! kept, so that a client that lost its connection can go on where it was. One reader at a time; a
//! later one takes over.
//!
//! An event's id is `<stream>-<number>`; the numbers of a stream begin at 0, which is the event that
//! only gives the id.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::task::AtomicWaker;

/// One stream.
#[derive(Debug)]
pub struct Events {
    /// Its number in the session; 0 is the stream that belongs to no request.
    pub number: u64,
    limit: usize,
    inner: Mutex<Inner>,
    reader: AtomicWaker,
}

#[derive(Debug)]
struct Inner {
    kept: VecDeque<(u64, Bytes)>,
    bytes: usize,
    /// The number of the next message.
    next: u64,
    /// The number of the next message that the reader gets.
    read: u64,
    /// Readers so far; only the last one reads.
    readers: u64,
    /// Nothing more will be written.
    done: bool,
    /// The present reader is to go and come back.
    released: bool,
}

/// The right to read, until the next reader comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reader(u64);

/// What a reader gets.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// A message with its number.
    Message(u64, Bytes),
    /// No more for this reader.
    End,
}

impl Events {
    /// `limit`: bytes that are kept besides what the reader has not got yet.
    #[must_use]
    pub fn new(number: u64, limit: usize) -> Self {
        let inner = Inner {
            kept: VecDeque::new(),
            bytes: 0,
            next: 1,
            read: 1,
            readers: 0,
            done: false,
            released: false,
        };
        Self {
            number,
            limit,
            inner: Mutex::new(inner),
            reader: AtomicWaker::new(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a message. What was read long ago goes first; a message that is only a hint is
    /// dropped where there is no room, any other stays.
    pub fn push(&self, message: Bytes, hint: bool) {
        let mut inner = self.inner();
        inner.bytes += message.len();
        while inner.bytes > self.limit
            && let Some((number, _)) = inner.kept.front()
            && *number < inner.read
            && let Some((_, old)) = inner.kept.pop_front()
        {
            inner.bytes -= old.len();
        }
        if hint && inner.bytes > self.limit {
            inner.bytes -= message.len();
            return;
        }
        let number = inner.next;
        inner.next += 1;
        inner.kept.push_back((number, message));
        drop(inner);
        self.reader.wake();
    }

    /// Nothing more comes.
    pub fn finish(&self) {
        self.inner().done = true;
        self.reader.wake();
    }

    /// Whether nothing more comes.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.inner().done
    }

    /// Sends the present reader away; it can come back for the rest.
    pub fn release(&self) {
        self.inner().released = true;
        self.reader.wake();
    }

    /// Bytes that are kept.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.inner().bytes
    }

    /// A new reader, from behind the event of that number, or from what nobody got yet. `None`: what
    /// it asks for is not kept any more, or never was.
    pub fn read_from(&self, after: Option<u64>) -> Option<Reader> {
        let mut inner = self.inner();
        if let Some(after) = after {
            let oldest = inner.kept.front().map_or(inner.next, |(number, _)| *number);
            if after.saturating_add(1) < oldest || after >= inner.next {
                return None;
            }
            inner.read = after + 1;
            inner.released = false;
        }
        inner.readers += 1;
        let reader = Reader(inner.readers);
        drop(inner);
        self.reader.wake();
        Some(reader)
    }

    /// The next message for this reader.
    pub fn poll(&self, reader: Reader, cx: &mut Context<'_>) -> Poll<Next> {
        self.reader.register(cx.waker());
        let mut inner = self.inner();
        if reader.0 != inner.readers {
            return Poll::Ready(Next::End);
        }
        let read = inner.read;
        if let Some((number, message)) = inner.kept.iter().find(|(number, _)| *number >= read) {
            let (number, message) = (*number, message.clone());
            inner.read = number + 1;
            return Poll::Ready(Next::Message(number, message));
        }
        if inner.done || inner.released {
            Poll::Ready(Next::End)
        } else {
            Poll::Pending
        }
    }

    /// The id of an event.
    #[must_use]
    pub fn id(&self, number: u64) -> String {
        format!("{}-{number}", self.number)
    }
}

/// Stream and number of an event's id.
#[must_use]
pub fn split_id(id: &str) -> Option<(u64, u64)> {
    let (stream, number) = id.split_once('-')?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(stream) || !digits(number) {
        return None;
    }
    Some((stream.parse().ok()?, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn next(events: &Events, reader: Reader) -> Option<Next> {
        match events.poll(reader, &mut Context::from_waker(Waker::noop())) {
            Poll::Ready(next) => Some(next),
            Poll::Pending => None,
        }
    }

    fn message(number: u64, text: &'static str) -> Option<Next> {
        Some(Next::Message(number, Bytes::from_static(text.as_bytes())))
    }

    #[test]
    fn a_reader_that_comes_back_gets_what_it_missed() {
        let events = Events::new(3, 100);
        let first = events.read_from(None).unwrap();
        events.push(Bytes::from_static(b"a"), true);
        events.push(Bytes::from_static(b"b"), true);
        assert_eq!(next(&events, first), message(1, "a"));
        assert_eq!(next(&events, first), message(2, "b"));
        assert_eq!(next(&events, first), None);
        let second = events.read_from(Some(1)).unwrap();
        assert_eq!(next(&events, first), Some(Next::End));
        assert_eq!(next(&events, second), message(2, "b"));
        events.push(Bytes::from_static(b"c"), false);
        events.finish();
        assert_eq!(next(&events, second), message(3, "c"));
        assert_eq!(next(&events, second), Some(Next::End));
        assert!(events.read_from(Some(9)).is_none());
        let again = events.read_from(Some(0)).unwrap();
        assert_eq!(next(&events, again), message(1, "a"));
    }

    #[test]
    fn a_released_reader_goes_and_comes_back() {
        let events = Events::new(1, 100);
        let first = events.read_from(None).unwrap();
        events.release();
        assert_eq!(next(&events, first), Some(Next::End));
        events.push(Bytes::from_static(b"a"), false);
        events.finish();
        let second = events.read_from(Some(0)).unwrap();
        assert_eq!(next(&events, second), message(1, "a"));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let events = Events::new(1, 10);
        let reader = events.read_from(None).unwrap();
        for _ in 0..100 {
            events.push(Bytes::from_static(b"hint!"), true);
        }
        assert_eq!(events.bytes(), 10);
        events.push(Bytes::from_static(b"the answer"), false);
        assert_eq!(events.bytes(), 20);
        assert_eq!(next(&events, reader), message(1, "hint!"));
        assert_eq!(next(&events, reader), message(2, "hint!"));
        assert_eq!(next(&events, reader), message(3, "the answer"));
        events.push(Bytes::from_static(b"more"), false);
        assert_eq!(events.bytes(), 4);
        assert!(events.read_from(Some(1)).is_none());
    }

    #[test]
    fn ids_are_two_numbers() {
        assert_eq!(split_id("12-0"), Some((12, 0)));
        for bad in [
            "",
            "1",
            "a-1",
            "1-",
            "+1-2",
            "1-2-3",
            "99999999999999999999-1",
        ] {
            assert_eq!(split_id(bad), None, "{bad}");
        }
    }
}
