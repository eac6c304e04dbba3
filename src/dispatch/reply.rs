//! What dispatch gives back.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use crate::backend::{Failure, Provider, ToolResult};
use crate::jsonrpc::{RpcError, code};
use crate::mcp::{Filter, Revision, Severity};

/// The answer to one call, without what its era and its id add.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Members of the result object, without braces.
    Result {
        /// The members.
        members: Members,
        /// A `CallToolResult` with `isError`.
        tool_error: bool,
        /// `ttlMs` where the method has it.
        ttl_ms: u32,
    },
    /// Members of an `InputRequiredResult`.
    InputRequired(Vec<(String, String)>, Option<String>),
    /// An error.
    Error(RpcError),
}

/// Members of a result object, without braces. What a tool gave is written where it goes and not
/// before: a large text is copied once less.
#[derive(Clone, Debug)]
pub enum Members {
    /// Raw JSON.
    Written(Bytes),
    /// A tool's.
    Tool(ToolResult),
}

impl<B: Into<Bytes>> From<B> for Members {
    fn from(members: B) -> Self {
        Self::Written(members.into())
    }
}

impl Members {
    /// About how many bytes they take; 0 where there are none.
    #[must_use]
    pub fn size_hint(&self) -> usize {
        match self {
            Self::Written(members) => members.len(),
            Self::Tool(result) => result.size_hint(),
        }
    }

    /// Appends them.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Written(members) => out.extend_from_slice(members),
            Self::Tool(result) => result.encode_members(out),
        }
    }
}

impl Reply {
    /// A result that nobody may keep.
    #[must_use]
    pub fn members(members: impl Into<Bytes>) -> Self {
        Self::Result {
            members: Members::Written(members.into()),
            tool_error: false,
            ttl_ms: 0,
        }
    }

    /// An error without data.
    #[must_use]
    pub fn error(code: i64, message: impl Into<String>) -> Self {
        Self::Error(RpcError::new(code, message))
    }

    /// What a failure of a provider is answered with; `missing` for a thing that does not exist.
    #[must_use]
    pub fn failure(failure: Failure, missing: impl FnOnce() -> RpcError) -> Self {
        match failure {
            Failure::NotFound => Self::Error(missing()),
            Failure::InvalidParams(text) => Self::error(code::INVALID_PARAMS, text),
            Failure::Internal(text) => {
                // The text can name files and hosts behind the door: it stays here.
                tracing::error!(error = %text, "a provider failed");
                Self::error(code::INTERNAL, "internal error")
            }
            Failure::Cancelled => Self::error(code::INTERNAL, "cancelled"),
            Failure::InputRequired { requests, state } => Self::InputRequired(requests, state),
            Failure::Error(error) => Self::Error(error),
            Failure::MissingCapability(capabilities) => Self::Error(RpcError {
                code: code::MISSING_CAPABILITY,
                message: "the client did not declare a capability that this call needs".into(),
                data: Some(format!(r#"{{"requiredCapabilities":{capabilities}}}"#)),
            }),
        }
    }
}

/// Where a call has come to.
pub enum Dispatched {
    /// Answered.
    Now(Reply),
    /// Being answered.
    Later(Pin<Box<dyn Future<Output = Reply> + Send>>),
    /// Answered, and the session has to change with it.
    Effect(Reply, Effect),
    /// No answer yet: a subscription stream, which ends with the connection or by cancellation.
    Listen(Listening),
}

/// What a call changes in its session.
#[derive(Debug)]
pub enum Effect {
    /// `initialize`: the connection speaks this revision, and the client can do this (a raw
    /// object).
    Pin(Revision, Option<Bytes>),
    /// `logging/setLevel`.
    Level(Severity),
    /// `resources/subscribe`.
    Subscribe(Watch),
    /// `resources/unsubscribe`.
    Unsubscribe(String),
}

/// A `subscriptions/listen` as far as it is honoured.
#[derive(Debug)]
pub struct Listening {
    /// The flags as asked, the URIs as honoured.
    pub filter: Filter,
    /// Keeps the providers watching.
    pub watches: Vec<Watch>,
}

/// A watch on a resource; the provider stops when it is dropped.
pub struct Watch {
    provider: Arc<dyn Provider>,
    uri: String,
}

impl Watch {
    /// Starts to watch.
    ///
    /// # Errors
    /// The provider's: no such resource, too many watches.
    pub fn start(provider: &Arc<dyn Provider>, uri: &str) -> Result<Self, Failure> {
        provider.watch(uri)?;
        Ok(Self {
            provider: Arc::clone(provider),
            uri: uri.to_owned(),
        })
    }

    /// What is watched.
    #[must_use]
    pub fn uri(&self) -> &str {
        &self.uri
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.provider.unwatch(&self.uri);
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Watch({})", self.uri)
    }
}
