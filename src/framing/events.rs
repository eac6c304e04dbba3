//! Reads `text/event-stream` (WHATWG HTML, server-sent events): bytes in, events out, bounded.
//!
//! Fields other than `data`, `id`, `event` and `retry` are ignored, and so are comments.

use std::time::Duration;

use bytes::{Buf, BytesMut};

/// One event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// The `data` lines, joined by line feeds; none: the event carries no data.
    pub data: Option<Vec<u8>>,
    /// `id`; where to go on after a break.
    pub id: Option<String>,
    /// `event`; none: `message`.
    pub kind: Option<String>,
    /// `retry`: how long to wait before going on after a break.
    pub retry: Option<Duration>,
}

impl Event {
    const fn is_empty(&self) -> bool {
        self.data.is_none() && self.id.is_none() && self.retry.is_none()
    }
}

/// An event is longer than the limit. The stream cannot be followed any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event is longer than {max} bytes")]
pub struct EventTooLong {
    /// The limit.
    pub max: usize,
}

/// Cuts a growing buffer into events.
#[derive(Debug, Clone)]
pub struct Events {
    max: usize,
    /// Bytes of the buffer in which no line end was found.
    searched: usize,
    started: bool,
    /// The last line ended in a carriage return: a line feed right after it belongs to it.
    after_return: bool,
    event: Event,
    gathered: usize,
}

impl Events {
    /// `max`: bytes of one event.
    #[must_use]
    pub fn new(max: usize) -> Self {
        let event = Event::default();
        Self {
            max,
            searched: 0,
            started: false,
            after_return: false,
            event,
            gathered: 0,
        }
    }

    /// Takes the next whole event out of `buffer`, if there is one.
    ///
    /// # Errors
    /// [`EventTooLong`].
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Event>, EventTooLong> {
        loop {
            if self.after_return && buffer.first() == Some(&b'\n') {
                buffer.advance(1);
            }
            if !buffer.is_empty() {
                self.after_return = false;
            }
            let Some(found) = memchr::memchr2(b'\n', b'\r', &buffer[self.searched..]) else {
                self.searched = buffer.len();
                self.fits(buffer.len())?;
                return Ok(None);
            };
            let end = self.searched + found;
            self.searched = 0;
            let line = buffer.split_to(end + 1);
            self.after_return = line[end] == b'\r';
            self.fits(end)?;
            let line = self.without_mark(&line[..end]);
            if !line.is_empty() {
                self.field(line);
                continue;
            }
            self.gathered = 0;
            let event = std::mem::take(&mut self.event);
            if !event.is_empty() {
                return Ok(Some(event));
            }
        }
    }

    const fn fits(&self, more: usize) -> Result<(), EventTooLong> {
        if self.gathered + more > self.max {
            Err(EventTooLong { max: self.max })
        } else {
            Ok(())
        }
    }

    fn without_mark<'a>(&mut self, line: &'a [u8]) -> &'a [u8] {
        if std::mem::replace(&mut self.started, true) {
            return line;
        }
        line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line)
    }

    fn field(&mut self, line: &[u8]) {
        let (name, value) = match memchr::memchr(b':', line) {
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (line, &b""[..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"data" => {
                let data = match &mut self.event.data {
                    Some(data) => {
                        data.push(b'\n');
                        data
                    }
                    none => none.insert(Vec::new()),
                };
                data.extend_from_slice(value);
                self.gathered += line.len();
            }
            b"id" if !value.contains(&0) => self.event.id = text(value),
            b"event" => self.event.kind = text(value),
            b"retry" => {
                let millis = std::str::from_utf8(value)
                    .ok()
                    .and_then(|text| text.parse().ok());
                self.event.retry = millis.map(Duration::from_millis).or(self.event.retry);
            }
            _ => (),
        }
    }
}

fn text(value: &[u8]) -> Option<String> {
    std::str::from_utf8(value).ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str, step: usize) -> Vec<Event> {
        let (mut events, mut buffer, mut out) = (Events::new(100), BytesMut::new(), Vec::new());
        for piece in text.as_bytes().chunks(step) {
            buffer.extend_from_slice(piece);
            while let Some(event) = events.next(&mut buffer).unwrap() {
                out.push(event);
            }
        }
        out
    }

    #[test]
    fn reads_events_however_they_are_cut_and_ended() {
        let data = |text: &str| Event {
            data: Some(text.into()),
            ..Event::default()
        };
        for end in ["\n", "\r\n", "\r"] {
            let text = "\u{feff}: hello\n\ndata: {\"a\":\ndata:1}\n\nid: 7\nretry: 250\ndata\n\nevent: x\nunknown: y\ndata:  z\n\ndata: cut"
                .replace('\n', end);
            for step in [1, 2, 3, 1000] {
                let got = all(&text, step);
                assert_eq!(got.len(), 3, "{end:?} {step}");
                assert_eq!(got[0], data("{\"a\":\n1}"));
                assert_eq!(
                    (got[1].id.as_deref(), got[1].data.as_deref()),
                    (Some("7"), Some(&b""[..]))
                );
                assert_eq!(got[1].retry, Some(Duration::from_millis(250)));
                assert_eq!(
                    (got[2].kind.as_deref(), got[2].data.as_deref()),
                    (Some("x"), Some(&b" z"[..]))
                );
            }
        }
    }

    #[test]
    fn an_event_over_the_limit_is_an_error_before_it_is_whole() {
        let fits = format!("data: {}\n\n", "x".repeat(90));
        assert_eq!(all(&fits, 1000).len(), 1);
        let lines = "data: xxxxxxxxxxxxxx\n".repeat(6);
        for long in [format!("data: {}", "x".repeat(100)), lines] {
            let (mut events, mut buffer) = (Events::new(100), BytesMut::from(long.as_bytes()));
            let mut outcome = events.next(&mut buffer);
            while matches!(outcome, Ok(Some(_))) {
                outcome = events.next(&mut buffer);
            }
            assert_eq!(outcome, Err(EventTooLong { max: 100 }), "{long}");
        }
    }
}
