//! Bodies in base64 (RFC 7030 section 4, RFC 4648), in lines.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The body is not base64, nor PEM around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body is not base64")]
pub struct BodyError;

/// DER as lines of 64 characters.
#[must_use]
pub fn to_body(der: &[u8]) -> String {
    let packed = STANDARD.encode(der);
    let mut lines = String::with_capacity(packed.len() + packed.len() / 64 + 1);
    let mut rest = packed.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        lines.push_str(line);
        lines.push('\n');
        rest = tail;
    }
    lines
}

/// The DER of a body, with any line breaks. The PEM that `openssl req` writes is taken too.
///
/// # Errors
/// Anything else.
pub fn from_body(body: &[u8]) -> Result<Vec<u8>, BodyError> {
    let text = std::str::from_utf8(body).map_err(|_| BodyError)?.trim();
    let inner = match text.strip_prefix("-----BEGIN ") {
        None => text,
        Some(rest) => {
            let (_, rest) = rest.split_once("-----").ok_or(BodyError)?;
            rest.split_once("-----END ").ok_or(BodyError)?.0
        }
    };
    let packed: Vec<u8> = inner.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    match STANDARD.decode(packed) {
        Ok(der) if !der.is_empty() => Ok(der),
        _ => Err(BodyError),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_comes_back_whatever_its_lines() {
        let der: Vec<u8> = (0..200).collect();
        let body = to_body(&der);
        assert!(body.lines().all(|line| line.len() <= 64));
        assert_eq!(from_body(body.as_bytes()).unwrap(), der);
        assert_eq!(
            from_body(body.replace('\n', "\r\n").as_bytes()).unwrap(),
            der
        );
        assert_eq!(from_body(body.replace('\n', "").as_bytes()).unwrap(), der);
        let pem = format!(
            "-----BEGIN CERTIFICATE REQUEST-----\n{body}-----END CERTIFICATE REQUEST-----\n"
        );
        assert_eq!(from_body(pem.as_bytes()).unwrap(), der);
        for wrong in [
            "",
            "\n",
            "a",
            "-----BEGIN X",
            "-----BEGIN X-----\nAAAA",
            "*&^%",
        ] {
            assert_eq!(from_body(wrong.as_bytes()), Err(BodyError), "{wrong:?}");
        }
        assert_eq!(from_body(&[0xff, 0xfe]), Err(BodyError));
    }
}
