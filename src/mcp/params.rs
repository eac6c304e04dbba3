//! The members of `params` that are looked at. A member that stands twice is refused, also in
//! disguise: what is authorized must be what is executed.

use bytes::Bytes;

use crate::jsonrpc::{ObjectError, Outline, slots, string_value};

/// What is wrong with the parameters; answered with -32602.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParamsError {
    /// Two members with one name.
    #[error("`{0}` stands twice in `{1}`")]
    Twice(&'static str, &'static str),
    /// A name with an escape that stands for no character.
    #[error("`{0}` has a member whose name is not text")]
    Key(&'static str),
    /// Not there, or of another type.
    #[error("`{0}` must be {1}")]
    Shape(&'static str, &'static str),
}

/// Walks the members of `raw` (called `place` in messages) and puts the values of `names` into the
/// slots of the answer, in the order of `names`. `None` for `raw` is an object without members.
///
/// # Errors
/// Not an object, or a member of `names` that stands twice.
pub fn pick<'a, const N: usize>(
    raw: Option<&'a [u8]>,
    place: &'static str,
    names: [&'static str; N],
) -> Result<[Option<&'a [u8]>; N], ParamsError> {
    picked(raw, place, names, slots)
}

/// As [`pick`], of an object that the scan may have noted.
///
/// # Errors
/// As there.
pub fn pick_noted<'a, const N: usize>(
    outline: &Outline<'a>,
    raw: Option<&'a [u8]>,
    place: &'static str,
    names: [&'static str; N],
) -> Result<[Option<&'a [u8]>; N], ParamsError> {
    picked(raw, place, names, |raw, names| outline.slots(raw, names))
}

fn picked<'a, const N: usize>(
    raw: Option<&'a [u8]>,
    place: &'static str,
    names: [&'static str; N],
    find: impl FnOnce(&'a [u8], &[&str; N]) -> Result<[Option<&'a [u8]>; N], ObjectError>,
) -> Result<[Option<&'a [u8]>; N], ParamsError> {
    let Some(raw) = raw else {
        return Ok([None; N]);
    };
    find(raw, &names).map_err(|error| match error {
        ObjectError::NotObject => ParamsError::Shape(place, "an object"),
        ObjectError::Key => ParamsError::Key(place),
        ObjectError::Twice(at) => ParamsError::Twice(names[at], place),
    })
}

/// The text of a member that must be a string.
///
/// # Errors
/// It is missing or of another type, or has an escape without a character.
pub fn text(raw: Option<&[u8]>, name: &'static str) -> Result<String, ParamsError> {
    raw.and_then(string_value)
        .map(std::borrow::Cow::into_owned)
        .ok_or(ParamsError::Shape(name, "a string"))
}

/// The value of a member that must be a boolean where it is there; false where it is not.
///
/// # Errors
/// Another type.
pub fn flag(raw: Option<&[u8]>, name: &'static str) -> Result<bool, ParamsError> {
    match raw {
        None | Some(b"false") => Ok(false),
        Some(b"true") => Ok(true),
        Some(_) => Err(ParamsError::Shape(name, "true or false")),
    }
}

/// A part of the message to be kept. An empty object, as most are, holds on to nothing.
pub fn slice(frame: &Bytes, raw: &[u8]) -> Bytes {
    match raw {
        b"{}" => Bytes::from_static(b"{}"),
        raw => frame.slice_ref(raw),
    }
}

/// A member that must be an object where it is there.
///
/// # Errors
/// Another type.
pub fn object<'a>(
    raw: Option<&'a [u8]>,
    name: &'static str,
) -> Result<Option<&'a [u8]>, ParamsError> {
    match raw {
        Some(value) if value.first() != Some(&b'{') => Err(ParamsError::Shape(name, "an object")),
        other => Ok(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_by_name_and_refuses_twins() {
        let raw = br#"{"x":1,"name":"a","uri":"b"}"#;
        let [name, uri, none] = pick(Some(raw), "params", ["name", "uri", "cursor"]).unwrap();
        assert_eq!(
            (name, uri, none),
            (Some(&br#""a""#[..]), Some(&br#""b""#[..]), None)
        );
        let twice = br#"{"name":"a","n\u0061me":"b"}"#;
        assert_eq!(
            pick(Some(twice), "params", ["name"]),
            Err(ParamsError::Twice("name", "params"))
        );
        assert!(pick(Some(br"[]"), "params", ["name"]).is_err());
    }
}
