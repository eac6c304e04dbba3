//! The hash chain: how a record begins, and how it names the one before.
//!
//! Every line begins `{"seq":N,"prev":"H"` where N counts from 1 without a gap and H is the SHA-256
//! of the bytes of the line before, without its line feed, as 64 lower-case hex digits. The very
//! first record has 64 zeros. A chain shows that nothing before its newest record was altered,
//! removed or moved; the newest record itself is vouched for only by the next one, or by its hash
//! kept somewhere else (`audit verify --expect`).

use super::encode;

/// The hash of a line, as hex digits.
pub(super) type Link = [u8; 64];

/// What the very first record names.
pub(super) const FIRST: Link = [b'0'; 64];

const SEQ: &[u8] = b"{\"seq\":";
const PREV: &[u8] = b",\"prev\":\"";

/// The hash of one line without its line feed.
#[must_use]
pub(super) fn link(line: &[u8]) -> Link {
    encode::hex32(ring::digest::digest(&ring::digest::SHA256, line).as_ref())
}

/// The same of the line that is the end of `out`, from `start` on, which gets room behind it for a moment
/// and is as it was afterwards.
///
/// Where the processor has instructions for SHA-256, a fifth of the time for a short line goes into what
/// leads to its hash and from it. So the line is padded where it stands (RFC 6234, section 4.1) and hashed in
/// one go. Elsewhere it is [`link`]: ring has code of its own for processors without them, `sha2` none.
pub(super) fn link_at(out: &mut Vec<u8>, start: usize) -> Link {
    if !hashes_by_instruction() {
        return link(&out[start..]);
    }
    let length = out.len() - start;
    let padded = (length + 9).next_multiple_of(64);
    out.push(0x80);
    out.resize(start + padded - 8, 0);
    out.extend_from_slice(&(8 * length as u64).to_be_bytes());
    let mut state = INITIAL;
    sha2::block_api::compress256(&mut state, out[start..].as_chunks().0);
    out.truncate(start + length);
    let mut hash = [0; 32];
    for (bytes, word) in hash.as_chunks_mut().0.iter_mut().zip(state) {
        *bytes = word.to_be_bytes();
    }
    encode::hex32(&hash)
}

/// RFC 6234, section 6.1.
const INITIAL: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

#[cfg(target_arch = "x86_64")]
fn hashes_by_instruction() -> bool {
    // All that `sha2` asks for.
    is_x86_feature_detected!("sha") && is_x86_feature_detected!("sse4.1")
}

#[cfg(target_arch = "aarch64")]
fn hashes_by_instruction() -> bool {
    std::arch::is_aarch64_feature_detected!("sha2")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const fn hashes_by_instruction() -> bool {
    false
}

/// Appends the beginning of a record, up to the end of `prev`.
pub(super) fn begin(out: &mut Vec<u8>, seq: u64, prev: &Link) {
    out.extend_from_slice(SEQ);
    encode::uint(out, seq);
    out.extend_from_slice(PREV);
    out.extend_from_slice(prev);
    out.push(b'"');
}

/// A line taken apart at the end of `prev`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head<'a> {
    pub(super) seq: u64,
    pub(super) prev: &'a Link,
    /// Everything behind `prev`: `,"time":…`, with the line feed if the line had one.
    pub(super) rest: &'a [u8],
}

impl<'a> Head<'a> {
    /// Takes the beginning of a line apart; nothing is said of the rest.
    #[must_use]
    pub(super) fn read(line: &'a [u8]) -> Option<Self> {
        let after = line.strip_prefix(SEQ)?;
        let digits = after.iter().take_while(|b| b.is_ascii_digit()).count();
        let seq = std::str::from_utf8(&after[..digits]).ok()?.parse().ok()?;
        let (prev, rest) = after[digits..]
            .strip_prefix(PREV)?
            .split_first_chunk::<64>()?;
        if !prev.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        Some(Self {
            seq,
            prev,
            rest: rest.strip_prefix(b"\"")?,
        })
    }
}

/// A whole record as the readers need it.
#[derive(Clone, Debug)]
pub(super) struct Line<'a> {
    pub(super) head: Head<'a>,
    pub(super) time: std::borrow::Cow<'a, str>,
    pub(super) event: std::borrow::Cow<'a, str>,
}

/// The keys that every record has behind its head.
#[derive(serde::Deserialize)]
struct Common<'a> {
    #[serde(borrow)]
    time: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    event: std::borrow::Cow<'a, str>,
}

impl<'a> Line<'a> {
    /// Reads one line without its line feed: the head, and one JSON object with a time and an event.
    #[must_use]
    pub(super) fn read(line: &'a [u8]) -> Option<Self> {
        let head = Head::read(line)?;
        let common: Common<'a> = serde_json::from_slice(line).ok()?;
        Some(Self {
            head,
            time: common.time,
            event: common.event,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_reads_what_begin_wrote() {
        let mut line = Vec::new();
        begin(&mut line, 1234, &link(b"before"));
        line.extend_from_slice(b",\"time\":\"t\",\"event\":\"e\"}");
        let read = Line::read(&line).unwrap();
        assert_eq!(read.head.seq, 1234);
        assert_eq!(read.head.prev, &link(b"before"));
        assert_eq!((&*read.time, &*read.event), ("t", "e"));
        assert_eq!(read.head.rest, b",\"time\":\"t\",\"event\":\"e\"}");
    }

    #[test]
    fn a_line_is_hashed_where_it_stands() {
        for length in (0..200).chain([512, 4096]) {
            let mut out: Vec<u8> = (0..=250).cycle().take(length + 7).collect();
            let before = out.clone();
            let hash = link_at(&mut out, 7);
            assert_eq!(hash, link(&before[7..]), "{length}");
            assert_eq!(out, before);
        }
    }

    #[test]
    fn other_lines_are_no_records() {
        let zeros = "0".repeat(64);
        let good = format!("{{\"seq\":1,\"prev\":\"{zeros}\",\"time\":\"t\",\"event\":\"e\"}}");
        assert!(Line::read(good.as_bytes()).is_some());
        for bad in [
            String::new(),
            String::from("{}"),
            good.replace("\"seq\":1", "\"seq\":-1"),
            good.replace("\"seq\":1", "\"seq\":99999999999999999999"),
            good.replace("\"seq\":1", "\"seq\":\"1\""),
            good.replace("000\"", "00g\""),
            good.replace("\"time\":\"t\",", ""),
            good.replace('}', ""),
            format!("{good} "),
            format!("{good}{good}"),
        ] {
            let line = Line::read(bad.as_bytes());
            assert!(line.is_none() || bad.ends_with(' '), "{bad}");
        }
    }
}
