//! A request, understood: its era, its method, and the one field that is authorized, which is the
//! one that is executed.

use std::borrow::Cow;

use bytes::Bytes;

use crate::grant::Kind;
use crate::jsonrpc::{Outline, OwnedId, RpcError, array_items, code, string_value};
use crate::policy::{Action, Ask};

use super::meta::{Meta, Severity};
use super::method::Method;
use super::params::{ParamsError, flag, object, pick, pick_noted, slice, text};
use super::revision::{Era, Revision};
use super::shape::unsupported_version;

/// A request that is to be decided on.
#[derive(Clone, Debug)]
pub struct Call {
    /// The request id, a raw JSON token.
    pub id: OwnedId,
    /// The row of the method table.
    pub method: Method,
    /// The method as it was written.
    pub name: Cow<'static, str>,
    /// The revision that it is served in.
    pub revision: Revision,
    /// What `_meta` says.
    pub meta: Meta,
    /// What it is about.
    pub detail: Detail,
    /// Grants that the thing it names needs besides its own (a tool's `requires`).
    pub also: Option<std::sync::Arc<[(Kind, String)]>>,
}

/// What a request is about, by method.
#[derive(Clone, Debug)]
pub enum Detail {
    /// Nothing more: `ping`, `server/discover`, unknown methods.
    Nothing,
    /// `initialize`.
    Initialize {
        /// The `protocolVersion` that the client asks for.
        version: String,
        /// What it can do, a raw object.
        capabilities: Option<Bytes>,
    },
    /// A list, from behind this cursor.
    List(Option<String>),
    /// `tools/call`: raw arguments, and the members of a retry (2026-07-28).
    Tool {
        /// The tool's full name.
        name: String,
        /// A raw object.
        arguments: Option<Bytes>,
        /// `inputResponses` and `requestState`.
        retry: Retry,
    },
    /// `resources/read`, `resources/subscribe`, `resources/unsubscribe`.
    Resource(String, Retry),
    /// `prompts/get`.
    Prompt {
        /// The prompt's full name.
        name: String,
        /// Arguments by name.
        arguments: Vec<(String, String)>,
        /// `inputResponses` and `requestState`.
        retry: Retry,
    },
    /// `completion/complete`.
    Completion {
        /// Whose argument.
        reference: Reference,
        /// The argument's name.
        argument: String,
        /// What is typed so far.
        value: String,
        /// The other arguments, as far as they are filled in.
        given: Vec<(String, String)>,
    },
    /// `logging/setLevel`.
    Level(Severity),
    /// `subscriptions/listen`.
    Listen(Filter),
}

/// What a retry of a multi-round-trip request carries (revision 2026-07-28).
#[derive(Clone, Debug, Default)]
pub struct Retry {
    /// `inputResponses`, a raw object.
    pub responses: Option<Bytes>,
    /// `requestState`.
    pub state: Option<String>,
}

/// What a completion is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// `ref/prompt`
    Prompt(String),
    /// `ref/resource`: a URI or a URI template.
    Resource(String),
}

/// What `subscriptions/listen` asks to hear of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// `toolsListChanged`
    pub tools: bool,
    /// `promptsListChanged`
    pub prompts: bool,
    /// `resourcesListChanged`
    pub resources: bool,
    /// `resourceSubscriptions`
    pub uris: Vec<String>,
}

/// Why a request cannot be served; becomes an error with the request's id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// -32602.
    #[error(transparent)]
    Params(#[from] ParamsError),
    /// -32022.
    #[error("unsupported protocol version `{0}`")]
    Version(String),
    /// -32602: neither `_meta` of the modern era nor an `initialize` before it.
    #[error(
        "`_meta` must carry `io.modelcontextprotocol/protocolVersion`, or the connection start with `initialize`"
    )]
    NoEra,
    /// -32602.
    #[error("`_meta` must carry `io.modelcontextprotocol/clientCapabilities`")]
    NoCapabilities,
}

impl CallError {
    /// The error as it is answered.
    #[must_use]
    pub fn reply(&self) -> RpcError {
        match self {
            Self::Version(requested) => unsupported_version(requested),
            other => RpcError::new(code::INVALID_PARAMS, other.to_string()),
        }
    }
}

/// Understands a request. `frame` is the message that `params` is a slice of, `outline` what
/// the scan noted of it (an empty one will do); `pinned` the legacy revision that an `initialize`
/// fixed for this connection or session.
///
/// # Errors
/// [`CallError`]: the request is answered with it and nothing is decided.
pub fn read_call<'a>(
    frame: &Bytes,
    id: &[u8],
    name: &str,
    params: Option<&'a [u8]>,
    outline: &Outline<'a>,
    pinned: Option<Revision>,
) -> Result<Box<Call>, CallError> {
    let slots = Slots::read(params, outline)?;
    let meta = Meta::read(slots.meta, outline, frame)?;
    let revision = revision_of(name, &meta, pinned)?;
    let method = Method::named(name, revision.era());
    let detail = slots.detail(method, frame)?;
    Ok(Box::new(Call {
        id: id.into(),
        method,
        name: method
            .name()
            .map_or_else(|| Cow::Owned(name.to_owned()), Cow::Borrowed),
        revision,
        meta,
        detail,
        also: None,
    }))
}

fn revision_of(name: &str, meta: &Meta, pinned: Option<Revision>) -> Result<Revision, CallError> {
    match &meta.version {
        Some(Ok(revision)) if revision.is_modern() => {
            if meta.capabilities.is_none() {
                return Err(CallError::NoCapabilities);
            }
            return Ok(*revision);
        }
        // A legacy revision has no such requests, whoever names it here.
        Some(Ok(revision)) => return Err(CallError::Version(revision.to_string())),
        Some(Err(unknown)) => return Err(CallError::Version(unknown.clone())),
        None => (),
    }
    if let Some(revision) = pinned {
        return Ok(revision);
    }
    // Before any handshake the two requests that a legacy client may open with are served, and an
    // unknown method is refused as one; the rest has no era to be served in.
    match Method::named(name, Era::Legacy) {
        Method::Initialize | Method::Ping => Ok(Revision::NEWEST_LEGACY),
        Method::Unknown if Method::named(name, Era::Modern) == Method::Unknown => {
            Ok(Revision::NEWEST_LEGACY)
        }
        _ => Err(CallError::NoEra),
    }
}

/// The members of `params` that some method looks at, each at most once.
struct Slots<'a> {
    meta: Option<&'a [u8]>,
    name: Option<&'a [u8]>,
    uri: Option<&'a [u8]>,
    arguments: Option<&'a [u8]>,
    cursor: Option<&'a [u8]>,
    reference: Option<&'a [u8]>,
    argument: Option<&'a [u8]>,
    context: Option<&'a [u8]>,
    level: Option<&'a [u8]>,
    notifications: Option<&'a [u8]>,
    version: Option<&'a [u8]>,
    responses: Option<&'a [u8]>,
    state: Option<&'a [u8]>,
    capabilities: Option<&'a [u8]>,
}

impl<'a> Slots<'a> {
    fn read(params: Option<&'a [u8]>, outline: &Outline<'a>) -> Result<Self, ParamsError> {
        let names = [
            "_meta",
            "name",
            "uri",
            "arguments",
            "cursor",
            "ref",
            "argument",
            "context",
            "level",
            "notifications",
            "protocolVersion",
            "inputResponses",
            "requestState",
            "capabilities",
        ];
        let [
            meta,
            name,
            uri,
            arguments,
            cursor,
            reference,
            argument,
            context,
            level,
            notifications,
            version,
            responses,
            state,
            capabilities,
        ] = pick_noted(outline, params, "params", names)?;
        Ok(Self {
            meta,
            name,
            uri,
            arguments,
            cursor,
            reference,
            argument,
            context,
            level,
            notifications,
            version,
            responses,
            state,
            capabilities,
        })
    }

    fn detail(&self, method: Method, frame: &Bytes) -> Result<Detail, ParamsError> {
        Ok(match method {
            Method::Discover | Method::Ping | Method::Unknown => Detail::Nothing,
            Method::Initialize => Detail::Initialize {
                version: text(self.version, "protocolVersion")?,
                capabilities: object(self.capabilities, "capabilities")?
                    .map(|raw| frame.slice_ref(raw)),
            },
            Method::ToolsList
            | Method::ResourcesList
            | Method::TemplatesList
            | Method::PromptsList => Detail::List(match self.cursor {
                None => None,
                Some(raw) => Some(text(Some(raw), "cursor")?),
            }),
            Method::ToolsCall => Detail::Tool {
                name: text(self.name, "name")?,
                arguments: object(self.arguments, "arguments")?.map(|raw| slice(frame, raw)),
                retry: self.retry(frame)?,
            },
            Method::ResourcesRead | Method::Subscribe | Method::Unsubscribe => {
                Detail::Resource(text(self.uri, "uri")?, self.retry(frame)?)
            }
            Method::PromptsGet => Detail::Prompt {
                name: text(self.name, "name")?,
                arguments: strings(self.arguments, "arguments")?,
                retry: self.retry(frame)?,
            },
            Method::Complete => self.completion()?,
            Method::SetLevel => {
                let level = text(self.level, "level")?;
                let shape = ParamsError::Shape("level", "one of the eight severities");
                Detail::Level(Severity::named(&level).ok_or(shape)?)
            }
            Method::Listen => Detail::Listen(filter(self.notifications)?),
        })
    }

    fn retry(&self, frame: &Bytes) -> Result<Retry, ParamsError> {
        Ok(Retry {
            responses: object(self.responses, "inputResponses")?.map(|raw| frame.slice_ref(raw)),
            state: match self.state {
                None => None,
                Some(raw) => Some(text(Some(raw), "requestState")?),
            },
        })
    }

    fn completion(&self) -> Result<Detail, ParamsError> {
        let raw = self
            .reference
            .ok_or(ParamsError::Shape("ref", "an object"))?;
        let [kind, name, uri] = pick(Some(raw), "ref", ["type", "name", "uri"])?;
        let reference = match text(kind, "ref.type")?.as_str() {
            "ref/prompt" => Reference::Prompt(text(name, "ref.name")?),
            "ref/resource" => Reference::Resource(text(uri, "ref.uri")?),
            _ => {
                return Err(ParamsError::Shape(
                    "ref.type",
                    "`ref/prompt` or `ref/resource`",
                ));
            }
        };
        let raw = self
            .argument
            .ok_or(ParamsError::Shape("argument", "an object"))?;
        let [name, value] = pick(Some(raw), "argument", ["name", "value"])?;
        let [given] = pick(self.context, "context", ["arguments"])?;
        Ok(Detail::Completion {
            reference,
            argument: text(name, "argument.name")?,
            value: text(value, "argument.value")?,
            given: strings(given, "context.arguments")?,
        })
    }
}

/// A map of strings; a key that stands twice is refused.
fn strings(raw: Option<&[u8]>, place: &'static str) -> Result<Vec<(String, String)>, ParamsError> {
    let Some(raw) = raw else {
        return Ok(Vec::new());
    };
    let mut out: Vec<(String, String)> = Vec::new();
    let shape = || ParamsError::Shape(place, "an object whose values are strings");
    for field in crate::jsonrpc::fields(raw).map_err(|_| shape())? {
        let (key, value) = field.map_err(|_| ParamsError::Key(place))?;
        if out.iter().any(|(known, _)| *known == key) {
            return Err(ParamsError::Twice("an argument", place));
        }
        let value = string_value(value).ok_or_else(shape)?;
        out.push((key.into_owned(), value.into_owned()));
    }
    Ok(out)
}

fn filter(raw: Option<&[u8]>) -> Result<Filter, ParamsError> {
    let raw = raw.ok_or(ParamsError::Shape("notifications", "an object"))?;
    let names = [
        "toolsListChanged",
        "promptsListChanged",
        "resourcesListChanged",
        "resourceSubscriptions",
    ];
    let [tools, prompts, resources, uris] = pick(Some(raw), "notifications", names)?;
    let shape = ParamsError::Shape("resourceSubscriptions", "an array of strings");
    if uris.is_some_and(|raw| raw.first() != Some(&b'[')) {
        return Err(shape);
    }
    let mut list = Vec::new();
    for item in array_items(uris.unwrap_or(b"[]")) {
        let uri = string_value(item)
            .ok_or_else(|| shape.clone())?
            .into_owned();
        if !list.contains(&uri) {
            list.push(uri);
        }
    }
    Ok(Filter {
        tools: flag(tools, "toolsListChanged")?,
        prompts: flag(prompts, "promptsListChanged")?,
        resources: flag(resources, "resourcesListChanged")?,
        uris: list,
    })
}

impl Ask for Call {
    fn action(&self) -> Action<'_> {
        match (&self.detail, self.method) {
            (_, Method::Unknown) => Action::Refused,
            (Detail::Tool { name, .. }, _) => Action::Use(Kind::Tools, name),
            (Detail::Resource(uri, _), _) => Action::Use(Kind::Resources, uri),
            (Detail::Prompt { name, .. }, _) => Action::Use(Kind::Prompts, name),
            (Detail::Completion { reference, .. }, _) => match reference {
                Reference::Prompt(name) => Action::Use(Kind::Prompts, name),
                Reference::Resource(uri) => Action::UseSome(Kind::Resources, uri),
            },
            _ => Action::Admitted,
        }
    }

    fn method(&self) -> &str {
        &self.name
    }

    fn target(&self) -> &str {
        match &self.detail {
            Detail::Tool { name, .. } | Detail::Prompt { name, .. } => name,
            Detail::Resource(uri, _) => uri,
            Detail::Completion { reference, .. } => match reference {
                Reference::Prompt(name) => name,
                Reference::Resource(uri) => uri,
            },
            _ => "",
        }
    }

    fn request_id(&self) -> &[u8] {
        &self.id
    }

    fn arguments(&self) -> Option<&[u8]> {
        match &self.detail {
            Detail::Tool { arguments, .. } => arguments.as_deref(),
            _ => None,
        }
    }

    fn revision(&self) -> &'static str {
        self.revision.as_str()
    }

    fn also(&self) -> &[(Kind, String)] {
        self.also.as_deref().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODERN: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;

    fn read(name: &str, params: &str, pinned: Option<Revision>) -> Result<Box<Call>, CallError> {
        let frame = Bytes::from(params.to_owned());
        let outline = Outline::default();
        read_call(&frame, b"7", name, Some(&frame), &outline, pinned)
    }

    #[test]
    fn the_era_follows_from_the_request_or_the_handshake() {
        let modern = read("tools/list", &format!("{{{MODERN}}}"), None).unwrap();
        assert_eq!(modern.revision, Revision::V2026_07_28);
        let legacy = read("tools/list", "{}", Some(Revision::V2025_06_18)).unwrap();
        assert_eq!(legacy.revision, Revision::V2025_06_18);
        assert_eq!(
            read("tools/list", "{}", None).unwrap_err(),
            CallError::NoEra
        );
        let future = MODERN.replace("2026-07-28", "2030-01-01");
        let error = read("tools/list", &format!("{{{future}}}"), None).unwrap_err();
        assert_eq!(error.reply().code, -32022);
        let bare = r#"{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}"#;
        assert_eq!(
            read("ping", bare, None).unwrap_err(),
            CallError::NoCapabilities
        );
    }

    #[test]
    fn a_modern_initialize_is_an_unknown_method() {
        let params = format!(r#"{{"protocolVersion":"2025-11-25",{MODERN}}}"#);
        let call = read("initialize", &params, None).unwrap();
        assert_eq!(
            (call.method, call.action()),
            (Method::Unknown, Action::Refused)
        );
    }

    /// The table of `protocol.md`: what each method asks for.
    #[test]
    fn each_method_asks_for_the_field_that_it_executes() {
        let legacy = Some(Revision::V2025_11_25);
        let asks = |name: &str, params: &str, want: Action<'_>| {
            assert_eq!(read(name, params, legacy).unwrap().action(), want, "{name}");
        };
        asks(
            "tools/call",
            r#"{"name":"a__b"}"#,
            Action::Use(Kind::Tools, "a__b"),
        );
        for method in [
            "resources/read",
            "resources/subscribe",
            "resources/unsubscribe",
        ] {
            asks(
                method,
                r#"{"uri":"file:///x"}"#,
                Action::Use(Kind::Resources, "file:///x"),
            );
        }
        asks(
            "prompts/get",
            r#"{"name":"p"}"#,
            Action::Use(Kind::Prompts, "p"),
        );
        let complete = |reference: &str| {
            format!(r#"{{"ref":{reference},"argument":{{"name":"a","value":"v"}}}}"#)
        };
        asks(
            "completion/complete",
            &complete(r#"{"type":"ref/prompt","name":"p"}"#),
            Action::Use(Kind::Prompts, "p"),
        );
        asks(
            "completion/complete",
            &complete(r#"{"type":"ref/resource","uri":"u"}"#),
            Action::UseSome(Kind::Resources, "u"),
        );
        for method in [
            "tools/list",
            "resources/list",
            "resources/templates/list",
            "prompts/list",
        ] {
            asks(method, "{}", Action::Admitted);
        }
        asks("logging/setLevel", r#"{"level":"error"}"#, Action::Admitted);
        asks("tasks/get", r#"{"taskId":"1"}"#, Action::Refused);
    }

    #[test]
    fn a_second_name_is_refused_before_anything_is_decided() {
        let legacy = Some(Revision::V2025_11_25);
        assert!(read("tools/call", r#"{"name":"good"}"#, legacy).is_ok());
        for params in [
            r#"{"name":"good","name":"evil"}"#,
            r#"{"name":"good","n\u0061me":"evil"}"#,
            r#"{"name":7}"#,
            r"{}",
            r#"{"name":"good","arguments":[]}"#,
            r#"{"name":"good","_meta":{},"_meta":{}}"#,
        ] {
            assert!(read("tools/call", params, legacy).is_err(), "{params}");
        }
    }
}
