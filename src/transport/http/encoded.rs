//! Text in header values: as it is, or in the base64 form that MCP gives values which a header
//! cannot hold (`=?base64?…?=`).

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::HeaderValue;

/// The value is not text, or its base64 is not canonical.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the value is not readable text")]
pub struct NotText;

/// The text of a header value. Base64 must be canonical, so that one text has one form.
///
/// # Errors
/// [`NotText`]: bytes outside visible ASCII, wrong padding or alphabet, or not UTF-8 inside.
pub fn decoded(value: &HeaderValue) -> Result<Cow<'_, str>, NotText> {
    let text = value.to_str().map_err(|_| NotText)?;
    let inside = text
        .strip_prefix("=?base64?")
        .and_then(|rest| rest.strip_suffix("?="));
    let Some(inside) = inside else {
        return Ok(Cow::Borrowed(text));
    };
    let bytes = STANDARD.decode(inside).map_err(|_| NotText)?;
    String::from_utf8(bytes)
        .map(Cow::Owned)
        .map_err(|_| NotText)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &'static [u8]) -> Result<String, NotText> {
        decoded(&HeaderValue::from_bytes(text).unwrap()).map(Cow::into_owned)
    }

    #[test]
    fn plain_and_encoded_text() {
        assert_eq!(read(b"Hello").as_deref(), Ok("Hello"));
        assert_eq!(read(b"=?base64?SGVsbG8=?=").as_deref(), Ok("Hello"));
        assert_eq!(read("=?base64?w6k=?=".as_bytes()).as_deref(), Ok("é"));
        assert_eq!(read(b"=?base64??=").as_deref(), Ok(""));
        // Other markers are no markers.
        assert_eq!(
            read(b"=?BASE64?SGVsbG8=?=").as_deref(),
            Ok("=?BASE64?SGVsbG8=?=")
        );
        assert_eq!(
            read(b"=?base64?SGVsbG8=").as_deref(),
            Ok("=?base64?SGVsbG8=")
        );
    }

    #[test]
    fn what_is_not_canonical_is_no_text() {
        for bad in [
            &b"=?base64?SGVsbG8?="[..],
            b"=?base64?SGVsbG9=?=",
            b"=?base64?SGVs*G8=?=",
            b"=?base64?SGVs bG8=?=",
            b"=?base64?SGVs-G8_?=",
            b"=?base64?/w==?=",
            b"\xc3\xa9",
        ] {
            assert_eq!(
                decoded(&HeaderValue::from_bytes(bad).unwrap()),
                Err(NotText),
                "{bad:?}"
            );
        }
    }
}
