//! What the legacy era keeps between requests: the session's id and the agreed revision.

use std::sync::{Mutex, MutexGuard, PoisonError};

use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use super::mirror::{Head, Parameters};
use crate::client::peek::negotiated;

/// The session's id.
pub const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
/// The revision.
pub const REVISION: HeaderName = HeaderName::from_static("mcp-protocol-version");

/// What the exchanges of one connection share.
#[derive(Debug, Default)]
pub struct Shared {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    session: Option<HeaderValue>,
    revision: Option<HeaderValue>,
    parameters: Parameters,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing is left half-changed by a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The headers that a message needs beside those that every one has.
    pub fn headers(&self, head: &Head, headers: &mut HeaderMap) {
        let state = self.state();
        if let Some(revision) = &head.revision {
            if let Ok(value) = HeaderValue::from_str(revision) {
                headers.insert(REVISION, value);
            }
            head.mirror(headers, &state.parameters);
        } else if !head.is("initialize") {
            state.legacy(headers);
        }
    }

    /// The headers of a request of the session itself.
    pub fn legacy(&self, headers: &mut HeaderMap) {
        self.state().legacy(headers);
    }

    /// Whether there is a legacy session.
    pub fn is_open(&self) -> bool {
        self.state().session.is_some()
    }

    /// Notes the session that an answer to `initialize` opens.
    pub fn opened(&self, headers: &HeaderMap) {
        let mut state = self.state();
        state.session = headers.get(&SESSION).cloned();
        state.revision = None;
    }

    /// Notes what an answer to this request tells.
    pub fn heard(&self, head: &Head, answer: &[u8]) {
        if head.is("initialize") {
            let revision = negotiated(answer).ok();
            self.state().revision = revision.and_then(|text| HeaderValue::from_str(&text).ok());
        } else if head.is("tools/list") && head.revision.is_some() {
            self.learn(answer);
        }
    }

    /// Learns which parameters have headers. Gives the next page's cursor.
    pub fn learn(&self, list: &[u8]) -> Option<String> {
        self.state().parameters.learn(list)
    }

    /// Whether the parameters of this tool are known.
    pub fn knows(&self, tool: &str) -> bool {
        self.state().parameters.know(tool)
    }
}

impl State {
    fn legacy(&self, headers: &mut HeaderMap) {
        if let Some(session) = &self.session {
            headers.insert(SESSION, session.clone());
        }
        if let Some(revision) = &self.revision {
            headers.insert(REVISION, revision.clone());
        }
    }
}
