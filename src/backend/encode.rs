//! JSON written straight into an output buffer. It checks nothing: what it is given as raw JSON is
//! taken to be valid, and only line breaks are taken out of it, because one message is one line.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::jsonrpc::plain;

/// Appends `text` as a JSON string with its quotes. Runs of plain bytes are found many at a time
/// and copied as they are, so that 64 KiB of text cost little more than the copy.
pub fn json_string(out: &mut Vec<u8>, text: &str) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    json_string_inside(out, text);
    out.push(b'"');
}

/// Appends `text` as [`json_string`] does, without the quotes.
pub fn json_string_inside(out: &mut Vec<u8>, text: &str) {
    let mut rest = text.as_bytes();
    loop {
        let (clean, special) = rest.split_at(plain(rest));
        out.extend_from_slice(clean);
        let Some((byte, after)) = special.split_first() else {
            return;
        };
        escape(out, *byte);
        rest = after;
    }
}

/// Appends `bytes` as a JSON string that holds their base64 (RFC 4648 section 4, with padding).
pub fn base64_string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    let start = out.len();
    let len = base64::encoded_len(bytes.len(), true).unwrap_or(0);
    out.resize(start + len, 0);
    // The buffer has exactly the length that the encoder asks for, so it cannot refuse.
    let written = STANDARD.encode_slice(bytes, &mut out[start..]).unwrap_or(0);
    out.truncate(start + written);
    out.push(b'"');
}

/// Appends JSON that is known to be valid, without line breaks: inside strings JSON has none, and
/// between tokens they mean nothing.
pub fn raw_json(out: &mut Vec<u8>, json: &[u8]) {
    out.reserve(json.len());
    let mut copied = 0;
    for found in memchr::memchr2_iter(b'\n', b'\r', json) {
        out.extend_from_slice(&json[copied..found]);
        copied = found + 1;
    }
    out.extend_from_slice(&json[copied..]);
}

/// Appends `,"key":` or, right after an opening brace or at the start, `"key":`. `key` needs no
/// escaping.
pub fn key(out: &mut Vec<u8>, name: &str) {
    if !matches!(out.last(), None | Some(b'{' | b'[')) {
        out.push(b',');
    }
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

/// Appends `"key":"text"` with the comma where one is needed.
pub fn member(out: &mut Vec<u8>, name: &str, text: &str) {
    key(out, name);
    json_string(out, text);
}

/// As [`member`], nothing for `None`.
pub fn optional(out: &mut Vec<u8>, name: &str, text: Option<&str>) {
    if let Some(text) = text {
        member(out, name, text);
    }
}

/// Appends members that are written already, with the comma where one is needed.
pub fn members(out: &mut Vec<u8>, raw: &str) {
    if !raw.is_empty() {
        if !matches!(out.last(), None | Some(b'{')) {
            out.push(b',');
        }
        raw_json(out, raw.as_bytes());
    }
}

/// Appends a whole number.
pub fn number(out: &mut Vec<u8>, value: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = value;
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends `true` or `false`.
pub fn boolean(out: &mut Vec<u8>, value: bool) {
    out.extend_from_slice(if value { b"true" } else { b"false" });
}

fn escape(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        b'"' => b'"',
        b'\\' => b'\\',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        _ => {
            let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&digits);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> String {
        let mut out = Vec::new();
        json_string(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_character_comes_back_wherever_it_stands() {
        for at in [0, 1, 7, 8, 31, 32, 33, 95, 96, 97, 161] {
            for c in (0..0x800).filter_map(char::from_u32) {
                let text = format!("{}{c}{}", "x".repeat(at), "é".repeat(3));
                let back: String = serde_json::from_str(&written(&text)).unwrap();
                assert_eq!(back, text);
            }
        }
        assert_eq!(written("a\u{1}\n\"\\"), r#""a\u0001\n\"\\""#);
    }

    #[test]
    fn random_text_comes_back() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..2_000 {
            let mut text = String::new();
            for _ in 0..(seed % 300) {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                text.push(char::from_u32(u32::try_from(seed % 0x2000).unwrap()).unwrap_or('x'));
            }
            assert_eq!(
                serde_json::from_str::<String>(&written(&text)).unwrap(),
                text
            );
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        }
    }

    #[test]
    fn base64_and_numbers_are_what_others_write() {
        for len in 0..70 {
            let bytes: Vec<u8> = (0..len).collect();
            let mut out = b"#".to_vec();
            base64_string(&mut out, &bytes);
            assert_eq!(out, format!("#\"{}\"", STANDARD.encode(&bytes)).as_bytes());
        }
        for value in [0, 9, 10, 1_234_567_890, u64::MAX] {
            let mut out = Vec::new();
            number(&mut out, value);
            assert_eq!(out, value.to_string().as_bytes());
        }
    }

    #[test]
    fn raw_json_becomes_one_line() {
        let mut out = Vec::new();
        raw_json(&mut out, b"{\r\n \"a\": [1,\n2]\n}");
        assert_eq!(out, b"{ \"a\": [1,2]}");
    }
}
