//! Which requests wait for an answer, and how a legacy session was opened.

use std::collections::HashMap;

use bytes::Bytes;

use crate::client::peek::{Id, Peek, negotiated, peek};

/// Requests in flight that the bridge remembers; a further one is answered with an error, because
/// one that is not remembered could never be answered when the connection breaks.
pub const MAX_IN_FLIGHT: usize = 4096;

/// The longest id that is remembered, in bytes.
const MAX_ID: usize = 1024;

/// Code of the errors that the bridge writes itself: outside the ranges of JSON-RPC and MCP.
const CODE: i64 = 4503;

/// What to do with a line of the client.
#[derive(Debug, PartialEq, Eq)]
pub enum Up {
    Forward,
    /// Not forwarded; this line answers it.
    Answer(Bytes),
}

/// How a legacy session was opened, to open it again.
#[derive(Clone, Debug)]
pub struct Opening {
    /// The `initialize` line.
    pub line: Bytes,
    /// Its id's key.
    pub id: String,
    /// The revision that the first answer named; none while it has not come.
    pub revision: Option<String>,
    /// The `notifications/initialized` line, once it was sent.
    pub initialized: Option<Bytes>,
}

#[derive(Debug)]
struct Waiting {
    token: String,
    listens: bool,
}

/// The bridge's memory; small and bounded.
#[derive(Debug, Default)]
pub struct Ledger {
    waiting: HashMap<String, Waiting>,
    opening: Option<Opening>,
    /// The client has closed its side.
    pub closing: bool,
    /// The connection is given up: nothing more is to be read from it.
    pub abandoned: bool,
}

impl Ledger {
    /// Notes a line on its way up.
    pub fn up(&mut self, line: &Bytes) -> Up {
        match peek(line) {
            Peek::Request { id, method } => return self.request(line, id, &method),
            Peek::Cancelled { id } => {
                self.waiting.remove(&id.key);
            }
            Peek::Initialized => {
                if let Some(opening) = &mut self.opening {
                    opening.initialized = Some(line.clone());
                }
            }
            Peek::Response { .. } | Peek::Other => {}
        }
        Up::Forward
    }

    fn request(&mut self, line: &Bytes, id: Id, method: &str) -> Up {
        if id.token.len() > MAX_ID {
            return Up::Answer(error(
                "null",
                "the id of the request is longer than 1024 bytes",
            ));
        }
        if self.waiting.len() >= MAX_IN_FLIGHT && !self.waiting.contains_key(&id.key) {
            return Up::Answer(error(
                &id.token,
                "too many requests are in flight through this bridge",
            ));
        }
        if method == "initialize" {
            self.opening = Some(Opening {
                line: line.clone(),
                id: id.key.clone(),
                revision: None,
                initialized: None,
            });
        }
        let waiting = Waiting {
            token: id.token,
            listens: method == "subscriptions/listen",
        };
        self.waiting.insert(id.key, waiting);
        Up::Forward
    }

    /// Notes a line on its way down.
    pub fn down(&mut self, line: &[u8]) {
        let Peek::Response { id } = peek(line) else {
            return;
        };
        if self.waiting.remove(&id.key).is_none() {
            return;
        }
        let first = self
            .opening
            .as_mut()
            .filter(|o| o.revision.is_none() && o.id == id.key);
        if let Some(opening) = first {
            match negotiated(line) {
                Ok(revision) => opening.revision = Some(revision),
                // The server refused the session: there is nothing to open again.
                Err(_) => self.opening = None,
            }
        }
    }

    /// How to open the session again, if it is a legacy one.
    pub fn opening(&self) -> Option<&Opening> {
        self.opening.as_ref()
    }

    /// Whether nothing waits, or only listens do, which end when the server ends them.
    pub fn only_listens(&self) -> bool {
        self.waiting.values().all(|waiting| waiting.listens)
    }

    /// A cancellation for every request in flight, in no order; they wait no more.
    pub fn give_up(&mut self) -> Vec<Bytes> {
        let cancelled = |(_, waiting): (String, Waiting)| {
            let start =
                r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"#;
            Bytes::from(format!("{start}{}}}}}\n", waiting.token))
        };
        self.waiting.drain().map(cancelled).collect()
    }

    /// An error for every request in flight, in no order; they wait no more. An unanswered
    /// `initialize` waits on, because it is sent again.
    pub fn fail(&mut self, reason: &str) -> Vec<Bytes> {
        let again = self
            .opening
            .as_ref()
            .filter(|o| o.revision.is_none())
            .map(|o| o.id.clone());
        let kept = again.and_then(|key| self.waiting.remove_entry(&key));
        let lines = self
            .waiting
            .drain()
            .map(|(_, waiting)| error(&waiting.token, reason))
            .collect();
        self.waiting.extend(kept);
        lines
    }

    /// As [`Self::fail`], without the exception: there will be no other connection.
    pub fn fail_all(&mut self, reason: &str) -> Vec<Bytes> {
        self.opening = None;
        self.fail(reason)
    }
}

/// An error for a request that is not even noted; `None` for anything else.
pub fn answer(line: &[u8], reason: &str) -> Option<Bytes> {
    match peek(line) {
        Peek::Request { id, .. } => Some(error(&id.token, reason)),
        _ => None,
    }
}

/// An error line; `token`: the id as raw JSON, `null` where there is none.
pub fn error(token: &str, reason: &str) -> Bytes {
    let reason = serde_json::Value::from(reason);
    let data = r#"{"error":{"code":"CONNECTION_LOST","retryable":true}}"#;
    Bytes::from(format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":{token},\"error\":{{\"code\":{CODE},\"message\":{reason},\"data\":{data}}}}}\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(ledger: &mut Ledger, line: &'static str) -> Up {
        ledger.up(&Bytes::from_static(line.as_bytes()))
    }

    #[test]
    fn fails_exactly_what_still_waits() {
        let mut ledger = Ledger::default();
        for line in [
            r#"{"id":1,"method":"a"}"#,
            r#"{"id":"1","method":"b"}"#,
            r#"{"id":3,"method":"c"}"#,
            r#"{"method":"notifications/cancelled","params":{"requestId":3}}"#,
            r#"{"id":9,"result":{}}"#,
        ] {
            assert_eq!(note(&mut ledger, line), Up::Forward);
        }
        ledger.down(br#"{"id":1,"result":{}}"#);
        let failed = ledger.fail("it \"broke\"");
        assert_eq!(failed.len(), 1);
        let value: serde_json::Value = serde_json::from_slice(&failed[0]).unwrap();
        assert_eq!(value["id"], "1");
        assert_eq!(value["error"]["message"], "it \"broke\"");
        assert!(ledger.only_listens());
    }

    #[test]
    fn remembers_how_a_legacy_session_was_opened() {
        let mut ledger = Ledger::default();
        note(&mut ledger, r#"{"id":0,"method":"initialize","params":{}}"#);
        // Unanswered: it is sent again, not failed.
        assert!(ledger.fail("x").is_empty());
        assert!(!ledger.only_listens());
        ledger.down(br#"{"id":0,"result":{"protocolVersion":"2025-11-25"}}"#);
        note(&mut ledger, r#"{"method":"notifications/initialized"}"#);
        let opening = ledger.opening().unwrap();
        assert_eq!(opening.revision.as_deref(), Some("2025-11-25"));
        assert!(opening.initialized.is_some());
        // A later request with the same id is another request.
        note(&mut ledger, r#"{"id":0,"method":"tools/list"}"#);
        assert_eq!(ledger.fail("x").len(), 1);
        // A refused `initialize` opened nothing.
        note(&mut ledger, r#"{"id":5,"method":"initialize","params":{}}"#);
        ledger.down(br#"{"id":5,"error":{"code":-32022,"message":"no"}}"#);
        assert!(ledger.opening().is_none());
    }

    #[test]
    fn is_bounded() {
        let mut ledger = Ledger::default();
        for id in 0..MAX_IN_FLIGHT {
            assert_eq!(
                ledger.up(&Bytes::from(format!("{{\"id\":{id},\"method\":\"a\"}}"))),
                Up::Forward
            );
        }
        assert!(matches!(
            note(&mut ledger, r#"{"id":"x","method":"a"}"#),
            Up::Answer(_)
        ));
        ledger.down(br#"{"id":0,"result":{}}"#);
        assert_eq!(note(&mut ledger, r#"{"id":"x","method":"a"}"#), Up::Forward);
    }
}
