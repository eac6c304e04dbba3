//! Walking over JSON that the scan found valid: the members of one object, the items of an array,
//! the value of a string. Nothing is copied; what lies deeper is stepped over.

use std::borrow::Cow;

use super::plain::plain;

/// Why an object cannot be walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// It is another kind of value, or not JSON after all.
    #[error("not an object")]
    NotObject,
    /// A key has an escape that stands for no character.
    #[error("a key is not text")]
    Key,
    /// A key that was asked for stands twice: its place among those asked for.
    #[error("a key stands twice")]
    Twice(usize),
}

/// The value of a raw JSON string; `None` for another value or for an escape without a character
/// (a lone surrogate).
#[must_use]
pub fn string_value(raw: &[u8]) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if memchr::memchr(b'\\', inner).is_none() {
        return std::str::from_utf8(inner).ok().map(Cow::Borrowed);
    }
    serde_json::from_slice::<String>(raw).ok().map(Cow::Owned)
}

/// The members of a raw object, in order: decoded key and raw value.
///
/// # Errors
/// [`ObjectError::NotObject`] at once; a key that is no text when the walk comes to it.
pub fn fields(raw: &[u8]) -> Result<Fields<'_>, ObjectError> {
    if raw.first() != Some(&b'{') {
        return Err(ObjectError::NotObject);
    }
    Ok(Fields {
        walk: Walk { bytes: raw, at: 1 },
    })
}

/// The items of a raw array, in order; nothing for another value.
pub fn array_items(raw: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut walk = Walk { bytes: raw, at: 1 };
    let array = raw.first() == Some(&b'[');
    std::iter::from_fn(move || {
        if !array {
            return None;
        }
        walk.filler();
        match walk.peek() {
            None | Some(b']') => None,
            Some(_) => Some(walk.skip()),
        }
    })
}

/// An iterator over the members of an object.
#[derive(Debug)]
pub struct Fields<'a> {
    walk: Walk<'a>,
}

impl<'a> Fields<'a> {
    /// The next member with its key as it was written, quotes included: for whoever compares it
    /// with [`key_bytes`] and need not have it as text.
    fn next_raw(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        self.walk.filler();
        if self.walk.peek() != Some(b'"') {
            return None;
        }
        let key = self.walk.skip();
        self.walk.filler();
        Some((key, self.walk.skip()))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(Cow<'a, str>, &'a [u8]), ObjectError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (key, value) = self.next_raw()?;
        Some(
            string_value(key)
                .map(|key| (key, value))
                .ok_or(ObjectError::Key),
        )
    }
}

/// The text of a raw key as bytes; `None` for an escape without a character. What has no escapes is
/// not looked at any further: the scan found it to be UTF-8.
pub(super) fn key_bytes(raw: &[u8]) -> Option<Cow<'_, [u8]>> {
    let inner = raw.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    // Keys are short; a loop without an early exit is looked at many bytes at a time.
    if !inner
        .iter()
        .fold(false, |found, byte| found | (*byte == b'\\'))
    {
        return Some(Cow::Borrowed(inner));
    }
    string_value(raw).map(|text| Cow::Owned(text.into_owned().into_bytes()))
}

/// Walks the members of an object and puts the values of `names` into the slots of the answer, in
/// the order of `names`.
///
/// # Errors
/// As of [`fields`] and its items, and one of `names` that stands twice.
pub fn slots<'a, const N: usize>(
    raw: &'a [u8],
    names: &[&str; N],
) -> Result<[Option<&'a [u8]>; N], ObjectError> {
    let mut slots = [None; N];
    let mut members = fields(raw)?;
    while let Some((key, value)) = members.next_raw() {
        let key = key_bytes(key).ok_or(ObjectError::Key)?;
        put(&mut slots, names, &key, value)?;
    }
    Ok(slots)
}

/// Puts a member into its slot, if it has one and nothing is in it.
pub(super) fn put<'a, const N: usize>(
    slots: &mut [Option<&'a [u8]>; N],
    names: &[&str; N],
    key: &[u8],
    value: &'a [u8],
) -> Result<(), ObjectError> {
    match names.iter().position(|name| name.as_bytes() == key) {
        Some(at) if slots[at].replace(value).is_some() => Err(ObjectError::Twice(at)),
        _ => Ok(()),
    }
}

/// Steps over valid JSON. On invalid JSON it yields nonsense, never a panic and never a byte
/// outside the slice.
#[derive(Debug)]
struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Walk<'a> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// White space, commas and colons between the things.
    fn filler(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r' | b',' | b':') = self.peek() {
            self.at += 1;
        }
    }

    fn skip(&mut self) -> &'a [u8] {
        let from = self.at;
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'{' | b'[') => self.nested(),
            _ => {
                while self.peek().is_some_and(|b| !b" \t\n\r,:]}".contains(&b)) {
                    self.at += 1;
                }
                // A stray bracket must not stop the walk for ever.
                if self.at == from {
                    self.at = self.bytes.len();
                }
            }
        }
        &self.bytes[from..self.at.min(self.bytes.len())]
    }

    /// Keys and most values are short: a search that is quick over kilobytes costs more than it
    /// saves there.
    fn string(&mut self) {
        const NEAR: usize = 32;
        self.at += 1;
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let near = &rest[..rest.len().min(NEAR)];
        self.at += plain(near);
        if self.peek() == Some(b'"') {
            self.at += 1;
            return;
        }
        while let Some(found) =
            memchr::memchr2(b'"', b'\\', self.bytes.get(self.at..).unwrap_or_default())
        {
            self.at += found;
            if self.bytes[self.at] == b'"' {
                self.at += 1;
                return;
            }
            self.at += 2;
        }
        self.at = self.bytes.len();
    }

    fn nested(&mut self) {
        let mut depth = 0_usize;
        while let Some(byte) = self.peek() {
            match byte {
                b'"' => {
                    self.string();
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => (),
            }
            self.at += 1;
            if depth == 0 {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_come_in_order_with_raw_values() {
        let raw = br#"{ "a" : 1.50 , "b\u0063":"x\"}", "d":{"e":[1,{"f":"]"}]}, "g":[] }"#;
        let all: Vec<_> = fields(raw).unwrap().map(Result::unwrap).collect();
        let expect: [(&str, &[u8]); 4] = [
            ("a", b"1.50"),
            ("bc", br#""x\"}""#),
            ("d", br#"{"e":[1,{"f":"]"}]}"#),
            ("g", b"[]"),
        ];
        assert_eq!(all.len(), 4);
        for ((key, value), (want_key, want_value)) in all.iter().zip(expect) {
            assert_eq!((key.as_ref(), *value), (want_key, want_value));
        }
        assert!(fields(b"[]").is_err());
        assert_eq!(fields(b"{ }").unwrap().count(), 0);
    }

    #[test]
    fn items_come_in_order() {
        let items: Vec<_> = array_items(br#"[ "a", {"b":[1]} ,3]"#).collect();
        assert_eq!(items, [&br#""a""#[..], br#"{"b":[1]}"#, b"3"]);
        assert_eq!(array_items(b"{}").count(), 0);
    }

    #[test]
    fn a_lone_surrogate_is_no_text() {
        assert_eq!(string_value(br#""\ud83d\ude00""#).as_deref(), Some("😀"));
        assert_eq!(string_value(br#""\ud83d""#), None);
        assert_eq!(string_value(b"7"), None);
    }
}
