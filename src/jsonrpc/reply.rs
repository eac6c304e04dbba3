//! Writing replies by splicing raw slices, without a tree in between.

/// JSON-RPC and MCP error codes, and our own (outside -32768…-32000, as the specification asks).
pub mod code {
    /// Not JSON.
    pub const PARSE_ERROR: i64 = -32700;
    /// Not a request that we serve.
    pub const INVALID_REQUEST: i64 = -32600;
    /// No such method, or one that no capability announces.
    pub const METHOD_NOT_FOUND: i64 = -32601;
    /// Wrong parameters, and unknown tools, prompts and (modern) resources.
    pub const INVALID_PARAMS: i64 = -32602;
    /// Our fault.
    pub const INTERNAL: i64 = -32603;
    /// Unknown resource, in revisions before 2026-07-28.
    pub const RESOURCE_NOT_FOUND: i64 = -32002;
    /// The HTTP headers say something else than the body (2026-07-28).
    pub const HEADER_MISMATCH: i64 = -32020;
    /// The client did not declare a capability that the call needs (2026-07-28).
    pub const MISSING_CAPABILITY: i64 = -32021;
    /// A revision that is not served (2026-07-28).
    pub const UNSUPPORTED_VERSION: i64 = -32022;
    /// Ours: denied by policy, where `denials = "explain"`.
    pub const DENIED: i64 = 4403;
    /// Ours: over a limit.
    pub const RATE_LIMITED: i64 = 4429;
    /// Ours: refused because a part that the call depends on (the audit log, the registry) is out.
    pub const UNAVAILABLE: i64 = 4503;
}

/// An error as it is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RpcError {
    /// See [`code`].
    pub code: i64,
    /// For people.
    pub message: String,
    /// Raw JSON.
    pub data: Option<String>,
}

impl RpcError {
    /// An error without data.
    #[must_use]
    pub fn new(code: i64, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            data: None,
        }
    }
}

/// Appends a JSON string, escaped.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut from = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0x00..=0x1f => {
                out.extend_from_slice(&text.as_bytes()[from..at]);
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 15)]);
                from = at + 1;
                continue;
            }
            _ => continue,
        };
        out.extend_from_slice(&text.as_bytes()[from..at]);
        out.extend_from_slice(escape);
        from = at + 1;
    }
    out.extend_from_slice(&text.as_bytes()[from..]);
    out.push(b'"');
}

const RESULT: [&[u8]; 3] = [br#"{"jsonrpc":"2.0","id":"#, br#","result":{"#, b"}}"];

/// Bytes of a result message beside its id and its members.
pub const AROUND_RESULT: usize = RESULT[0].len() + RESULT[1].len() + RESULT[2].len();

/// Appends a result up to the opening brace of its object; the members come next, and
/// [`end_result`].
pub fn begin_result(out: &mut Vec<u8>, id: &[u8]) {
    out.extend_from_slice(RESULT[0]);
    out.extend_from_slice(id);
    out.extend_from_slice(RESULT[1]);
}

/// Appends the end of what [`begin_result`] began.
pub fn end_result(out: &mut Vec<u8>) {
    out.extend_from_slice(RESULT[2]);
}

/// Appends an error; without an id where none could be read (revision 2025-11-25 and later leave
/// the member out).
pub fn write_error(out: &mut Vec<u8>, id: Option<&[u8]>, error: &RpcError) {
    out.extend_from_slice(br#"{"jsonrpc":"2.0""#);
    if let Some(id) = id {
        out.extend_from_slice(br#","id":"#);
        out.extend_from_slice(id);
    }
    out.extend_from_slice(br#","error":{"code":"#);
    out.extend_from_slice(error.code.to_string().as_bytes());
    out.extend_from_slice(br#","message":"#);
    write_string(out, &error.message);
    if let Some(data) = &error.data {
        out.extend_from_slice(br#","data":"#);
        out.extend_from_slice(data.as_bytes());
    }
    out.extend_from_slice(b"}}");
}

/// Appends a notification. `params`: raw members of the params object, without its braces.
pub fn write_notification(out: &mut Vec<u8>, method: &str, params: &[u8]) {
    out.extend_from_slice(br#"{"jsonrpc":"2.0","method":"#);
    write_string(out, method);
    if !params.is_empty() {
        out.extend_from_slice(br#","params":{"#);
        out.extend_from_slice(params);
        out.push(b'}');
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_survive_the_trip() {
        for text in ["", "a\"b\\c\n\r\t\u{1}\u{1f}é😀\u{2028}", "plain"] {
            let mut out = Vec::new();
            write_string(&mut out, text);
            assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }

    #[test]
    fn replies_are_json() {
        let mut out = Vec::new();
        begin_result(&mut out, b"7");
        out.extend_from_slice(br#""a":1,"b":2"#);
        end_result(&mut out);
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(
            value,
            serde_json::json!({"jsonrpc":"2.0","id":7,"result":{"a":1,"b":2}})
        );
        out.clear();
        let error = RpcError {
            code: -1,
            message: "no \"x\"".into(),
            data: Some("[1]".into()),
        };
        write_error(&mut out, None, &error);
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(
            value,
            serde_json::json!({"jsonrpc":"2.0","error":{"code":-1,"message":"no \"x\"","data":[1]}})
        );
        out.clear();
        write_notification(&mut out, "notifications/x", br#""u":1"#);
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(
            value,
            serde_json::json!({"jsonrpc":"2.0","method":"notifications/x","params":{"u":1}})
        );
    }
}
