//! The one map from what went wrong to what the peer is told and what the audit log is told.

use std::time::Duration;

use crate::audit::Outcome;
use crate::dispatch::{Members, Reply, Router};
use crate::jsonrpc::{RpcError, code, write_error};
use crate::mcp::{Call, Finish, Method, Revision, ServerInfo};
use crate::policy::{Denials, Denied};

/// Why a call that was understood is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// More calls a second than allowed; the wait.
    Rate(Duration),
    /// More calls at once than allowed to the identity.
    Busy,
    /// The audit log takes nothing.
    Audit,
    /// The registry was out of reach for too long.
    Registry,
}

impl Cause {
    /// What the peer is told. A `tools/call` over a limit gets a result that a model can read and
    /// wait by; every other request an error with the same data.
    #[must_use]
    pub fn reply(self, method: Method) -> Reply {
        let wait = match self {
            Self::Rate(wait) => wait,
            Self::Busy => Duration::from_millis(100),
            Self::Audit => {
                return Reply::error(
                    code::UNAVAILABLE,
                    "the audit log cannot be written, so no call is carried out",
                );
            }
            Self::Registry => {
                return Reply::error(
                    code::UNAVAILABLE,
                    "the registry has been out of reach for too long, so no call is carried out",
                );
            }
        };
        let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1);
        let data = format!(
            r#"{{"error":{{"code":"RATE_LIMITED","retryable":true,"retryAfterMs":{millis}}}}}"#
        );
        if method == Method::ToolsCall {
            let mut members = br#""isError":true,"content":[{"type":"text","text":"#.to_vec();
            crate::jsonrpc::write_string(&mut members, &data);
            members.extend_from_slice(br#"}],"structuredContent":"#);
            members.extend_from_slice(data.as_bytes());
            return Reply::Result {
                members: Members::Written(members.into()),
                tool_error: true,
                ttl_ms: 0,
            };
        }
        Reply::Error(RpcError {
            code: code::RATE_LIMITED,
            message: "over the limit; try again later".to_owned(),
            data: Some(data),
        })
    }
}

/// What a denied peer is told.
#[must_use]
pub fn denial(denied: &Denied<Box<Call>>, denials: Denials) -> Reply {
    let (Some(missing), Denials::Explain) = (&denied.missing, denials) else {
        return Router::missing(&denied.call);
    };
    let mut data = br#"{"missing":"#.to_vec();
    crate::jsonrpc::write_string(&mut data, missing);
    data.push(b'}');
    Reply::Error(RpcError {
        code: code::DENIED,
        message: format!("denied: `{missing}` is not granted"),
        data: Some(String::from_utf8_lossy(&data).into_owned()),
    })
}

/// What the audit log is told about a reply.
#[must_use]
pub const fn outcome(reply: &Reply) -> Outcome {
    match reply {
        Reply::Result {
            tool_error: true, ..
        } => Outcome::ToolError,
        Reply::Result { .. } | Reply::InputRequired(..) => Outcome::Ok,
        Reply::Error(error) => Outcome::ProtocolError(error.code),
    }
}

/// Appends the whole message that answers a request.
pub fn write_reply(
    info: &ServerInfo,
    out: &mut Vec<u8>,
    id: &[u8],
    method: Method,
    revision: Revision,
    reply: &Reply,
) {
    match reply {
        Reply::Error(error) => write_error(out, Some(id), error),
        Reply::Result {
            members, ttl_ms, ..
        } => {
            let finish = Finish {
                revision,
                method,
                ttl_ms: *ttl_ms,
                input_required: false,
            };
            info.write(out, id, finish, members.size_hint(), |out| {
                members.write(out)
            });
        }
        Reply::InputRequired(requests, state) => {
            let mut members = Vec::new();
            crate::backend::encode_input_required(&mut members, requests, state.as_deref());
            let finish = Finish {
                revision,
                method,
                ttl_ms: 0,
                input_required: true,
            };
            info.write(out, id, finish, members.len(), |out| {
                out.extend_from_slice(&members);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_limit_is_told_inside_the_protocol() {
        let wait = Cause::Rate(Duration::from_millis(40));
        let expect = json!({"error":{"code":"RATE_LIMITED","retryable":true,"retryAfterMs":40}});
        let Reply::Result {
            members,
            tool_error: true,
            ..
        } = wait.reply(Method::ToolsCall)
        else {
            panic!("a tool call gets a result")
        };
        let mut text = b"{".to_vec();
        members.write(&mut text);
        text.push(b'}');
        let text = String::from_utf8_lossy(&text);
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["structuredContent"], expect);
        assert_eq!(value["isError"], json!(true));
        let text = value["content"][0]["text"].as_str().unwrap();
        assert_eq!(serde_json::from_str::<Value>(text).unwrap(), expect);
        let Reply::Error(error) = wait.reply(Method::PromptsGet) else {
            panic!("an error")
        };
        assert_eq!(error.code, 4429);
        assert_eq!(
            serde_json::from_str::<Value>(&error.data.unwrap()).unwrap(),
            expect
        );
    }
}
