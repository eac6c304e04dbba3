//! The certificate extension that carries a list of grants, in strict DER:
//!
//! ```text
//! CountersignPermissions ::= SEQUENCE {
//!     version   INTEGER { v1(1) },
//!     grants    SEQUENCE SIZE (0..256) OF UTF8String (SIZE (1..512)) }
//! ```
//!
//! Sizes of strings are counted in bytes, which is the narrower reading. There is exactly one
//! encoding of a list: what decodes encodes to the same bytes again.

use super::pattern::MAX_BYTES;
use super::set::GrantError;
use super::written::WrittenGrants;

const INTEGER: u8 = 0x02;
const UTF8_STRING: u8 = 0x0C;
const SEQUENCE: u8 = 0x30;

/// Why an extension is refused, and with it the certificate that carries it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExtensionError {
    /// Not DER, or not of this shape.
    #[error("the permission extension is not the DER that it should be: {0}")]
    Der(&'static str),
    /// A version that a newer program may know.
    #[error("the permission extension has version {0}, this program knows 1")]
    Version(u64),
    /// An entry that is no grant, or too many of them.
    #[error("the permission extension: {0}")]
    Grant(#[from] GrantError),
}

/// Reads the extension's content (the inside of the OCTET STRING), strict DER.
///
/// # Errors
/// Not DER, trailing bytes, another version, too many or too long entries, or one that does not parse.
pub fn decode_extension(der: &[u8]) -> Result<WrittenGrants, ExtensionError> {
    let (body, rest) = element(der, SEQUENCE)?;
    nothing(rest, "bytes follow its end")?;
    let (version, body) = element(body, INTEGER)?;
    version_is_one(version)?;
    let (mut list, rest) = element(body, SEQUENCE)?;
    nothing(rest, "a third field")?;
    let mut entries = Vec::new();
    while !list.is_empty() {
        let (entry, rest) = element(list, UTF8_STRING)?;
        if entry.is_empty() || entry.len() > MAX_BYTES {
            return Err(ExtensionError::Der("an entry is not 1 to 512 bytes long"));
        }
        let text = std::str::from_utf8(entry);
        entries.push(text.map_err(|_| ExtensionError::Der("an entry is not UTF-8"))?);
        list = rest;
    }
    Ok(WrittenGrants::parse(&entries)?)
}

/// The DER content for these grants.
#[must_use]
pub fn encode_extension(grants: &WrittenGrants) -> Vec<u8> {
    let mut list = Vec::new();
    for entry in grants.entries() {
        write(&mut list, UTF8_STRING, entry.to_string().as_bytes());
    }
    let mut body = Vec::new();
    write(&mut body, INTEGER, &[1]);
    write(&mut body, SEQUENCE, &list);
    let mut der = Vec::new();
    write(&mut der, SEQUENCE, &body);
    der
}

/// Takes one element with this tag off the front: its content and what follows it.
fn element(input: &[u8], tag: u8) -> Result<(&[u8], &[u8]), ExtensionError> {
    let (&found, input) = input
        .split_first()
        .ok_or(ExtensionError::Der("it is cut short"))?;
    if found != tag {
        return Err(ExtensionError::Der("an element has the wrong tag"));
    }
    let (length, input) = length(input)?;
    input
        .split_at_checked(length)
        .ok_or(ExtensionError::Der("it is cut short"))
}

/// Reads a definite length in as few bytes as possible, at most four of them: more than the
/// largest list needs.
fn length(input: &[u8]) -> Result<(usize, &[u8]), ExtensionError> {
    let (&first, input) = input
        .split_first()
        .ok_or(ExtensionError::Der("it is cut short"))?;
    if first < 0x80 {
        return Ok((usize::from(first), input));
    }
    let count = usize::from(first & 0x7F);
    if !(1..=3).contains(&count) {
        return Err(ExtensionError::Der("a length is indefinite or too large"));
    }
    let (digits, input) = input
        .split_at_checked(count)
        .ok_or(ExtensionError::Der("it is cut short"))?;
    let value = digits
        .iter()
        .fold(0, |value, &digit| value << 8 | usize::from(digit));
    if value < 0x80 || digits.first() == Some(&0) {
        return Err(ExtensionError::Der("a length is not minimal"));
    }
    Ok((value, input))
}

fn version_is_one(content: &[u8]) -> Result<(), ExtensionError> {
    match content {
        [1] => Ok(()),
        [] => Err(ExtensionError::Der("the version is empty")),
        [0x80..=0xFF, ..] => Err(ExtensionError::Der("the version is negative")),
        [0, 0..=0x7F, ..] => Err(ExtensionError::Der("the version is not minimal")),
        digits if digits.len() <= 8 => Err(ExtensionError::Version(
            digits
                .iter()
                .fold(0, |value, &digit| value << 8 | u64::from(digit)),
        )),
        _ => Err(ExtensionError::Der("the version is too large")),
    }
}

fn nothing(rest: &[u8], what: &'static str) -> Result<(), ExtensionError> {
    if rest.is_empty() {
        Ok(())
    } else {
        Err(ExtensionError::Der(what))
    }
}

fn write(der: &mut Vec<u8>, tag: u8, content: &[u8]) {
    der.push(tag);
    let length = content.len().to_be_bytes();
    let zeros = length.iter().take_while(|&&byte| byte == 0).count();
    match &length[zeros..] {
        [] => der.push(0),
        [short @ 0..=0x7F] => der.push(*short),
        digits => {
            // A length of eight bytes at most fits the seven bits of the count.
            der.push(0x80 | digits.len().to_le_bytes()[0]);
            der.extend_from_slice(digits);
        }
    }
    der.extend_from_slice(content);
}

#[cfg(test)]
mod tests {
    use super::super::chance::Chance;
    use super::*;

    fn written(entries: &[&str]) -> WrittenGrants {
        WrittenGrants::parse(entries).unwrap()
    }

    #[test]
    fn the_bytes_are_those_of_the_asn1_module() {
        let der = encode_extension(&written(&["tools:a", "*"]));
        assert_eq!(
            der,
            *b"\x30\x11\x02\x01\x01\x30\x0C\x0C\x07tools:a\x0C\x01*"
        );
        assert_eq!(
            encode_extension(&written(&[])),
            *b"\x30\x05\x02\x01\x01\x30\x00"
        );
        assert_eq!(
            decode_extension(b"\x30\x05\x02\x01\x01\x30\x00"),
            Ok(written(&[]))
        );
    }

    #[test]
    fn lists_come_back_as_they_went() {
        let mut chance = Chance::seeded(4);
        for size in (0..40).chain([255, 256]) {
            let entries: Vec<String> = (0..size)
                .map(|_| format!("tools:{}", chance.pattern(60)))
                .collect();
            let grants = WrittenGrants::parse(&entries).unwrap();
            assert_eq!(decode_extension(&encode_extension(&grants)), Ok(grants));
        }
        // The largest of all needs lengths of three bytes.
        let longest = format!("tools:{}", "x".repeat(506));
        let grants = WrittenGrants::parse(&vec![longest; 256]).unwrap();
        assert_eq!(decode_extension(&encode_extension(&grants)), Ok(grants));
    }

    #[test]
    fn every_truncation_is_refused() {
        let der = encode_extension(&written(&["tools:files__read_*", "role:reader", "*"]));
        assert!(decode_extension(&der).is_ok());
        for end in 0..der.len() {
            assert!(decode_extension(&der[..end]).is_err(), "{end}");
        }
        let mut longer = der;
        longer.push(0);
        assert_eq!(
            decode_extension(&longer),
            Err(ExtensionError::Der("bytes follow its end"))
        );
    }

    #[test]
    fn a_changed_byte_is_refused_or_means_what_it_now_says() {
        let long = format!("tools:{}*", "long".repeat(40));
        let der = encode_extension(&written(&["tools:a*", "role:reader", "*", &long]));
        let (mut refused, mut accepted) = (0, 0);
        for at in 0..der.len() {
            for value in 0..=u8::MAX {
                let mut changed = der.clone();
                changed[at] = value;
                match decode_extension(&changed) {
                    Ok(grants) => {
                        assert_eq!(encode_extension(&grants), changed, "byte {at} is {value}");
                        accepted += 1;
                    }
                    Err(_) => refused += 1,
                }
            }
        }
        assert!(accepted > 1_000 && refused > 1_000, "{accepted} {refused}");
    }

    #[test]
    fn sloppy_der_is_refused() {
        let refused = |der: &[u8], error: ExtensionError| {
            assert_eq!(decode_extension(der), Err(error), "{der:x?}")
        };
        let der = ExtensionError::Der;
        refused(b"", der("it is cut short"));
        refused(
            b"\x30\x80\x02\x01\x01\x30\x00\x00\x00",
            der("a length is indefinite or too large"),
        );
        refused(
            b"\x30\x81\x05\x02\x01\x01\x30\x00",
            der("a length is not minimal"),
        );
        refused(
            b"\x30\x82\x00\x05\x02\x01\x01\x30\x00",
            der("a length is not minimal"),
        );
        refused(
            b"\x30\x84\x00\x00\x00\x05\x02\x01\x01\x30\x00",
            der("a length is indefinite or too large"),
        );
        refused(
            b"\x31\x05\x02\x01\x01\x30\x00",
            der("an element has the wrong tag"),
        );
        refused(
            b"\x30\x06\x02\x02\x00\x01\x30\x00",
            der("the version is not minimal"),
        );
        refused(b"\x30\x04\x02\x00\x30\x00", der("the version is empty"));
        refused(
            b"\x30\x05\x02\x01\xFF\x30\x00",
            der("the version is negative"),
        );
        refused(b"\x30\x05\x02\x01\x02\x30\x00", ExtensionError::Version(2));
        refused(b"\x30\x05\x02\x01\x00\x30\x00", ExtensionError::Version(0));
        refused(
            b"\x30\x06\x02\x02\x01\x00\x30\x00",
            ExtensionError::Version(256),
        );
        refused(
            b"\x30\x07\x02\x01\x01\x30\x00\x05\x00",
            der("a third field"),
        );
        refused(
            b"\x30\x07\x02\x01\x01\x30\x02\x0C\x00",
            der("an entry is not 1 to 512 bytes long"),
        );
        refused(
            b"\x30\x08\x02\x01\x01\x30\x03\x13\x01*",
            der("an element has the wrong tag"),
        );
        refused(
            b"\x30\x08\x02\x01\x01\x30\x03\x0C\x01\xFF",
            der("an entry is not UTF-8"),
        );
        let shape = GrantError::Shape("x".into());
        refused(
            b"\x30\x08\x02\x01\x01\x30\x03\x0C\x01x",
            ExtensionError::Grant(shape),
        );
    }

    #[test]
    fn a_list_that_is_too_long_is_refused() {
        let entries = |count: usize| {
            let list = b"\x0C\x01*".repeat(count);
            let mut body = b"\x02\x01\x01".to_vec();
            write(&mut body, SEQUENCE, &list);
            let mut der = Vec::new();
            write(&mut der, SEQUENCE, &body);
            der
        };
        assert!(decode_extension(&entries(256)).is_ok());
        assert_eq!(
            decode_extension(&entries(257)),
            Err(GrantError::TooMany.into())
        );
    }
}
