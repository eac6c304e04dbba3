//! Headers that repeat what the body says must say the same (revision 2026-07-28, Streamable HTTP).
//! The body alone is authorized and executed; a header that differs refuses the request, so that
//! nobody in between who went by the header was deceived.

use hyper::header::HeaderValue;

use crate::backend::ParamHeader;
use crate::jsonrpc::{RpcError, code, fields, string_value};
use crate::mcp::{Call, Detail, Method};
use crate::transport::http::{Fields, decoded};

fn mismatch(message: String) -> RpcError {
    RpcError::new(code::HEADER_MISMATCH, message)
}

/// Whether `header` is there and says `body`.
fn same(
    name: &str,
    header: Option<&HeaderValue>,
    body: &str,
    encoded: bool,
) -> Result<(), RpcError> {
    let Some(header) = header else {
        return Err(mismatch(format!("the header `{name}` is missing")));
    };
    let text = if encoded {
        decoded(header).ok()
    } else {
        header.to_str().ok().map(std::borrow::Cow::Borrowed)
    };
    match text {
        None => Err(mismatch(format!("the header `{name}` is not readable"))),
        Some(text) if text != body => {
            Err(mismatch(format!("the header `{name}` and the body differ")))
        }
        Some(_) => Ok(()),
    }
}

/// The revision that the body claims, before anything is made of it.
///
/// # Errors
/// -32020.
pub fn version_agrees(fields: &Fields<'_>, body: &str) -> Result<(), RpcError> {
    if let Some(name) = fields.twice(&["MCP-Protocol-Version", "Mcp-Method", "Mcp-Name"]) {
        return Err(mismatch(format!("the header `{name}` stands twice")));
    }
    same("MCP-Protocol-Version", fields.version, body, false)
}

/// Method and name.
///
/// # Errors
/// -32020.
pub fn routing_agrees(fields: &Fields<'_>, call: &Call) -> Result<(), RpcError> {
    same("Mcp-Method", fields.method, &call.name, false)?;
    let name = match (&call.detail, call.method) {
        (Detail::Tool { name, .. } | Detail::Prompt { name, .. }, _) => name,
        (Detail::Resource(uri, _), Method::ResourcesRead) => uri,
        _ => return Ok(()),
    };
    same("Mcp-Name", fields.name, name, true)
}

/// The arguments that a tool's schema has repeated in headers.
///
/// # Errors
/// -32020.
pub fn params_agree<'a>(
    declared: &[ParamHeader],
    header: impl Fn(&str) -> Vec<&'a HeaderValue>,
    arguments: Option<&[u8]>,
) -> Result<(), RpcError> {
    for param in declared {
        let found = header(&param.header);
        let shown = &param.header;
        let value = arguments
            .and_then(|raw| at(raw, &param.path))
            .filter(|raw| *raw != b"null");
        let header = match found[..] {
            [] if value.is_none() => continue,
            [] => return Err(mismatch(format!("the header `{shown}` is missing"))),
            [header] => header,
            _ => return Err(mismatch(format!("the header `{shown}` stands twice"))),
        };
        let text = decoded(header)
            .map_err(|_| mismatch(format!("the header `{shown}` is not readable")))?;
        if !value.is_some_and(|raw| says(raw, &text)) {
            return Err(mismatch(format!(
                "the header `{shown}` and the body differ"
            )));
        }
    }
    Ok(())
}

/// The raw value at a path of member names; the last of two members with one name would be what a
/// provider reads, so two have no value that could agree.
fn at<'a>(raw: &'a [u8], path: &[String]) -> Option<&'a [u8]> {
    let mut here = raw;
    for name in path {
        let mut found = None;
        for field in fields(here).ok()? {
            let (key, value) = field.ok()?;
            if key == name.as_str() && found.replace(value).is_some() {
                return Some(b"");
            }
        }
        here = found?;
    }
    Some(here)
}

/// Whether a raw value and the text of a header are the same: strings letter by letter, numbers by
/// value, booleans by name.
fn says(raw: &[u8], text: &str) -> bool {
    match raw.first() {
        Some(b'"') => string_value(raw).is_some_and(|value| value == text),
        Some(b't' | b'f') => raw == text.as_bytes(),
        Some(_) => match (number::<i64>(raw), number::<i64>(text.as_bytes())) {
            // Two integers may be one number of floating point.
            (Some(value), Some(said)) => value == said,
            _ => number::<f64>(raw)
                .is_some_and(|value| number::<f64>(text.as_bytes()) == Some(value)),
        },
        None => false,
    }
}

fn number<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    serde_json::from_slice(bytes).ok()
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderMap;

    use super::*;

    fn agree(arguments: &str, headers: &[(&'static str, &'static str)]) -> bool {
        let declared = [
            ParamHeader {
                header: "mcp-param-region".into(),
                path: vec!["region".into()],
            },
            ParamHeader {
                header: "mcp-param-n".into(),
                path: vec!["deep".into(), "n".into()],
            },
        ];
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        let header = |name: &str| map.get_all(name).iter().collect();
        params_agree(&declared, header, Some(arguments.as_bytes())).is_ok()
    }

    #[test]
    fn arguments_and_their_headers() {
        assert!(agree("{}", &[]));
        assert!(agree(r#"{"region":null}"#, &[]));
        assert!(agree(r#"{"region":"eu"}"#, &[("mcp-param-region", "eu")]));
        assert!(agree(
            r#"{"region":"Hello"}"#,
            &[("mcp-param-region", "=?base64?SGVsbG8=?=")]
        ));
        assert!(agree(r#"{"deep":{"n":42}}"#, &[("mcp-param-n", "42.0")]));
        assert!(!agree(r#"{"region":"eu"}"#, &[]));
        assert!(!agree(r#"{"region":"eu"}"#, &[("mcp-param-region", "us")]));
        assert!(!agree(
            r#"{"region":"eu"}"#,
            &[("mcp-param-region", "=?base64?ZXU?=")]
        ));
        assert!(!agree("{}", &[("mcp-param-region", "eu")]));
        assert!(!agree(
            r#"{"region":"eu","region":"us"}"#,
            &[("mcp-param-region", "us")]
        ));
        let twice = [("mcp-param-region", "eu"), ("mcp-param-region", "eu")];
        assert!(!agree(r#"{"region":"eu"}"#, &twice));
        assert!(!agree(r#"{"deep":{"n":42}}"#, &[("mcp-param-n", "43")]));
        let large = r#"{"deep":{"n":9007199254740993}}"#;
        assert!(agree(large, &[("mcp-param-n", "9007199254740993")]));
        assert!(!agree(large, &[("mcp-param-n", "9007199254740992")]));
    }
}
