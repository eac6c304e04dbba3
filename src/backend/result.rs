//! What providers answer with, and how it is written as JSON (without the keys that depend on the
//! era: `resultType`, `ttlMs`, `cacheScope`, `_meta.serverInfo`, which the session splices in).

use bytes::Bytes;

use crate::jsonrpc::RpcError;

use super::encode;

/// One content block of a tool result or a prompt message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// `type: "text"`.
    Text(String),
    /// `type: "image"`; bytes are base64-encoded on the way out.
    Image {
        /// The image itself.
        data: Bytes,
        /// `image/png` and the like.
        mime_type: String,
    },
    /// `type: "audio"`; bytes are base64-encoded on the way out.
    Audio {
        /// The sound itself.
        data: Bytes,
        /// `audio/wav` and the like.
        mime_type: String,
    },
    /// `type: "resource_link"`: a resource that the caller may read.
    ResourceLink {
        /// Its URI.
        uri: String,
        /// Its name.
        name: String,
        /// Its type, where it is known.
        mime_type: Option<String>,
    },
    /// `type: "resource"`: a resource with its contents.
    Resource {
        /// Its URI.
        uri: String,
        /// Its type, where it is known.
        mime_type: Option<String>,
        /// Its contents.
        body: Body,
    },
    /// A whole block that is written already, raw JSON of an object.
    Raw(Bytes),
}

/// Text, or bytes that go out as base64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Member `text`.
    Text(String),
    /// Member `blob`.
    Blob(Bytes),
}

/// `CallToolResult`.
#[derive(Clone, Debug)]
pub enum ToolResult {
    /// Members of the result object as JSON text without the braces and without line breaks:
    /// `"content":[…],"structuredContent":{…}`. One that is an error *begins* with
    /// `"isError":true`, so that nobody has to search for it.
    Encoded(Bytes),
    /// Not written yet.
    Parts {
        /// Content blocks in order.
        content: Vec<Content>,
        /// `structuredContent` as raw JSON (an object: older revisions know nothing else).
        structured: Option<String>,
        /// The tool ran and failed.
        is_error: bool,
    },
}

/// `ReadResourceResult`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadResult {
    /// URI, type and body of each content; never empty.
    pub contents: Vec<(String, Option<String>, Body)>,
}

/// `GetPromptResult`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptResult {
    /// What the prompt is for.
    pub description: Option<String>,
    /// Messages with role `user` or `assistant`.
    pub messages: Vec<(&'static str, Content)>,
}

/// Why there is no result. A tool that ran and failed answers a `ToolResult` with `is_error`.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// No such tool, resource or prompt.
    #[error("not found")]
    NotFound,
    /// -32602; the peer gets the text.
    #[error("{0}")]
    InvalidParams(String),
    /// -32603; the text is for the log, the peer gets `internal error`.
    #[error("{0}")]
    Internal(String),
    /// Nobody waits any more.
    #[error("cancelled")]
    Cancelled,
    /// The call cannot go on without answers of the client: `InputRequiredResult` in the modern
    /// era, requests of the server's own in the older ones. The client calls again with
    /// [`super::Context::input_responses`] and [`super::Context::request_state`].
    #[error("input of the client is required")]
    InputRequired {
        /// Key and request, `{"method":…,"params":{…}}` as raw JSON. The method is
        /// `elicitation/create`, `sampling/createMessage` or `roots/list`, and only one that the
        /// client's capabilities declare.
        requests: Vec<(String, String)>,
        /// Comes back with the answers, bound to caller, method and parameters by the session.
        /// There is at least one request or a state.
        state: Option<String>,
    },
    /// An error of the provider's own: the peer gets code, message and data as they are.
    #[error("{}", .0.message)]
    Error(RpcError),
    /// -32021: the client lacks what this call needs; raw JSON of a `ClientCapabilities`.
    #[error("the client lacks capabilities: {0}")]
    MissingCapability(String),
}

impl ToolResult {
    /// Structured content with its JSON also as text, as the specification asks for.
    /// `json`: a valid JSON object.
    #[must_use]
    pub fn structured(json: &str) -> Self {
        let mut out = Vec::with_capacity(json.len() * 2 + json.len() / 4 + 64);
        out.extend_from_slice(b"\"content\":[{\"type\":\"text\",\"text\":");
        encode::json_string(&mut out, json);
        out.extend_from_slice(b"}],\"structuredContent\":");
        encode::raw_json(&mut out, json.as_bytes());
        Self::Encoded(out.into())
    }

    /// One text block.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self::Parts {
            content: vec![Content::Text(text.into())],
            structured: None,
            is_error: false,
        }
    }

    /// One text block that says why the tool failed, for a model to read.
    #[must_use]
    pub fn error(text: impl Into<String>) -> Self {
        Self::Parts {
            content: vec![Content::Text(text.into())],
            structured: None,
            is_error: true,
        }
    }

    /// Whether the tool failed.
    #[must_use]
    pub fn is_error(&self) -> bool {
        match self {
            Self::Encoded(members) => members.starts_with(b"\"isError\":true"),
            Self::Parts { is_error, .. } => *is_error,
        }
    }

    /// About how many bytes [`Self::encode_members`] appends.
    #[must_use]
    pub fn size_hint(&self) -> usize {
        match self {
            Self::Encoded(members) => members.len(),
            Self::Parts {
                content,
                structured,
                ..
            } => {
                let blocks = content.iter().map(Content::size_hint).sum::<usize>();
                blocks + structured.as_ref().map_or(0, String::len) + 64
            }
        }
    }

    /// Appends the members of the result object, without braces.
    pub fn encode_members(&self, out: &mut Vec<u8>) {
        match self {
            Self::Encoded(members) => out.extend_from_slice(members),
            Self::Parts {
                content,
                structured,
                is_error,
            } => {
                if *is_error {
                    out.extend_from_slice(b"\"isError\":true,");
                }
                out.extend_from_slice(b"\"content\":[");
                for (index, block) in content.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    block.encode(out);
                }
                out.push(b']');
                if let Some(structured) = structured {
                    out.extend_from_slice(b",\"structuredContent\":");
                    encode::raw_json(out, structured.as_bytes());
                }
            }
        }
    }
}

impl Content {
    /// About how many bytes it takes as JSON.
    fn size_hint(&self) -> usize {
        let payload = match self {
            Self::Raw(block) => block.len(),
            Self::Text(text) => text.len(),
            Self::Image { data, .. } | Self::Audio { data, .. } => data.len() / 3 * 4,
            Self::ResourceLink { uri, name, .. } => uri.len() + name.len(),
            Self::Resource { uri, body, .. } => {
                uri.len()
                    + match body {
                        Body::Text(text) => text.len(),
                        Body::Blob(data) => data.len() / 3 * 4,
                    }
            }
        };
        payload + 96
    }

    /// Appends the block as a JSON object.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Raw(block) => return encode::raw_json(out, block),
            Self::Text(text) => {
                out.extend_from_slice(b"{\"type\":\"text\",\"text\":");
                encode::json_string(out, text);
            }
            Self::Image { data, mime_type } => encode_media(out, "image", data, mime_type),
            Self::Audio { data, mime_type } => encode_media(out, "audio", data, mime_type),
            Self::ResourceLink {
                uri,
                name,
                mime_type,
            } => {
                out.extend_from_slice(b"{\"type\":\"resource_link\"");
                encode::member(out, "uri", uri);
                encode::member(out, "name", name);
                encode::optional(out, "mimeType", mime_type.as_deref());
            }
            Self::Resource {
                uri,
                mime_type,
                body,
            } => {
                out.extend_from_slice(b"{\"type\":\"resource\",\"resource\":");
                encode_contents(out, uri, mime_type.as_deref(), body);
            }
        }
        out.push(b'}');
    }
}

fn encode_media(out: &mut Vec<u8>, kind: &str, data: &[u8], mime_type: &str) {
    out.push(b'{');
    encode::member(out, "type", kind);
    encode::member(out, "mimeType", mime_type);
    encode::key(out, "data");
    encode::base64_string(out, data);
}

fn encode_contents(out: &mut Vec<u8>, uri: &str, mime_type: Option<&str>, body: &Body) {
    out.push(b'{');
    encode::member(out, "uri", uri);
    encode::optional(out, "mimeType", mime_type);
    match body {
        Body::Text(text) => encode::member(out, "text", text),
        Body::Blob(bytes) => {
            encode::key(out, "blob");
            encode::base64_string(out, bytes);
        }
    }
    out.push(b'}');
}

impl ReadResult {
    /// One content.
    #[must_use]
    pub fn one(uri: impl Into<String>, mime_type: Option<String>, body: Body) -> Self {
        Self {
            contents: vec![(uri.into(), mime_type, body)],
        }
    }

    /// Appends `"contents":[…]`.
    pub fn encode_members(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\"contents\":[");
        for (index, (uri, mime_type, body)) in self.contents.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            encode_contents(out, uri, mime_type.as_deref(), body);
        }
        out.push(b']');
    }
}

impl PromptResult {
    /// Appends `"messages":[…]` and the description.
    pub fn encode_members(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\"messages\":[");
        for (index, (role, content)) in self.messages.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            out.push(b'{');
            encode::member(out, "role", role);
            encode::key(out, "content");
            content.encode(out);
            out.push(b'}');
        }
        out.push(b']');
        encode::optional(out, "description", self.description.as_deref());
    }
}

/// Appends `"inputRequests":{…},"requestState":"…"`: the members of an `InputRequiredResult`, of
/// which each is left out when it is empty.
pub fn encode_input_required(
    out: &mut Vec<u8>,
    requests: &[(String, String)],
    state: Option<&str>,
) {
    if !requests.is_empty() {
        out.extend_from_slice(b"\"inputRequests\":{");
        for (index, (key, request)) in requests.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            encode::json_string(out, key);
            out.push(b':');
            encode::raw_json(out, request.as_bytes());
        }
        out.push(b'}');
    }
    if let Some(state) = state {
        if !requests.is_empty() {
            out.push(b',');
        }
        out.extend_from_slice(b"\"requestState\":");
        encode::json_string(out, state);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object(write: impl Fn(&mut Vec<u8>)) -> Value {
        let mut out = b"{".to_vec();
        write(&mut out);
        out.push(b'}');
        assert!(!out.contains(&b'\n'), "a message is one line");
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn every_kind_of_content_is_written_as_the_schema_says() {
        let link = Content::ResourceLink {
            uri: "u:1".into(),
            name: "n".into(),
            mime_type: None,
        };
        let resource = |body| Content::Resource {
            uri: "u:2".into(),
            mime_type: Some("a/b".into()),
            body,
        };
        let content = vec![
            Content::Text("a \"quoted\"\nline".into()),
            Content::Image {
                data: Bytes::from_static(b"png"),
                mime_type: "image/png".into(),
            },
            Content::Audio {
                data: Bytes::from_static(b"wav!"),
                mime_type: "audio/wav".into(),
            },
            link,
            resource(Body::Text("t".into())),
            resource(Body::Blob(Bytes::from_static(&[0, 255]))),
        ];
        let structured = Some("{\n \"a\": 1\n}".to_owned());
        let result = ToolResult::Parts {
            content,
            structured,
            is_error: true,
        };
        assert!(result.is_error());
        let expected = json!({
            "isError": true,
            "content": [
                {"type": "text", "text": "a \"quoted\"\nline"},
                {"type": "image", "mimeType": "image/png", "data": "cG5n"},
                {"type": "audio", "mimeType": "audio/wav", "data": "d2F2IQ=="},
                {"type": "resource_link", "uri": "u:1", "name": "n"},
                {"type": "resource", "resource": {"uri": "u:2", "mimeType": "a/b", "text": "t"}},
                {"type": "resource", "resource": {"uri": "u:2", "mimeType": "a/b", "blob": "AP8="}},
            ],
            "structuredContent": {"a": 1},
        });
        assert_eq!(object(|out| result.encode_members(out)), expected);
    }

    #[test]
    fn structured_content_is_there_twice() {
        let result = ToolResult::structured(r#"{"a":"x\ny"}"#);
        assert!(!result.is_error());
        let value = object(|out| result.encode_members(out));
        assert_eq!(value["structuredContent"], json!({"a": "x\ny"}));
        let text = value["content"][0]["text"].as_str().unwrap();
        assert_eq!(
            serde_json::from_str::<Value>(text).unwrap(),
            value["structuredContent"]
        );
    }

    #[test]
    fn an_encoded_error_is_known_by_its_beginning() {
        let mut out = Vec::new();
        ToolResult::error("no").encode_members(&mut out);
        assert!(ToolResult::Encoded(out.into()).is_error());
        assert!(!ToolResult::text("\"isError\":true").is_error());
    }

    #[test]
    fn reads_prompts_and_input_requests() {
        let read = ReadResult::one("u:1", Some("text/plain".into()), Body::Text("t".into()));
        assert_eq!(
            object(|out| read.encode_members(out)),
            json!({"contents": [{"uri": "u:1", "mimeType": "text/plain", "text": "t"}]})
        );
        let prompt = PromptResult {
            description: Some("d".into()),
            messages: vec![("user", Content::Text("t".into()))],
        };
        assert_eq!(
            object(|out| prompt.encode_members(out)),
            json!({"description": "d", "messages": [{"role": "user", "content": {"type": "text", "text": "t"}}]})
        );
        let requests = [(
            "k\"".to_owned(),
            r#"{"method":"roots/list","params":{}}"#.to_owned(),
        )];
        assert_eq!(
            object(|out| encode_input_required(out, &requests, Some("s"))),
            json!({"inputRequests": {"k\"": {"method": "roots/list", "params": {}}}, "requestState": "s"})
        );
        assert_eq!(
            object(|out| encode_input_required(out, &[], Some("s"))),
            json!({"requestState": "s"})
        );
    }
}
