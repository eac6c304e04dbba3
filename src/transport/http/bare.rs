//! Refusals that h2 writes by itself, where a request's head is longer than it may be: a status and nothing
//! else. They never reach the handler, so the security headers are put into them on their way out, as
//! `unparsed.rs` does on HTTP/1.1.
//!
//! A field that is neither indexed nor looked up (RFC 7541, section 6.2.2) leaves the state of both ends'
//! compression as it is, so some can be added behind those that h2 has encoded.

use std::sync::LazyLock;

use super::answer::security_fields;

/// Bytes of a frame's head (RFC 9113, section 4.1).
const HEAD: usize = 9;
const HEADERS: u8 = 1;
/// END_STREAM and END_HEADERS, and neither PADDED nor PRIORITY.
const WHOLE: u8 = 0x5;
/// Bytes of fields that can only be a status: an answer of ours has a date and the security headers, and no
/// trailers.
const BARE: usize = 8;

/// The security headers as fields that are not indexed.
static FIELDS: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut out = Vec::new();
    for (name, value) in security_fields() {
        out.push(0);
        for text in [name, value] {
            // Not Huffman coded; a length below 127 is one byte (RFC 7541, section 5.1).
            debug_assert!(text.len() < 127);
            out.push(u8::try_from(text.len()).unwrap_or_default());
            out.extend_from_slice(text);
        }
    }
    out
});

/// Follows the frames that go out.
#[derive(Debug, Default)]
pub struct Frames {
    /// Bytes of the frame that is going out which are still to come.
    left: usize,
    /// A frame's head came in two pieces, which h2 does not write: nothing is added from then on.
    lost: bool,
}

impl Frames {
    /// Appends these bytes, which go out next, completed.
    pub fn put(&mut self, out: &mut Vec<u8>, bytes: &[u8]) {
        let (mut rest, mut done) = (bytes, 0);
        while let Some(frame) = self.next(&mut rest) {
            if self.left > 0 || !is_bare(frame) {
                continue;
            }
            let end = bytes.len() - rest.len();
            out.extend_from_slice(&bytes[done..end - frame.len()]);
            let fields = frame.len() - HEAD + FIELDS.len();
            out.extend_from_slice(&u32::try_from(fields).unwrap_or_default().to_be_bytes()[1..]);
            out.extend_from_slice(&frame[3..]);
            out.extend_from_slice(&FIELDS);
            done = end;
        }
        out.extend_from_slice(&bytes[done..]);
    }

    /// These bytes went out as they are.
    pub fn pass(&mut self, mut bytes: &[u8]) {
        while self.next(&mut bytes).is_some() {}
    }

    /// Steps over what is left of a frame and over the next one; as much of that as is here.
    fn next<'a>(&mut self, rest: &mut &'a [u8]) -> Option<&'a [u8]> {
        let here = self.left.min(rest.len());
        self.left -= here;
        *rest = &rest[here..];
        if self.lost || rest.is_empty() {
            return None;
        }
        let Some([high, middle, low, ..]) = rest.first_chunk::<HEAD>() else {
            self.lost = true;
            return None;
        };
        let payload = u32::from_be_bytes([0, *high, *middle, *low]);
        let length = HEAD + usize::try_from(payload).ok()?;
        let (frame, after) = rest.split_at(length.min(rest.len()));
        self.left = length - frame.len();
        *rest = after;
        Some(frame)
    }
}

/// Whether a whole frame is an answer of nothing but a status.
fn is_bare(frame: &[u8]) -> bool {
    frame[3..5] == [HEADERS, WHOLE] && frame.len() <= HEAD + BARE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 3], payload].concat()
    }

    #[test]
    fn only_a_bare_status_is_completed_wherever_it_stands() {
        // A literal `:status: 431`, and one that the table has by then.
        let bare = [
            frame(HEADERS, WHOLE, b"\x48\x03431"),
            frame(HEADERS, WHOLE, b"\xbe"),
        ];
        let others = [
            frame(4, 0, b""),
            frame(HEADERS, 4, b"\x88"),
            frame(HEADERS, WHOLE, &[7; 60]),
            frame(0, 1, &frame(HEADERS, WHOLE, b"\xbe")),
            frame(3, 0, &[0; 4]),
        ];
        let mut sent = Vec::new();
        let mut want = Vec::new();
        for (n, other) in others.iter().enumerate() {
            let refusal = &bare[n % 2];
            sent.extend_from_slice(&[&other[..], refusal].concat());
            want.extend_from_slice(other);
            want.extend_from_slice(&frame(
                HEADERS,
                WHOLE,
                &[&refusal[HEAD..], &FIELDS].concat(),
            ));
        }
        let mut out = Vec::new();
        Frames::default().put(&mut out, &sent);
        assert_eq!(out, want);
        // Cut inside what the frame of data carries, as h2 cuts.
        let data = frame(0, 1, &[9; 100]);
        let mut frames = Frames::default();
        let mut out = Vec::new();
        frames.put(&mut out, &data[..40]);
        frames.pass(&data[40..70]);
        frames.put(&mut out, &[&data[70..], &bare[0]].concat());
        assert_eq!(out.len(), data.len() - 30 + bare[0].len() + FIELDS.len());
        assert!(out.ends_with(&FIELDS));
        // Cut inside a head: as it is, from then on.
        let mut frames = Frames::default();
        let mut out = Vec::new();
        frames.put(&mut out, &bare[0][..5]);
        frames.put(&mut out, &[&bare[0][5..], &bare[1]].concat());
        assert_eq!(out, bare.concat());
    }
}
