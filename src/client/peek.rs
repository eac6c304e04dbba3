//! What one line is: its envelope only. A line that cannot be read is passed on all the same.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

/// What the bridge needs to know of a line.
#[derive(Debug, PartialEq, Eq)]
pub enum Peek {
    /// A request that will be answered.
    Request { id: Id, method: String },
    /// A response to the other side's request.
    Response { id: Id },
    /// `notifications/cancelled`: this request will not be answered.
    Cancelled { id: Id },
    /// `notifications/initialized`.
    Initialized,
    /// Another notification, a batch, white space, or nothing that we understand.
    Other,
}

/// A JSON-RPC id: its token as it was written, and a key that equals that of every other way to
/// write the same id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Id {
    /// Raw JSON.
    pub token: String,
    /// `"1"` and `1` differ; two ways to escape one string do not.
    pub key: String,
}

impl Id {
    /// The id that this JSON is; none for what is no id.
    pub fn of(raw: &RawValue) -> Option<Self> {
        let token = raw.get();
        let key = match token.as_bytes().first()? {
            b'"' => format!("s{}", serde_json::from_str::<String>(token).ok()?),
            b'-' | b'0'..=b'9' => format!("n{token}"),
            _ => return None,
        };
        Some(Self {
            token: token.to_owned(),
            key,
        })
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
}

/// Looks at a line.
pub fn peek(line: &[u8]) -> Peek {
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
    let Ok(envelope) = serde_json::from_slice::<Envelope<'_>>(line) else {
        return Peek::Other;
    };
    let id = envelope.id.and_then(Id::of);
    match (envelope.method, id) {
        (Some(method), Some(id)) => Peek::Request {
            id,
            method: method.into_owned(),
        },
        (None, Some(id)) => Peek::Response { id },
        (Some(method), None) => match &*method {
            "notifications/initialized" => Peek::Initialized,
            "notifications/cancelled" => cancelled(envelope.params),
            _ => Peek::Other,
        },
        (None, None) => Peek::Other,
    }
}

fn cancelled(params: Option<&RawValue>) -> Peek {
    #[derive(Deserialize)]
    struct Params<'a> {
        #[serde(borrow, rename = "requestId")]
        id: &'a RawValue,
    }
    params
        .and_then(|raw| serde_json::from_str::<Params<'_>>(raw.get()).ok())
        .and_then(|params| Id::of(params.id))
        .map_or(Peek::Other, |id| Peek::Cancelled { id })
}

/// `result.protocolVersion` of an answer to `initialize`; the error's message otherwise.
pub fn negotiated(line: &[u8]) -> Result<String, String> {
    #[derive(Deserialize)]
    struct Answer {
        result: Option<Agreed>,
        error: Option<Refused>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Agreed {
        protocol_version: String,
    }
    #[derive(Deserialize)]
    struct Refused {
        #[serde(default)]
        message: String,
    }
    let answer: Answer = serde_json::from_slice(line).map_err(|cause| cause.to_string())?;
    match (answer.result, answer.error) {
        (Some(agreed), None) => Ok(agreed.protocol_version),
        (_, Some(refused)) => Err(refused.message),
        (None, None) => Err("neither a result nor an error".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(token: &str, key: &str) -> Id {
        Id {
            token: token.to_owned(),
            key: key.to_owned(),
        }
    }

    #[test]
    fn tells_lines_apart() {
        for (line, expected) in [
            (
                r#"{"id":1,"method":"a\u002fb"}"#,
                Peek::Request {
                    id: id("1", "n1"),
                    method: "a/b".into(),
                },
            ),
            (
                r#"{"id":"1","method":"a"}"#,
                Peek::Request {
                    id: id("\"1\"", "s1"),
                    method: "a".into(),
                },
            ),
            (
                r#"{"result":{"id":5},"id":"\u0061"}"#,
                Peek::Response {
                    id: id("\"\\u0061\"", "sa"),
                },
            ),
            (
                r#"{"id":2,"error":{}}"#,
                Peek::Response { id: id("2", "n2") },
            ),
            (
                r#"{"method":"notifications/initialized"}"#,
                Peek::Initialized,
            ),
            (
                r#"{"method":"notifications/cancelled","params":{"requestId":7}}"#,
                Peek::Cancelled { id: id("7", "n7") },
            ),
            (
                r#"{"method":"notifications/cancelled","params":{}}"#,
                Peek::Other,
            ),
            (
                r#"{"method":"notifications/x","params":{"id":1}}"#,
                Peek::Other,
            ),
            (r#"{"id":null,"error":{"code":1}}"#, Peek::Other),
            (r#"[{"id":1,"method":"a"}]"#, Peek::Other),
            ("", Peek::Other),
            ("not json", Peek::Other),
        ] {
            assert_eq!(peek(line.as_bytes()), expected, "{line}");
        }
        assert_eq!(
            peek(b"\xef\xbb\xbf{\"method\":\"notifications/initialized\"}\r\n"),
            Peek::Initialized
        );
    }
}
