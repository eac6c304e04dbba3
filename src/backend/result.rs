//! What providers answer with, and how it is written as JSON (without the keys that depend on the
//! era: `resultType`, `ttlMs`, `cacheScope`, `_meta.serverInfo`, which the session splices in).

use bytes::Bytes;

/// One content block.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    Text(String),
    /// Bytes are base64-encoded on the way out.
    Image { data: Bytes, mime_type: String },
    Audio { data: Bytes, mime_type: String },
    ResourceLink { uri: String, name: String, mime_type: Option<String> },
    Resource { uri: String, mime_type: Option<String>, body: Body },
}

/// Text, or bytes that go out as base64.
#[derive(Clone, Debug, PartialEq)]
pub enum Body { Text(String), Blob(Bytes) }

/// `CallToolResult`.
#[derive(Clone, Debug)]
pub enum ToolResult {
    /// Members of the result object as JSON text without the braces: `"content":[…],"structuredContent":{…}`.
    Encoded(Bytes),
    Parts { content: Vec<Content>, /** Raw JSON. */ structured: Option<String>, is_error: bool },
}

/// `ReadResourceResult`.
#[derive(Clone, Debug)]
pub struct ReadResult { pub contents: Vec<(String, Option<String>, Body)> }

/// `GetPromptResult`: messages with role `user` or `assistant`.
#[derive(Clone, Debug)]
pub struct PromptResult { pub description: Option<String>, pub messages: Vec<(&'static str, Content)> }

/// Why there is no result. A tool that ran and failed answers a `ToolResult` with `is_error`.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    #[error("not found")]
    NotFound,
    /// -32602.
    #[error("{0}")]
    InvalidParams(String),
    /// -32603; the text is for the log, the peer gets `internal error`.
    #[error("{0}")]
    Internal(String),
    #[error("cancelled")]
    Cancelled,
}

impl ToolResult {
    /// Structured content with its JSON also as text, as the specification asks for.
    #[must_use] pub fn structured(json: String) -> Self { todo!("{json}") }
    #[must_use] pub fn text(text: impl Into<String>) -> Self { Self::Parts { content: vec![Content::Text(text.into())], structured: None, is_error: false } }
    #[must_use] pub fn error(text: impl Into<String>) -> Self { Self::Parts { content: vec![Content::Text(text.into())], structured: None, is_error: true } }
    #[must_use] pub fn is_error(&self) -> bool { todo!() }
    /// Appends the members of the result object, without braces.
    pub fn encode_members(&self, out: &mut Vec<u8>) { todo!("{}", out.len()) }
}
impl ReadResult { /// Appends `"contents":[…]`.
    pub fn encode_members(&self, out: &mut Vec<u8>) { todo!("{}", out.len()) } }
impl PromptResult { /// Appends `"messages":[…]` and the description.
    pub fn encode_members(&self, out: &mut Vec<u8>) { todo!("{}", out.len()) } }
