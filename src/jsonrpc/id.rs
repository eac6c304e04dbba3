//! Request ids, as raw tokens.

use smallvec::SmallVec;

/// The id of a request: a JSON string or an integer, kept as it was written (`7` is not `"7"`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId<'a>(&'a [u8]);

/// Bytes of a raw id at the most: ids are kept while calls are in flight and echoed.
const MAX_ID_BYTES: usize = 256;

impl<'a> RequestId<'a> {
    /// Takes a raw JSON value that is known to be valid; `None` if it is no id.
    #[must_use]
    pub fn read(raw: &'a [u8]) -> Option<Self> {
        if raw.len() > MAX_ID_BYTES {
            return None;
        }
        let integer = || {
            let digits = raw.strip_prefix(b"-").unwrap_or(raw);
            !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
        };
        (raw.first() == Some(&b'"') || integer()).then_some(Self(raw))
    }

    /// The raw JSON token, quotes included.
    #[must_use]
    pub const fn raw(&self) -> &'a [u8] {
        self.0
    }

    /// Whether two raw ids are the same id: same type, same value, however the string is escaped.
    #[must_use]
    pub fn same(left: &[u8], right: &[u8]) -> bool {
        if left == right {
            return true;
        }
        let escaped = |raw: &[u8]| raw.contains(&b'\\');
        (escaped(left) || escaped(right))
            && super::object::string_value(left).is_some_and(|value| {
                super::object::string_value(right).is_some_and(|other| other == value)
            })
    }
}

/// Bytes of an id that need no memory of their own: a UUID in quotes.
const SHORT: usize = 40;

/// An id that outlives its message, which it does not hold on to: a call may run for long.
#[derive(Debug, PartialEq, Eq)]
pub struct OwnedId(SmallVec<[u8; SHORT]>);

impl From<&[u8]> for OwnedId {
    /// A raw JSON token, quotes included.
    fn from(raw: &[u8]) -> Self {
        Self(SmallVec::from_slice(raw))
    }
}

// By hand: a slice is copied at once, where the derived one clones each byte.
impl Clone for OwnedId {
    fn clone(&self) -> Self {
        Self::from(&**self)
    }
}

impl std::ops::Deref for OwnedId {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_and_integers_are_ids_and_nothing_else() {
        for good in ["1", "-9", "\"\"", "\"a\"", "123456789012345678901234567890"] {
            assert!(RequestId::read(good.as_bytes()).is_some(), "{good}");
        }
        for bad in ["null", "1.0", "1e3", "true", "{}", "[]", "-"] {
            assert!(RequestId::read(bad.as_bytes()).is_none(), "{bad}");
        }
        assert!(RequestId::read(format!("\"{}\"", "a".repeat(300)).as_bytes()).is_none());
    }

    #[test]
    fn the_same_id_is_found_through_escapes() {
        assert!(RequestId::same(br#""a""#, br#""\u0061""#));
        assert!(!RequestId::same(b"1", br#""1""#));
    }
}
