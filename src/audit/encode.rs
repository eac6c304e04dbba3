//! JSON by hand, for the path that every call takes: strings, numbers, hex, timestamps.
//!
//! Appends to a buffer and nothing else; it allocates only when the buffer must grow.

use std::time::Duration;

use time::OffsetDateTime;

/// Bytes of a peer's text (method, target) that are written out. What is longer is cut and its
/// length and digest stand beside it, so that a peer cannot write the log full with one name.
pub(super) const TEXT_MAX: usize = 4096;

/// Appends `n` in decimal.
#[inline]
pub(super) fn uint(out: &mut Vec<u8>, n: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
}

/// Appends `n` in decimal, with its sign.
pub(super) fn int(out: &mut Vec<u8>, n: i64) {
    if n < 0 {
        out.push(b'-');
    }
    uint(out, n.unsigned_abs());
}

/// 32 bytes as 64 lower-case hex digits; zeros for what is missing. Reckoned, not looked up: the
/// compiler does many digits at once.
pub(super) fn hex32(bytes: &[u8]) -> [u8; 64] {
    const fn digit(n: u8) -> u8 {
        n + b'0' + (b'a' - b'9' - 1) * (n > 9) as u8
    }
    let bytes: [u8; 32] = bytes.first_chunk().copied().unwrap_or_default();
    let mut out = [0; 64];
    for at in 0..32 {
        out[2 * at] = digit(bytes[at] >> 4);
        out[2 * at + 1] = digit(bytes[at] & 15);
    }
    out
}

/// Appends `text` as a JSON string. Beside what JSON demands it escapes what would let a name
/// forge lines or turn text around for a reader: DEL and C1 controls, line and paragraph
/// separators, directional marks and the byte-order mark.
pub(super) fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    // No early exit, so that the compiler can look at many bytes at once.
    let clean = text.bytes().fold(true, |clean, b| {
        clean & (0x20..0x7f).contains(&b) & (b != b'"') & (b != b'\\')
    });
    if clean {
        out.extend_from_slice(text.as_bytes());
    } else {
        escaped(out, text);
    }
    out.push(b'"');
}

fn escaped(out: &mut Vec<u8>, text: &str) {
    let mut utf8 = [0; 4];
    for c in text.chars() {
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            c if misleading(c) => {
                let mut pair = [0; 2];
                for unit in c.encode_utf16(&mut pair) {
                    out.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
                }
            }
            c => out.extend_from_slice(c.encode_utf8(&mut utf8).as_bytes()),
        }
    }
}

/// Whether a character could forge a line, drive a terminal or turn text around.
#[must_use]
pub fn misleading(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}' | '\u{feff}'
        )
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Appends `,"key":"text"`; `key` must be clean.
#[inline]
pub(super) fn field(out: &mut Vec<u8>, key: &str, text: &str) {
    name(out, key);
    string(out, text);
}

/// Appends `,"key":n`.
#[inline]
pub(super) fn number(out: &mut Vec<u8>, key: &str, n: u64) {
    name(out, key);
    uint(out, n);
}

/// Appends `,"key":` for a clean key. Inlined, a key that is a constant is a store or two.
#[inline]
pub(super) fn name(out: &mut Vec<u8>, key: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\":");
}

/// As [`field`], for text of any length that a peer chose: past [`TEXT_MAX`] bytes it is cut, and
/// `<key>_length` and `<key>_sha256` say what the whole was.
pub(super) fn peer_text(out: &mut Vec<u8>, key: &str, text: &str) {
    if text.len() <= TEXT_MAX {
        return field(out, key, text);
    }
    let mut end = TEXT_MAX;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    field(out, key, &text[..end]);
    number(out, &format!("{key}_length"), text.len() as u64);
    name(out, &format!("{key}_sha256"));
    digest(out, text.as_bytes());
}

/// Appends the SHA-256 of `bytes` as a JSON string.
pub(super) fn digest(out: &mut Vec<u8>, bytes: &[u8]) {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    out.push(b'"');
    out.extend_from_slice(&hex32(digest.as_ref()));
    out.push(b'"');
}

/// Appends a JSON value that somebody else wrote, on one line. Bytes that are not one JSON value
/// become a JSON string, so that the record stays readable whatever a peer sent.
pub(super) fn raw(out: &mut Vec<u8>, token: &[u8]) {
    if plain_token(token) {
        return out.extend_from_slice(token);
    }
    let value = std::str::from_utf8(token).ok();
    match value.filter(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()) {
        // Inside a string a line feed is not valid JSON, so these are white space between tokens.
        Some(text) => out.extend(text.bytes().map(|b| if b < 0x20 { b' ' } else { b })),
        None => string(out, &String::from_utf8_lossy(token)),
    }
}

/// A short number or clean string, as request ids nearly always are.
fn plain_token(token: &[u8]) -> bool {
    match token {
        [b'1'..=b'9', rest @ ..] => rest.len() < 19 && rest.iter().all(u8::is_ascii_digit),
        [b'"', text @ .., b'"'] => text
            .iter()
            .all(|&b| b.is_ascii_alphanumeric() || b"-_.:/ ".contains(&b)),
        token => token == b"0",
    }
}

/// RFC 3339 with microseconds, in UTC. The part down to the second is formatted once a second.
#[derive(Debug)]
pub(super) struct Stamp {
    second: u64,
    text: [u8; 20],
}

impl Stamp {
    pub(super) const fn new() -> Self {
        Self {
            second: u64::MAX,
            text: *b"0000-00-00T00:00:00.",
        }
    }

    /// Appends the time that lies `now` after the Unix epoch.
    pub(super) fn write(&mut self, out: &mut Vec<u8>, now: Duration) {
        if now.as_secs() != self.second {
            self.turn(now.as_secs());
        }
        let mut micros = [b'0'; 7];
        let mut n = now.subsec_micros();
        for digit in micros[..6].iter_mut().rev() {
            *digit = b'0' + (n % 10) as u8;
            n /= 10;
        }
        micros[6] = b'Z';
        out.extend_from_slice(&self.text);
        out.extend_from_slice(&micros);
    }

    fn turn(&mut self, second: u64) {
        // Past the year 9999 the text would need another digit: such a clock is wrong, and the
        // last time that fits says so.
        let most = 253_402_300_799;
        let shown = i64::try_from(second).unwrap_or(most).min(most);
        let t = OffsetDateTime::from_unix_timestamp(shown).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let text = format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.",
            t.year(),
            u8::from(t.month()),
            t.day(),
            t.hour(),
            t.minute(),
            t.second()
        );
        self.text.copy_from_slice(text.as_bytes());
        self.second = second;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_are_decimal() {
        for n in [0, 7, 10, 99, 100, 1_234_567_890, u64::MAX] {
            assert_eq!(made(|out| uint(out, n)), n.to_string());
        }
        for n in [0, -1, i64::MIN, i64::MAX, -32601] {
            assert_eq!(made(|out| int(out, n)), n.to_string());
        }
    }

    #[test]
    fn every_text_comes_back_from_one_clean_line() {
        let mut seed = 7_u64;
        let nasty = [
            '"',
            '\\',
            '\n',
            '\r',
            '\t',
            '\0',
            '\u{1b}',
            '\u{7f}',
            '\u{85}',
            '\u{2028}',
            '\u{2029}',
            '\u{202e}',
            '\u{feff}',
            '\u{10ffff}',
            '😀',
            'ä',
            'x',
            '/',
            '\u{e000}',
            '\u{fffd}',
        ];
        for _ in 0..2000 {
            let text: String = (0..16)
                .map(|_| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    nasty[(seed >> 33) as usize % nasty.len()]
                })
                .collect();
            let json = made(|out| string(out, &text));
            assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
            assert!(!json.chars().any(misleading), "{json}");
        }
    }

    #[test]
    fn raw_tokens_are_copied_and_what_is_no_token_becomes_a_string() {
        for token in [
            "1",
            "0",
            "\"a-1\"",
            "-5",
            "1.5e3",
            "\"\\u0041\"",
            "null",
            "{\"a\":[1,2]}",
        ] {
            assert_eq!(made(|out| raw(out, token.as_bytes())), token);
        }
        assert_eq!(made(|out| raw(out, b"{\n\t\"a\":\r\n1}")), "{  \"a\":  1}");
        for broken in [
            &b"1,\"allowed\":true"[..],
            b"01",
            b"\"a",
            b"\"\"\"",
            b"",
            b"\"\xff\"",
            b"\"a\nb\"",
        ] {
            let json = made(|out| raw(out, broken));
            assert!(serde_json::from_str::<String>(&json).is_ok(), "{json}");
        }
    }

    #[test]
    fn a_long_name_is_cut_at_a_character_and_its_digest_kept() {
        let text = "ä".repeat(TEXT_MAX);
        let json = format!("{{\"x\":0{}}}", made(|out| peer_text(out, "target", &text)));
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["target"].as_str().unwrap().len(), TEXT_MAX);
        assert_eq!(value["target_length"], 2 * TEXT_MAX);
        assert_eq!(value["target_sha256"].as_str().unwrap().len(), 64);
    }

    #[test]
    fn times_are_rfc_3339_with_microseconds() {
        let mut stamp = Stamp::new();
        let mut at =
            |secs, micros: u32| made(|out| stamp.write(out, Duration::new(secs, micros * 1000)));
        assert_eq!(at(0, 0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(at(1_795_225_643, 42), "2026-11-21T01:47:23.000042Z");
        assert_eq!(at(1_795_225_643, 999_999), "2026-11-21T01:47:23.999999Z");
        assert_eq!(at(1_709_164_800, 0), "2024-02-29T00:00:00.000000Z");
        assert_eq!(at(u64::MAX, 0), "9999-12-31T23:59:59.000000Z");
    }
}
