//! The shapes that the server itself answers with, and what each era wants around a result.

use crate::jsonrpc::{AROUND_RESULT, RpcError, begin_result, code, end_result, write_string};

use super::method::Method;
use super::revision::Revision;

/// What the server says of itself, encoded once.
#[derive(Clone, Debug)]
pub struct ServerInfo {
    /// `Implementation`, raw JSON.
    implementation: String,
    instructions: Option<String>,
    /// `,"_meta":{"io.modelcontextprotocol/serverInfo":…}`: the end of every modern result.
    tail: String,
}

/// What is offered at all; it does not depend on who asks, so that it betrays nothing.
const CAPABILITIES: &str = r#"{"completions":{},"logging":{},"prompts":{"listChanged":true},"resources":{"listChanged":true,"subscribe":true},"tools":{"listChanged":true}}"#;

/// How a result is finished.
#[derive(Clone, Copy, Debug)]
pub struct Finish {
    /// The revision that it goes out in.
    pub revision: Revision,
    /// The method, which says whether cache hints belong to it.
    pub method: Method,
    /// `ttlMs`, milliseconds.
    pub ttl_ms: u32,
    /// Whether it is `input_required` instead of `complete`.
    pub input_required: bool,
}

impl ServerInfo {
    /// `name` and `title` of the `Implementation`; instructions for models.
    #[must_use]
    pub fn new(name: &str, title: Option<&str>, version: &str, instructions: Option<&str>) -> Self {
        let mut json = Vec::from(&br#"{"name":"#[..]);
        write_string(&mut json, name);
        if let Some(title) = title {
            json.extend_from_slice(br#","title":"#);
            write_string(&mut json, title);
        }
        json.extend_from_slice(br#","version":"#);
        write_string(&mut json, version);
        json.push(b'}');
        let implementation = String::from_utf8_lossy(&json).into_owned();
        let tail = format!(r#","_meta":{{"io.modelcontextprotocol/serverInfo":{implementation}}}"#);
        Self {
            implementation,
            instructions: instructions.map(str::to_owned),
            tail,
        }
    }

    /// Appends a whole result message. `members` appends those of the result, without braces; `len`
    /// is about how many bytes that will be, and 0 where there are none.
    pub fn write(
        &self,
        out: &mut Vec<u8>,
        id: &[u8],
        finish: Finish,
        len: usize,
        members: impl FnOnce(&mut Vec<u8>),
    ) {
        let (kind, tail) = match (finish.revision.is_modern(), finish.input_required) {
            (false, _) => ("", ""),
            (true, false) => (r#""resultType":"complete""#, &*self.tail),
            (true, true) => (r#""resultType":"input_required""#, &*self.tail),
        };
        let comma = if kind.is_empty() || len == 0 { "" } else { "," };
        let mut hints = String::new();
        if !kind.is_empty() && finish.method.is_cacheable() && !finish.input_required {
            // Everything is filtered by the caller's certificate, so nobody else may be shown it.
            hints = format!(r#","cacheScope":"private","ttlMs":{}"#, finish.ttl_ms);
        }
        let around = id.len() + kind.len() + comma.len() + hints.len() + tail.len();
        let all = AROUND_RESULT + around + len;
        if out.capacity() == 0 {
            // A message of its own: with no room to spare it becomes `Bytes` as it is.
            out.reserve_exact(all);
        } else {
            out.reserve(all);
        }
        begin_result(out, id);
        out.extend_from_slice(kind.as_bytes());
        out.extend_from_slice(comma.as_bytes());
        members(out);
        out.extend_from_slice(hints.as_bytes());
        out.extend_from_slice(tail.as_bytes());
        end_result(out);
    }

    /// Members of `InitializeResult`.
    #[must_use]
    pub fn initialize(&self, revision: Revision) -> Vec<u8> {
        let mut out = format!(
            r#""protocolVersion":"{revision}","capabilities":{CAPABILITIES},"serverInfo":{}"#,
            self.implementation
        )
        .into_bytes();
        self.write_instructions(&mut out);
        out
    }

    /// Members of `DiscoverResult`.
    #[must_use]
    pub fn discover(&self) -> Vec<u8> {
        let versions = versions();
        let mut out =
            format!(r#""supportedVersions":{versions},"capabilities":{CAPABILITIES}"#).into_bytes();
        self.write_instructions(&mut out);
        out
    }

    fn write_instructions(&self, out: &mut Vec<u8>) {
        if let Some(text) = &self.instructions {
            out.extend_from_slice(br#","instructions":"#);
            write_string(out, text);
        }
    }
}

fn versions() -> String {
    let list = Revision::SERVED.map(|revision| format!("\"{revision}\""));
    format!("[{}]", list.join(","))
}

/// -32022 with what is supported.
#[must_use]
pub fn unsupported_version(requested: &str) -> RpcError {
    let mut data = format!(r#"{{"supported":{},"requested":"#, versions()).into_bytes();
    write_string(&mut data, requested);
    data.push(b'}');
    RpcError {
        code: code::UNSUPPORTED_VERSION,
        message: "unsupported protocol version".to_owned(),
        data: Some(String::from_utf8_lossy(&data).into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn written(revision: Revision, method: Method, members: &[u8]) -> Value {
        let info = ServerInfo::new("n", Some("t"), "1", None);
        let mut out = Vec::new();
        let finish = Finish {
            revision,
            method,
            ttl_ms: 5,
            input_required: false,
        };
        info.write(&mut out, b"1", finish, members.len(), |out| {
            out.extend_from_slice(members)
        });
        assert_eq!(out.len(), out.capacity());
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn each_era_gets_its_own_wrapping() {
        let info = json!({"name":"n","title":"t","version":"1"});
        assert_eq!(
            written(Revision::V2025_11_25, Method::ToolsList, br#""tools":[]"#),
            json!({"jsonrpc":"2.0","id":1,"result":{"tools":[]}})
        );
        assert_eq!(
            written(Revision::V2026_07_28, Method::ToolsList, br#""tools":[]"#),
            json!({"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","tools":[],
                "ttlMs":5,"cacheScope":"private",
                "_meta":{"io.modelcontextprotocol/serverInfo":info}}})
        );
        assert_eq!(
            written(Revision::V2026_07_28, Method::ToolsCall, b""),
            json!({"jsonrpc":"2.0","id":1,"result":{"resultType":"complete",
                "_meta":{"io.modelcontextprotocol/serverInfo":info}}})
        );
    }
}
