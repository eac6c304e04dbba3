//! The `self` provider: what the server says of itself and of whoever asks.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde::Serialize;
use serde_json::json;

use crate::clock::UnixTime;
use crate::grant::Kind;
use crate::peer::Mode;
use crate::policy::Step;

use super::offer::{Annotations, Tool};
use super::provider::{Answer, Caller, Context, Provider};
use super::result::{Failure, ToolResult};
use super::schema::{Arguments, Schema};

/// The provider's name.
pub const NAME: &str = "self";

/// What the server knows of itself at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// Protocol revisions that are served, newest first.
    pub revisions: Vec<String>,
    /// When the process began to serve, RFC 3339.
    pub started_at: String,
    /// Seconds since then.
    pub uptime_seconds: u64,
    /// Connections.
    pub connections: ConnectionStatus,
    /// Requests.
    pub calls: CallStatus,
    /// What clients of the older revisions keep open over HTTP.
    pub http: HttpStatus,
    /// The audit log.
    pub audit: AuditStatus,
    /// The registry.
    pub registry: RegistryStatus,
    /// Names of the providers, in order.
    pub providers: Vec<String>,
}

/// Connections since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ConnectionStatus {
    /// Open and admitted now.
    pub live: u64,
    /// Admitted so far.
    pub admitted: u64,
    /// Refused so far, in the handshake or after it.
    pub refused: u64,
}

/// What was asked for since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CallStatus {
    /// Running now; what is answered at once never counts.
    pub in_flight: u64,
    /// Allowed so far.
    pub allowed: u64,
    /// Denied so far.
    pub denied: u64,
    /// Allowed and come to no good result so far: an error, a limit, a cancellation.
    pub failed: u64,
}

/// Sessions over HTTP now; the newest revision has none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HttpStatus {
    /// Sessions.
    pub sessions: u64,
    /// Streams of theirs whose events are kept for a client that comes back.
    pub event_stores: u64,
}

/// Whether the audit log takes records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AuditStatus {
    /// While it is not, calls are refused.
    pub healthy: bool,
    /// Records written so far.
    pub records: u64,
    /// The last error, until one is written again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// How far behind the registry this server is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RegistryStatus {
    /// The last change that was applied.
    pub applied: u64,
    /// Seconds since the registry was last heard.
    pub age_seconds: u64,
    /// It was not heard for longer than it may be.
    pub stale: bool,
}

/// Whoever knows the status: the server.
pub trait StatusSource: Send + Sync + 'static {
    /// The status now. Cheap, and it does not block.
    fn status(&self) -> Status;
}

/// `whoami` and `server_status`.
pub struct OwnProvider {
    status: Arc<dyn StatusSource>,
    tools: Vec<Tool>,
}

impl OwnProvider {
    /// `status`: asked at each call of `server_status`.
    #[must_use]
    pub fn new(status: Arc<dyn StatusSource>) -> Self {
        Self {
            status,
            tools: vec![whoami_tool(), status_tool()],
        }
    }
}

impl Provider for OwnProvider {
    fn tools(&self) -> Vec<Tool> {
        self.tools.clone()
    }

    fn call_tool(&self, context: Context, name: &str, _arguments: Arguments) -> Answer<ToolResult> {
        match name {
            "whoami" => Answer::Now(Ok(ToolResult::Encoded(whoami(&context.caller)))),
            "server_status" => Answer::Now(status_result(&self.status.status())),
            _ => Answer::Now(Err(Failure::NotFound)),
        }
    }
}

/// The members of `whoami`'s result, written once for each caller: all of it is fixed as long as
/// the grounds are.
fn whoami(caller: &Caller) -> Bytes {
    caller
        .whoami
        .get_or_init(|| encoded(&describe(caller).to_string()))
        .clone()
}

fn encoded(json: &str) -> Bytes {
    let mut out = Vec::new();
    ToolResult::structured(json).encode_members(&mut out);
    out.into()
}

fn describe(caller: &Caller) -> serde_json::Value {
    let chain = caller.peer.chain();
    let steps = caller.grounds.steps();
    let permissions: Vec<serde_json::Value> = steps.iter().map(permission).collect();
    json!({
        "name": chain.name.as_str(),
        "fingerprint": chain.fingerprint.to_string(),
        "not_before": chain.not_before.to_string(),
        "not_after": chain.not_after.to_string(),
        "anchor": &*chain.anchor,
        "mode": match chain.mode { Mode::Pinned => "pinned", Mode::Issued => "issued" },
        "permissions": permissions,
        "limited_by": caller.grounds.limited_by(),
    })
}

/// A layer with what it allows, a rule with what it denies.
fn permission(step: &Step) -> serde_json::Value {
    let effect = if step.source.starts_with("rule ") {
        "denies"
    } else {
        "allows"
    };
    let mut value = json!({"source": step.source, "effect": effect, "grants": step.grants});
    if !step.unknown_roles.is_empty() {
        value["unknown_roles"] = json!(step.unknown_roles);
    }
    value
}

fn status_result(status: &Status) -> Result<ToolResult, Failure> {
    let json = serde_json::to_string(status).map_err(|e| Failure::Internal(e.to_string()))?;
    Ok(ToolResult::structured(&json))
}

fn no_arguments() -> Arc<Schema> {
    static EMPTY: OnceLock<Arc<Schema>> = OnceLock::new();
    Arc::clone(EMPTY.get_or_init(|| Arc::new(Schema::empty())))
}

fn whoami_tool() -> Tool {
    let text = "Says who the server takes you for: the name and fingerprint of your certificate, \
                how long it is valid, what you may use, and what limits it.";
    let mut tool = Tool::new("whoami", text, no_arguments());
    tool.title = Some("Who am I".to_owned());
    tool.annotations = Annotations::READ_ONLY;
    let text = || json!({"type": "string"});
    let texts = || json!({"type": "array", "items": {"type": "string"}});
    let time = || json!({"type": "string", "format": "date-time"});
    let output = json!({
        "type": "object",
        "properties": {
            "name": text(), "fingerprint": text(),
            "not_before": time(), "not_after": time(), "anchor": text(),
            "mode": {"type": "string", "enum": ["pinned", "issued"]},
            "permissions": {"type": "array", "items": {
                "type": "object",
                "properties": {
                    "source": text(), "effect": {"type": "string", "enum": ["allows", "denies"]},
                    "grants": texts(), "unknown_roles": texts()
                },
                "required": ["source", "effect", "grants"],
            }},
            "limited_by": texts(),
        },
        "required": ["name", "fingerprint", "not_after", "permissions", "limited_by"],
    });
    tool.output = Some(output.to_string());
    tool
}

fn status_tool() -> Tool {
    let text = "Tells how the server is: version, uptime, connections, calls, audit log, registry.";
    let mut tool = Tool::new("server_status", text, no_arguments());
    tool.title = Some("Server status".to_owned());
    tool.annotations = Annotations {
        idempotent: true,
        ..Annotations::READ_ONLY
    };
    tool.requires = vec![(Kind::Admin, "status".to_owned())];
    let part = || json!({"type": "object"});
    let output = json!({
        "type": "object",
        "properties": {
            "version": {"type": "string"}, "revisions": {"type": "array"},
            "started_at": {"type": "string", "format": "date-time"},
            "uptime_seconds": {"type": "integer"}, "connections": part(), "calls": part(),
            "http": part(), "audit": part(), "registry": part(), "providers": {"type": "array"},
        },
        "required": ["version", "uptime_seconds", "connections", "calls", "audit", "registry"],
    });
    tool.output = Some(output.to_string());
    tool
}

/// A status from what every server knows; the rest is left at zero.
#[must_use]
pub fn basic_status(version: &str, started: UnixTime, now: UnixTime) -> Status {
    Status {
        version: version.to_owned(),
        started_at: started.to_string(),
        uptime_seconds: now.since(started).as_secs(),
        ..Status::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::testing;
    use super::*;

    struct Fixed;

    impl StatusSource for Fixed {
        fn status(&self) -> Status {
            basic_status("1.2.3", UnixTime(100), UnixTime(160))
        }
    }

    fn answer(context: &Context, name: &str) -> ToolResult {
        let provider = OwnProvider::new(Arc::new(Fixed));
        let arguments = no_arguments().check(None).unwrap();
        match provider.call_tool(context.clone(), name, arguments) {
            Answer::Now(result) => result.unwrap(),
            Answer::Later(_) => panic!("`{name}` is answered at once"),
        }
    }

    fn structured(result: &ToolResult) -> Value {
        testing::members(|out| result.encode_members(out))["structuredContent"].clone()
    }

    #[test]
    fn whoami_says_what_the_certificate_and_the_policy_say() {
        let context = testing::context(&["tools:files__read_*", "resources:*"]);
        let value = structured(&answer(&context, "whoami"));
        assert_eq!(value["name"], "spiffe://countersign.internal/reader");
        assert_eq!(
            value["fingerprint"],
            context.caller.peer.fingerprint().to_string()
        );
        assert_eq!(value["not_after"], "2033-05-18T03:33:20Z");
        assert_eq!(value["mode"], "issued");
        assert_eq!(value["permissions"][0]["effect"], "allows");
        assert_eq!(
            value["permissions"][0]["grants"],
            json!(["tools:files__read_*", "resources:*"])
        );
        assert_eq!(value["limited_by"], json!([]));
        let schema = OwnProvider::new(Arc::new(Fixed)).tools()[0]
            .output
            .clone()
            .unwrap();
        let raw = Bytes::from(value.to_string());
        assert!(Schema::new(&schema).unwrap().check(Some(raw)).is_ok());
    }

    #[test]
    fn whoami_is_written_once_for_a_caller() {
        let context = testing::context(&["tools:*"]);
        let bytes = |context: &Context| match answer(context, "whoami") {
            ToolResult::Encoded(bytes) => bytes.as_ptr(),
            ToolResult::Parts { .. } => panic!("it is encoded"),
        };
        assert_eq!(bytes(&context), bytes(&context));
        assert_ne!(bytes(&context), bytes(&testing::context(&["tools:*"])));
    }

    #[test]
    fn the_status_needs_a_grant_of_its_own() {
        let context = testing::context(&["tools:*"]);
        let value = structured(&answer(&context, "server_status"));
        assert_eq!(value["version"], "1.2.3");
        assert_eq!(value["uptime_seconds"], 60);
        let tools = OwnProvider::new(Arc::new(Fixed)).tools();
        let status = tools
            .iter()
            .find(|tool| tool.name == "server_status")
            .unwrap();
        assert_eq!(status.requires, [(Kind::Admin, "status".to_owned())]);
        let raw = Bytes::from(value.to_string());
        let schema = Schema::new(status.output.as_deref().unwrap()).unwrap();
        assert!(schema.check(Some(raw)).is_ok());
    }
}
