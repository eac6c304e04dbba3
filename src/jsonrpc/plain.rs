//! How far the text of a JSON string is plain: neither quote nor backslash nor control character.
//! What reads strings and what writes them spend their time here.

/// Bytes that are looked at in words before whole chunks are: most strings are short, and escapes
/// often stand close together.
const NEAR: usize = 32;
/// Bytes that the compiler compares side by side.
const CHUNK: usize = 128;

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
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    let quotes = word ^ (ONES * b'"' as u64);
    let quotes = quotes.wrapping_sub(ONES) & !quotes;
    let slashes = word ^ (ONES * b'\\' as u64);
    let slashes = slashes.wrapping_sub(ONES) & !slashes;
    (control | quotes | slashes) & HIGHS
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
}
