//! JSON-RPC messages of revision 2026-07-28, written and read; JSON that is not ours stays raw.

use std::borrow::Cow;

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

/// The one revision that this client speaks.
pub const REVISION: &str = "2026-07-28";

/// One request: a method, the members of its `params`, and what the caller wants to hear meanwhile.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// `tools/call` and so on.
    pub method: &'a str,
    /// Members of `params`, without `_meta`.
    pub params: Vec<(&'a str, Box<RawValue>)>,
    /// Ask for progress notifications.
    pub progress: bool,
    /// Ask for log notifications from this level on.
    pub log_level: Option<&'a str>,
}

impl<'a> Request<'a> {
    /// Without parameters.
    #[must_use]
    pub fn new(method: &'a str) -> Self {
        Self {
            method,
            params: Vec::new(),
            progress: false,
            log_level: None,
        }
    }

    /// With one more member of raw JSON.
    #[must_use]
    pub fn with(mut self, key: &'a str, value: Box<RawValue>) -> Self {
        self.params.push((key, value));
        self
    }

    /// With one more member that is a string.
    #[must_use]
    pub fn with_text(self, key: &'a str, value: &str) -> Self {
        self.with(key, text(value))
    }

    /// One line with its terminator. `id` also serves as the progress token.
    pub(super) fn line(&self, id: u64) -> Vec<u8> {
        let message = Outgoing {
            jsonrpc: "2.0",
            id,
            method: self.method,
            params: Params { request: self, id },
        };
        line_of(&message)
    }
}

/// A JSON string as raw JSON.
pub fn text(value: &str) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).expect("a string can always be written as JSON")
}

/// `notifications/cancelled` as a line.
pub fn cancelled(id: u64, reason: &str) -> Vec<u8> {
    line_of(&serde_json::json!({
        "jsonrpc": "2.0",
        "method": "notifications/cancelled",
        "params": { "requestId": id, "reason": reason },
    }))
}

fn line_of(message: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).expect("keys are strings and raw JSON is valid");
    // Between JSON tokens a line break is white space, inside a string it cannot be: raw JSON that a
    // person wrote over several lines becomes one line with the same meaning.
    for byte in &mut line {
        if matches!(*byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    line.push(b'\n');
    line
}

#[derive(Serialize)]
struct Outgoing<'a> {
    jsonrpc: &'static str,
    id: u64,
    method: &'a str,
    params: Params<'a>,
}

struct Params<'a> {
    request: &'a Request<'a>,
    id: u64,
}

impl Serialize for Params<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (key, value) in &self.request.params {
            map.serialize_entry(key, value)?;
        }
        map.serialize_entry(
            "_meta",
            &Meta {
                version: REVISION,
                capabilities: Empty {},
                info: Info {
                    name: "countersign",
                    version: env!("CARGO_PKG_VERSION"),
                },
                progress: self.request.progress.then_some(self.id),
                log_level: self.request.log_level,
            },
        )?;
        map.end()
    }
}

#[derive(Serialize)]
struct Meta<'a> {
    #[serde(rename = "io.modelcontextprotocol/protocolVersion")]
    version: &'static str,
    #[serde(rename = "io.modelcontextprotocol/clientCapabilities")]
    capabilities: Empty,
    #[serde(rename = "io.modelcontextprotocol/clientInfo")]
    info: Info,
    #[serde(rename = "progressToken", skip_serializing_if = "Option::is_none")]
    progress: Option<u64>,
    #[serde(
        rename = "io.modelcontextprotocol/logLevel",
        skip_serializing_if = "Option::is_none"
    )]
    log_level: Option<&'a str>,
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
struct Info {
    name: &'static str,
    version: &'static str,
}

/// What a server says while a request runs.
#[derive(Clone, Debug)]
pub enum Event {
    /// `notifications/progress` of this request.
    Progress {
        /// How far it is.
        progress: f64,
        /// How far it goes, where that is known.
        total: Option<f64>,
        /// For people.
        message: Option<String>,
    },
    /// `notifications/message`.
    Log {
        /// A level of RFC 5424, as the server wrote it.
        level: String,
        /// Who says it.
        logger: Option<String>,
        /// What is said, any JSON.
        data: Box<RawValue>,
    },
}

/// A JSON-RPC error, as the server wrote it.
#[derive(Clone, Debug, Deserialize)]
pub struct RpcError {
    /// The error code.
    pub code: i64,
    /// One line for people.
    #[serde(default)]
    pub message: String,
    /// Raw JSON, where there is some.
    #[serde(default)]
    pub data: Option<Box<RawValue>>,
}

/// A line from the server, sorted by what it is to the one request that is running.
#[derive(Debug)]
pub enum Incoming {
    /// Its result.
    Result(Box<RawValue>),
    /// Its error, or one without an id, which can only be about what we sent last.
    Error(RpcError),
    /// A notification on the way.
    Event(Event),
    /// For somebody else: a late answer, a notification that we did not ask for.
    Other,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(default)]
    error: Option<RpcError>,
}

/// Reads one line; `id` is that of the running request. `None` for a line of white space.
///
/// # Errors
/// The line is not a JSON-RPC message.
pub fn read(line: &[u8], id: u64) -> Result<Option<Incoming>, String> {
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    let envelope: Envelope<'_> = serde_json::from_slice(line).map_err(|cause| cause.to_string())?;
    if let Some(method) = envelope.method {
        return Ok(Some(notification(&method, envelope.params, id)));
    }
    let ours = envelope.id.is_some_and(|got| got.get() == id.to_string());
    Ok(Some(match (envelope.result, envelope.error) {
        (_, Some(error)) if ours || envelope.id.is_none() => Incoming::Error(error),
        (Some(result), None) if ours => Incoming::Result(result.to_owned()),
        (None, None) => {
            return Err("a message with neither a method nor a result nor an error".to_owned());
        }
        _ => Incoming::Other,
    }))
}

fn notification(method: &str, params: Option<&RawValue>, id: u64) -> Incoming {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Progress {
        progress_token: Box<RawValue>,
        progress: f64,
        total: Option<f64>,
        message: Option<String>,
    }
    #[derive(Deserialize)]
    struct Log {
        level: String,
        logger: Option<String>,
        data: Box<RawValue>,
    }
    let Some(params) = params.map(RawValue::get) else {
        return Incoming::Other;
    };
    match method {
        "notifications/progress" => match serde_json::from_str::<Progress>(params) {
            Ok(p) if p.progress_token.get() == id.to_string() => Incoming::Event(Event::Progress {
                progress: p.progress,
                total: p.total,
                message: p.message,
            }),
            _ => Incoming::Other,
        },
        "notifications/message" => match serde_json::from_str::<Log>(params) {
            Ok(log) => Incoming::Event(Event::Log {
                level: log.level,
                logger: log.logger,
                data: log.data,
            }),
            Err(_) => Incoming::Other,
        },
        _ => Incoming::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_request_is_one_line_with_the_metadata_of_its_revision() {
        let raw =
            RawValue::from_string("{\n  \"n\": 1.50,\r\n \"s\": \"a\\nb\"\n}".to_owned()).unwrap();
        let mut request = Request::new("tools/call")
            .with_text("name", "a\"b")
            .with("arguments", raw);
        request.progress = true;
        let line = request.line(7);
        assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1);
        assert!(line.ends_with(b"\n"));
        // The number keeps its digits: raw JSON is not parsed and written again.
        assert!(String::from_utf8_lossy(&line).contains("1.50"));
        let value: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(value["params"]["name"], "a\"b");
        assert_eq!(value["params"]["arguments"], json!({"n": 1.5, "s": "a\nb"}));
        assert_eq!(
            value["params"]["_meta"],
            json!({
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientCapabilities": {},
                "io.modelcontextprotocol/clientInfo": {"name": "countersign", "version": env!("CARGO_PKG_VERSION")},
                "progressToken": 7,
            })
        );
    }

    #[test]
    fn sorts_lines_by_what_they_are_to_the_running_request() {
        let kind = |line: &str| match read(line.as_bytes(), 7) {
            Ok(None) => "blank",
            Err(_) => "bad",
            Ok(Some(Incoming::Result(_))) => "result",
            Ok(Some(Incoming::Error(_))) => "error",
            Ok(Some(Incoming::Event(_))) => "event",
            Ok(Some(Incoming::Other)) => "other",
        };
        for (line, expected) in [
            (r#"{"jsonrpc":"2.0","id":7,"result":{}}"#, "result"),
            (
                "\u{feff}{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{}}",
                "result",
            ),
            (r#"{"jsonrpc":"2.0","id":"7","result":{}}"#, "other"),
            (r#"{"jsonrpc":"2.0","id":6,"result":{}}"#, "other"),
            (
                r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32602,"message":"no"}}"#,
                "error",
            ),
            (
                r#"{"jsonrpc":"2.0","error":{"code":-32700,"message":"no"}}"#,
                "error",
            ),
            (
                r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"no"}}"#,
                "error",
            ),
            (
                r#"{"jsonrpc":"2.0","id":6,"error":{"code":-32602,"message":"no"}}"#,
                "other",
            ),
            (
                r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":7,"progress":1}}"#,
                "event",
            ),
            (
                r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":8,"progress":1}}"#,
                "other",
            ),
            (
                r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":[1]}}"#,
                "event",
            ),
            (r#"{"jsonrpc":"2.0","id":1,"method":"roots/list"}"#, "other"),
            (" \r\n", "blank"),
            ("{}", "bad"),
            ("[]", "bad"),
            ("hello", "bad"),
        ] {
            assert_eq!(kind(line), expected, "{line}");
        }
    }
}
