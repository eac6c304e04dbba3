//! How far the text of a JSON string is plain: neither quote nor backslash nor control character.
//! What reads strings and what writes them spend their time here.
//!
//! Nearly every message is printable ASCII without a backslash from end to end. [`survey`] sees that
//! in one pass over many bytes at once, and then a string ends at the next quote, whatever is in it.

/// Bytes that are looked at in words before whole chunks are: most strings are short, and escapes
/// often stand close together.
const NEAR: usize = 32;
/// The same for who looks for a quote alone, which is cheaper.
const SHORT: usize = 64;
/// Bytes that the compiler compares side by side.
const CHUNK: usize = 128;

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;
const QUOTES: u64 = ONES * b'"' as u64;

/// How many bytes at the beginning are plain.
#[must_use]
pub fn plain(bytes: &[u8]) -> usize {
    let (near, far) = bytes.split_at(bytes.len().min(NEAR));
    if let Some(found) = special_in(near) {
        return found;
    }
    let (chunks, _) = far.as_chunks::<CHUNK>();
    let clean = CHUNK * chunks.iter().take_while(|chunk| is_plain(chunk)).count();
    let rest = &far[clean..];
    near.len() + clean + special_in(rest).unwrap_or(rest.len())
}

/// What a whole text is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Makeup {
    /// No byte above 0x7f.
    pub(super) ascii: bool,
    /// No control character and no backslash.
    pub(super) bare: bool,
}

/// Looks at every byte. Without an early exit, so that the compiler can look at many at once.
pub(super) fn survey(bytes: &[u8]) -> Makeup {
    let (mut all, mut low, mut slash) = (0, u8::MAX, u8::MAX);
    for byte in bytes {
        all |= byte;
        low = low.min(*byte);
        slash = slash.min(byte ^ b'\\');
    }
    Makeup {
        ascii: all < 0x80,
        bare: low >= 0x20 && slash > 0,
    }
}

/// Where the next quote stands that is not before `from`.
#[inline]
pub(super) fn quote(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(word) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        let found = zeros(u64::from_le_bytes(*word) ^ QUOTES);
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize / 8);
        }
        at += 8;
        if at - from >= SHORT {
            break;
        }
    }
    let found = memchr::memchr(b'"', bytes.get(at..)?)?;
    Some(at + found)
}

fn special_in(bytes: &[u8]) -> Option<usize> {
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let found = specials(u64::from_le_bytes(*word));
        if found != 0 {
            return Some(index * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    let inside = rest.iter().position(|byte| is_special(*byte));
    inside.map(|found| bytes.len() - rest.len() + found)
}

const fn is_special(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// Two smallest values tell: with its bit 1 turned round, a quote comes to lie right above the
/// control characters, and a backslash alone becomes nothing when its own bits are turned round.
fn is_plain(chunk: &[u8; CHUNK]) -> bool {
    let (mut low, mut slash) = (u8::MAX, u8::MAX);
    for byte in chunk {
        low = low.min(byte ^ 0x02);
        slash = slash.min(byte ^ b'\\');
    }
    low > 0x20 && slash > 0
}

/// The high bit of each byte that is below 0x20, `"` or `\`. A borrow can set one too many, but
/// only above a byte that is one: the lowest bit that is set is right.
const fn specials(word: u64) -> u64 {
    let control = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
    let slashes = word ^ (ONES * b'\\' as u64);
    control | zeros(word ^ QUOTES) | zeros(slashes)
}

/// The high bit of each byte that is 0; right up to the lowest one, as in [`specials`].
const fn zeros(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & HIGHS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_found_wherever_it_stands() {
        for byte in 0..=u8::MAX {
            let special = byte < 0x20 || byte == b'"' || byte == b'\\';
            for len in [1, 7, 8, 31, 40, 200, 700] {
                for at in [0, len / 2, len - 1] {
                    let mut text = vec![b'x'; len];
                    text[at] = byte;
                    let want = if special { at } else { len };
                    assert_eq!(plain(&text), want, "{byte:#x} at {at} of {len}");
                }
            }
        }
        assert_eq!(plain(b""), 0);
    }

    #[test]
    fn a_quote_is_found_wherever_it_stands() {
        for len in [1, 7, 8, 9, 31, 63, 64, 65, 73, 200] {
            // Neighbours that differ from a quote in one bit must not pass for one.
            let mut text = vec![b'#'; len];
            assert_eq!(quote(&text, 0), None);
            for at in 0..len {
                text[at] = b'"';
                for from in 0..=len {
                    let want = (from <= at).then_some(at);
                    assert_eq!(quote(&text, from), want, "{at} from {from} of {len}");
                }
                text[at] = b' ';
            }
        }
        assert_eq!(quote(b"", 0), None);
    }

    #[test]
    fn one_byte_changes_what_the_whole_is_made_of() {
        for byte in 0..=u8::MAX {
            for (len, at) in [(1, 0), (40, 39), (300, 7)] {
                let mut text = vec![b'x'; len];
                text[at] = byte;
                let want = Makeup {
                    ascii: byte < 0x80,
                    bare: byte >= 0x20 && byte != b'\\',
                };
                assert_eq!(survey(&text), want, "{byte:#x}");
            }
        }
    }
}
