//! What people write to mean a certificate, read as each of the things that it could be.

/// A key taken apart. It may be a name and hex digits at once (`deadbeef`); a store looks for both.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Key<'a> {
    /// The last segment, which every name has.
    pub short: &'a str,
    /// The whole name, when the key is more than a last segment.
    pub whole: Option<&'a str>,
    /// The key without leading zeros, when it is hex: a serial.
    pub serial: Option<String>,
    /// The first and the last fingerprint that begin like this, when it is 8 to 64 hex digits.
    pub prints: Option<([u8; 32], [u8; 32])>,
}

/// Fewer digits than this are a slip of the finger rather than a fingerprint.
const FEWEST_DIGITS: usize = 8;

impl<'a> Key<'a> {
    pub fn read(text: &'a str) -> Self {
        let digits: String = text
            .chars()
            .filter(|c| *c != ':')
            .map(|c| c.to_ascii_lowercase())
            .collect();
        let hex = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
        Self {
            short: text.rsplit('/').next().unwrap_or(text),
            whole: text.contains('/').then_some(text),
            serial: hex.then(|| digits.trim_start_matches('0').to_owned()),
            prints: if hex { prints(&digits) } else { None },
        }
    }
}

fn prints(digits: &str) -> Option<([u8; 32], [u8; 32])> {
    if digits.len() < FEWEST_DIGITS {
        return None;
    }
    let (mut first, mut last) = ([0; 32], [0; 32]);
    hex::decode_to_slice(format!("{digits:0<64}"), &mut first).ok()?;
    hex::decode_to_slice(format!("{digits:f<64}"), &mut last).ok()?;
    Some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_known_by_its_first_eight_digits() {
        let (first, last) = Key::read("DE:AD:BE:EF:1").prints.expect("nine digits");
        assert_eq!(first[..5], [0xde, 0xad, 0xbe, 0xef, 0x10]);
        assert_eq!(last[..5], [0xde, 0xad, 0xbe, 0xef, 0x1f]);
        assert_eq!((first[31], last[31]), (0, 0xff));
        assert_eq!(Key::read("deadbee").prints, None, "seven digits");
        assert_eq!(Key::read(&"a".repeat(65)).prints, None, "too many");
        assert_eq!(Key::read("deadbeeg").prints, None, "not hex");
    }

    #[test]
    fn names_and_serials_are_told_apart_from_what_they_are_not() {
        let key = Key::read("spiffe://example.org/team/agent-7");
        assert_eq!(
            (key.short, key.whole),
            ("agent-7", Some("spiffe://example.org/team/agent-7"))
        );
        assert_eq!(key.serial, None);
        let key = Key::read("00:0A:ff");
        assert_eq!((key.short, key.whole), ("00:0A:ff", None));
        assert_eq!(key.serial.as_deref(), Some("aff"));
        assert_eq!(Key::read("").serial, None);
    }
}
