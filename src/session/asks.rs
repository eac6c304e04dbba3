//! Requests of the server's own to a client of the older revisions: sent, waited for, bounded.
//!
//! A client of revision 2026-07-28 is never sent a request; it gets an `InputRequiredResult`.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::backend::{AskError, Asker};
use crate::jsonrpc::{fields, string_value, write_notification, write_string};

use super::notes::Outbox;

/// Requests that may be open on one session at once.
const OPEN: usize = 64;
/// How long a person may think.
const PATIENCE: Duration = Duration::from_secs(600);

/// What a client answered: a raw result, or what its error says.
type Answered = Result<Bytes, String>;

/// Whether a client's `ClientCapabilities` hold anything that a server may ask for.
#[must_use]
pub fn can_be_asked(capabilities: Option<&[u8]>) -> bool {
    let known = capabilities.and_then(|raw| fields(raw).ok());
    known.is_some_and(|mut all| {
        all.any(|field| {
            field.is_ok_and(|(key, _)| matches!(&*key, "elicitation" | "sampling" | "roots"))
        })
    })
}

/// The open requests of one session.
#[derive(Debug, Default)]
pub struct Open {
    waiting: Mutex<HashMap<u64, oneshot::Sender<Answered>>>,
    last: AtomicU64,
}

impl Open {
    fn book(&self) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<Answered>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a client's response; whether anybody waited for it.
    pub fn answered(&self, id: &[u8], result: Option<&[u8]>, error: Option<&[u8]>) -> bool {
        let id = string_value(id);
        let number = id
            .as_deref()
            .and_then(|id| id.strip_prefix(PREFIX)?.parse().ok());
        let Some(waiting) = number.and_then(|number| self.book().remove(&number)) else {
            return false;
        };
        let answered = match (result, error) {
            (Some(result), None) => Ok(Bytes::copy_from_slice(result)),
            (_, Some(error)) => Err(message_of(error)),
            (None, None) => Err(String::from("no result")),
        };
        waiting.send(answered).is_ok()
    }
}

/// Before the number in an id.
const PREFIX: &str = "server-";

fn message_of(error: &[u8]) -> String {
    let message = fields(error)
        .ok()
        .and_then(|mut all| all.find_map(|field| field.ok().filter(|(key, _)| key == "message")));
    let text = message
        .and_then(|(_, raw)| string_value(raw))
        .unwrap_or_default();
    text.chars().take(200).collect()
}

/// Asks over one queue.
pub struct Asks {
    open: Arc<Open>,
    outbox: Arc<Outbox>,
}

impl Asks {
    /// `outbox`: what goes to the client, related to the call that asks.
    #[must_use]
    pub fn new(open: Arc<Open>, outbox: Arc<Outbox>) -> Arc<Self> {
        Arc::new(Self { open, outbox })
    }

    fn send(&self, request: &str) -> Result<Waiting, AskError> {
        let (method, params) = parts(request)
            .ok_or_else(|| AskError::Failed(String::from("the request is not one")))?;
        let number = self.open.last.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, answer) = oneshot::channel();
        {
            let mut book = self.open.book();
            if book.len() >= OPEN {
                return Err(AskError::Failed(String::from("too many requests are open")));
            }
            book.insert(number, sender);
        }
        let waiting = Waiting {
            open: Arc::clone(&self.open),
            outbox: Arc::clone(&self.outbox),
            number,
            answer,
        };
        let mut message =
            format!(r#"{{"jsonrpc":"2.0","id":"{PREFIX}{number}","method":"#).into_bytes();
        write_string(&mut message, &method);
        if let Some(params) = params {
            message.extend_from_slice(br#","params":"#);
            crate::backend::raw_json(&mut message, params);
        }
        message.push(b'}');
        if self.outbox.push(message) {
            Ok(waiting)
        } else {
            Err(AskError::Failed(String::from("the client does not read")))
        }
    }
}

impl Asker for Asks {
    fn ask(
        &self,
        requests: Vec<(String, String)>,
    ) -> Pin<Box<dyn Future<Output = Result<Bytes, AskError>> + Send>> {
        let sent: Result<Vec<_>, AskError> = requests
            .into_iter()
            .map(|(key, request)| Ok((key, self.send(&request)?)))
            .collect();
        Box::pin(async move {
            let mut out = b"{".to_vec();
            let all = async {
                for (key, mut waiting) in sent? {
                    let answer = (&mut waiting.answer).await;
                    let result = answer
                        .unwrap_or_else(|_| Err(String::from("the session is over")))
                        .map_err(AskError::Refused)?;
                    if out.len() > 1 {
                        out.push(b',');
                    }
                    write_string(&mut out, &key);
                    out.push(b':');
                    out.extend_from_slice(&result);
                }
                out.push(b'}');
                Ok(Bytes::from(out))
            };
            let late = || {
                Err(AskError::Failed(String::from(
                    "the client did not answer in time",
                )))
            };
            tokio::time::timeout(PATIENCE, all)
                .await
                .unwrap_or_else(|_| late())
        })
    }
}

fn parts(request: &str) -> Option<(String, Option<&[u8]>)> {
    let (mut method, mut params) = (None, None);
    for field in fields(request.as_bytes()).ok()? {
        match field.ok()? {
            (key, raw) if key == "method" => method = string_value(raw),
            (key, raw) if key == "params" => params = Some(raw),
            _ => (),
        }
    }
    Some((method?.into_owned(), params))
}

/// One request that waits; dropped unanswered, the client is told that nobody waits any more.
struct Waiting {
    open: Arc<Open>,
    outbox: Arc<Outbox>,
    number: u64,
    answer: oneshot::Receiver<Answered>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.open.book().remove(&self.number).is_some() {
            let params = format!(r#""requestId":"{PREFIX}{}""#, self.number);
            let mut message = Vec::with_capacity(100);
            write_notification(&mut message, "notifications/cancelled", params.as_bytes());
            self.outbox.push(message);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[tokio::test]
    async fn requests_go_out_and_their_answers_come_together() {
        let (open, outbox) = (Arc::new(Open::default()), Arc::new(Outbox::default()));
        let asks = Asks::new(Arc::clone(&open), Arc::clone(&outbox));
        let requests = vec![
            (
                "a".to_owned(),
                r#"{"method":"roots/list","params":{}}"#.to_owned(),
            ),
            (
                "b".to_owned(),
                r#"{"method":"elicitation/create","params":{"message":"m"}}"#.to_owned(),
            ),
        ];
        let asking = tokio::spawn(asks.ask(requests));
        outbox.ready().await;
        let sent: Vec<Value> = outbox
            .take()
            .iter()
            .map(|m| serde_json::from_slice(m).unwrap())
            .collect();
        assert_eq!(sent[1]["params"], json!({"message":"m"}));
        assert!(!open.answered(b"\"other\"", Some(b"{}"), None));
        for (request, answer) in sent
            .iter()
            .zip([&br#"{"roots":[]}"#[..], br#"{"action":"decline"}"#])
        {
            assert!(open.answered(request["id"].to_string().as_bytes(), Some(answer), None));
        }
        let all: Value = serde_json::from_slice(&asking.await.unwrap().unwrap()).unwrap();
        assert_eq!(all, json!({"a":{"roots":[]},"b":{"action":"decline"}}));
        assert!(outbox.take().is_empty());
    }

    #[tokio::test]
    async fn an_error_is_a_refusal_and_whoever_leaves_cancels() {
        let (open, outbox) = (Arc::new(Open::default()), Arc::new(Outbox::default()));
        let asks = Asks::new(Arc::clone(&open), Arc::clone(&outbox));
        let one = || vec![("a".to_owned(), r#"{"method":"roots/list"}"#.to_owned())];
        let asking = tokio::spawn(asks.ask(one()));
        outbox.ready().await;
        let id = format!("\"{PREFIX}1\"");
        assert!(open.answered(id.as_bytes(), None, Some(br#"{"code":-1,"message":"no"}"#)));
        assert_eq!(asking.await.unwrap(), Err(AskError::Refused("no".into())));
        drop(outbox.take());
        drop(asks.ask(one()));
        let last = outbox.take().pop_back().unwrap();
        let last: Value = serde_json::from_slice(&last).unwrap();
        assert_eq!(last["method"], "notifications/cancelled");
        assert_eq!(last["params"], json!({"requestId": format!("{PREFIX}2")}));
        assert!(open.book().is_empty());
    }
}
