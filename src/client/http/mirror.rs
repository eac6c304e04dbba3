//! The headers of revision 2026-07-28 that repeat parts of the body: `Mcp-Method`, `Mcp-Name` and
//! `Mcp-Param-*`. A server refuses a request whose headers do not say what its body says.

use std::borrow::Cow;
use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::client::peek::Id;

/// Tools whose parameter headers are remembered. A tool beyond them is called without.
const MOST_TOOLS: usize = 4096;
/// Parameters of one tool that have headers.
const MOST_PARAMETERS: usize = 64;
/// How deep a parameter may lie in a schema.
const DEEPEST: usize = 16;

/// What a line is to HTTP.
#[derive(Debug)]
pub struct Head {
    /// Of a request or response.
    pub id: Option<Id>,
    /// Of a request or notification.
    pub method: Option<String>,
    /// The revision that the request itself names: it is a modern one.
    pub revision: Option<String>,
    /// What `Mcp-Name` repeats.
    pub name: Option<String>,
    arguments: Option<Box<RawValue>>,
    /// `params.requestId` of a cancellation.
    pub cancels: Option<Id>,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Params<'a> {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    uri: Option<String>,
    #[serde(default)]
    task_id: Option<String>,
    #[serde(borrow, default)]
    request_id: Option<&'a RawValue>,
    #[serde(default)]
    arguments: Option<Box<RawValue>>,
    #[serde(rename = "_meta", default)]
    meta: Option<Meta>,
}

#[derive(Deserialize)]
struct Meta {
    #[serde(rename = "io.modelcontextprotocol/protocolVersion", default)]
    revision: Option<String>,
}

impl Head {
    /// Looks at a line; what cannot be read has no head, and the server will say what is wrong.
    pub fn of(line: &[u8]) -> Self {
        let mut head = Self {
            id: None,
            method: None,
            revision: None,
            name: None,
            arguments: None,
            cancels: None,
        };
        let Ok(line) = serde_json::from_slice::<Line<'_>>(line) else {
            return head;
        };
        head.id = line.id.and_then(Id::of);
        head.method = line.method.map(Cow::into_owned);
        let params = line
            .params
            .and_then(|raw| serde_json::from_str::<Params<'_>>(raw.get()).ok());
        let Some(params) = params else { return head };
        head.revision = params.meta.and_then(|meta| meta.revision);
        match head.method.as_deref() {
            Some("tools/call") => {
                head.name = params.name;
                head.arguments = params.arguments;
            }
            Some("prompts/get") => head.name = params.name,
            Some("resources/read") => head.name = params.uri,
            Some("tasks/get" | "tasks/update" | "tasks/cancel") => head.name = params.task_id,
            Some("notifications/cancelled") => head.cancels = params.request_id.and_then(Id::of),
            _ => (),
        }
        head
    }

    /// Whether an answer is to come.
    pub const fn is_request(&self) -> bool {
        self.id.is_some() && self.method.is_some()
    }

    /// Whether this is the named method.
    pub fn is(&self, method: &str) -> bool {
        self.method.as_deref() == Some(method)
    }

    /// Adds the headers of a modern request.
    pub fn mirror(&self, headers: &mut HeaderMap, known: &Parameters) {
        let mut put = |name: &str, value: &str| {
            let name = HeaderName::from_bytes(name.as_bytes());
            if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(&encode(value))) {
                headers.insert(name, value);
            }
        };
        if let Some(method) = &self.method {
            put("mcp-method", method);
        }
        let Some(name) = &self.name else { return };
        put("mcp-name", name);
        let parameters = known.0.get(name).map_or(&[][..], Vec::as_slice);
        let arguments = self.arguments.as_ref().filter(|_| !parameters.is_empty());
        let Some(Ok(arguments)) = arguments.map(|raw| serde_json::from_str::<Value>(raw.get()))
        else {
            return;
        };
        for parameter in parameters {
            let value = parameter
                .path
                .iter()
                .try_fold(&arguments, |value, key| value.get(key));
            if let Some(text) = value.and_then(written) {
                put(&parameter.header, &text);
            }
        }
    }
}

/// A value as a header writes it; nothing for what has no header.
fn written(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A header can carry visible ASCII with spaces inside; everything else goes as base64, and so does
/// what would be taken for it.
fn encode(value: &str) -> Cow<'_, str> {
    let plain = value.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let trimmed = value.trim_ascii().len() == value.len();
    let marked = value.starts_with("=?base64?") && value.ends_with("?=");
    if plain && trimmed && !marked {
        return Cow::Borrowed(value);
    }
    Cow::Owned(format!("=?base64?{}?=", STANDARD.encode(value)))
}

/// Which arguments of which tools are repeated in headers.
#[derive(Debug, Default)]
pub struct Parameters(HashMap<String, Vec<Parameter>>);

#[derive(Debug, PartialEq, Eq)]
struct Parameter {
    path: Vec<String>,
    header: String,
}

impl Parameters {
    /// Whether something is known of this tool.
    pub fn know(&self, tool: &str) -> bool {
        self.0.contains_key(tool)
    }

    /// Learns from an answer to `tools/list`. Gives the next page's cursor.
    pub fn learn(&mut self, message: &[u8]) -> Option<String> {
        #[derive(Deserialize)]
        struct Answer {
            result: List,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct List {
            #[serde(default)]
            tools: Vec<Tool>,
            next_cursor: Option<String>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Tool {
            name: String,
            #[serde(default)]
            input_schema: Value,
        }
        let answer: Answer = serde_json::from_slice(message).ok()?;
        for tool in answer.result.tools {
            let mut found = Vec::new();
            search(&tool.input_schema, &mut Vec::new(), &mut found);
            if self.0.len() < MOST_TOOLS || self.0.contains_key(&tool.name) {
                self.0.insert(tool.name, found);
            }
        }
        answer.result.next_cursor
    }
}

/// Finds `x-mcp-header` below `properties`, and there only.
fn search(schema: &Value, path: &mut Vec<String>, found: &mut Vec<Parameter>) {
    let properties = schema.get("properties").and_then(Value::as_object);
    for (name, property) in properties.into_iter().flatten() {
        if path.len() >= DEEPEST || found.len() >= MOST_PARAMETERS {
            return;
        }
        path.push(name.clone());
        if let Some(header) = property.get("x-mcp-header").and_then(Value::as_str) {
            found.push(Parameter {
                path: path.clone(),
                header: format!("mcp-param-{header}"),
            });
        }
        search(property, path, found);
        path.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirrored(line: &str, known: &Parameters) -> Vec<(String, String)> {
        let mut headers = HeaderMap::new();
        Head::of(line.as_bytes()).mirror(&mut headers, known);
        let pair = |(name, value): (&HeaderName, &HeaderValue)| {
            (name.to_string(), value.to_str().unwrap().to_owned())
        };
        headers.iter().map(pair).collect()
    }

    #[test]
    fn the_headers_repeat_what_the_body_says() {
        let mut known = Parameters::default();
        let list = r#"{"result":{"tools":[{"name":"t","inputSchema":{"type":"object","properties":{
            "region":{"type":"string","x-mcp-header":"Region"},"plain":{"type":"string"},
            "deep":{"type":"object","properties":{"n":{"type":"integer","x-mcp-header":"N"}}}}}}],
            "nextCursor":"c"}}"#;
        assert_eq!(known.learn(list.as_bytes()).as_deref(), Some("c"));
        assert!(known.know("t") && !known.know("u"));
        let call = |arguments: &str| {
            let line = format!(
                r#"{{"id":1,"method":"tools/call","params":{{"name":"t","arguments":{arguments}}}}}"#
            );
            let all = mirrored(&line, &known);
            assert_eq!(
                all[..2],
                [
                    ("mcp-method".into(), "tools/call".into()),
                    ("mcp-name".into(), "t".into())
                ]
            );
            all[2..]
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            call(r#"{"region":"eu","plain":"x","deep":{"n":-4}}"#),
            ["mcp-param-n=-4", "mcp-param-region=eu"]
        );
        assert_eq!(call(r#"{"region":null}"#), [""; 0]);
        assert_eq!(
            call(r#"{"region":"ü"}"#),
            ["mcp-param-region==?base64?w7w=?="]
        );
        for (line, name) in [
            (
                r#"{"id":1,"method":"resources/read","params":{"uri":"file:///a"}}"#,
                "file:///a",
            ),
            (
                r#"{"id":1,"method":"prompts/get","params":{"name":" p"}}"#,
                "=?base64?IHA=?=",
            ),
            (
                r#"{"id":1,"method":"tasks/get","params":{"taskId":"7"}}"#,
                "7",
            ),
        ] {
            assert_eq!(
                mirrored(line, &known)[1],
                ("mcp-name".to_owned(), name.to_owned())
            );
        }
        assert_eq!(
            mirrored(r#"{"id":1,"method":"tools/list"}"#, &known).len(),
            1
        );
        assert!(mirrored("[]", &known).is_empty());
    }

    #[test]
    fn what_looks_encoded_is_encoded() {
        assert_eq!(encode("a b"), "a b");
        assert_eq!(encode("=?base64?YQ==?="), "=?base64?PT9iYXNlNjQ/WVE9PT89?=");
        assert_eq!(encode("a\n"), "=?base64?YQo=?=");
        assert_eq!(encode(""), "");
    }
}
