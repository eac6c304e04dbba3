//! The session that lives as long as the handler: initialized once, without a caller. Lists are
//! asked for on it, subscriptions run on it, and only changes of resources leave it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rmcp::model::{
    ClientCapabilities, Implementation, InitializeRequestParams, RequestId, SubscriptionFilter,
};
use rmcp::service::{RequestContext, RunningService, serve_directly};
use rmcp::{RoleServer, ServerHandler};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::backend::result::Failure;

use super::session::{Inward, Reports, Wire, refusal, report, version};

/// Requests that may wait for the handler's session.
const WAITING: usize = 1024;
/// Resources that may be watched at once.
const WATCHES: usize = 4096;

/// How a handler was told that a resource is watched.
enum How {
    /// `subscriptions/listen` with this id.
    Listen(i64),
    /// `resources/subscribe`.
    Subscribe,
    /// It takes no subscriptions; what it says of its own accord counts.
    Untold,
}

struct Watched {
    times: usize,
    how: How,
}

/// The session. Dropping it ends it.
pub struct Standing<H: ServerHandler> {
    running: RunningService<RoleServer, Arc<H>>,
    handler: Arc<H>,
    inward: mpsc::Sender<Inward>,
    watches: Mutex<HashMap<String, Watched>>,
    last: AtomicI64,
    subscribes: bool,
}

impl<H: ServerHandler> Standing<H> {
    /// In a runtime.
    pub fn open(handler: Arc<H>, reports: Reports) -> Self {
        let (inward, receiver) = mpsc::channel(WAITING);
        let answers = inward.downgrade();
        let ear = Box::new(move |message: Value| {
            let answer = match (message["method"].as_str(), message.get("id")) {
                (Some(_), Some(id)) => {
                    let error = refusal(id, -32601, "there is no client here to be asked");
                    serde_json::from_value(error).ok()
                }
                (Some(method), None) => {
                    report(&reports, method, &message["params"]);
                    None
                }
                (None, _) => None,
            };
            let answers = answers.clone();
            Box::pin(async move {
                if let (Some(answer), Some(answers)) = (answer, answers.upgrade()) {
                    let _ = answers.send(answer).await;
                }
            }) as _
        });
        let us = Implementation::new("countersign", env!("CARGO_PKG_VERSION"));
        let client = InitializeRequestParams::new(ClientCapabilities::default(), us)
            .with_protocol_version(version("2025-11-25"));
        let params = serde_json::to_value(&client).unwrap_or_default();
        let resources = handler.get_info().capabilities.resources;
        let subscribes = resources.is_some_and(|can| can.subscribe == Some(true));
        let wire = Wire::new(receiver, ear);
        let running = serve_directly(Arc::clone(&handler), wire, Some(client));
        let standing = Self {
            running,
            handler,
            inward,
            watches: Mutex::default(),
            last: AtomicI64::new(0),
            subscribes,
        };
        // Both fit in the empty queue.
        standing.request("initialize", params);
        standing.say(json!({"jsonrpc":"2.0","method":"notifications/initialized"}));
        standing
    }

    /// What the handler is given where nobody is calling.
    pub fn context(&self) -> RequestContext<RoleServer> {
        let id = RequestId::Number(self.last.fetch_add(1, Ordering::Relaxed) + 1);
        RequestContext::new(id, self.running.peer().clone())
    }

    fn say(&self, message: Value) -> bool {
        let message = serde_json::from_value(message).ok();
        message.is_some_and(|message| self.inward.try_send(message).is_ok())
    }

    fn request(&self, method: &str, params: Value) -> Option<i64> {
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let message = json!({"jsonrpc":"2.0","id":id,"method":method,"params":params});
        self.say(message).then_some(id)
    }

    fn listen(&self, filter: &SubscriptionFilter) -> Option<i64> {
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "countersign", "version": ""},
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        let filter = serde_json::to_value(filter).unwrap_or_default();
        self.request(
            "subscriptions/listen",
            json!({"_meta": meta, "notifications": filter}),
        )
    }

    /// Asks to be told when the list of resources changes, where the handler tells it on request.
    pub fn follow(&self) {
        let filter = SubscriptionFilter::builder()
            .resources_list_changed()
            .build();
        let accepted = self.handler.accepted_subscription_filter(&filter);
        if accepted.is_some_and(|accepted| accepted.resources_list_changed == Some(true)) {
            self.listen(&filter);
        }
    }

    fn watches(&self) -> MutexGuard<'_, HashMap<String, Watched>> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more who watches this resource.
    pub fn watch(&self, uri: &str) -> Result<(), Failure> {
        let mut watches = self.watches();
        if let Some(watched) = watches.get_mut(uri) {
            watched.times += 1;
            return Ok(());
        }
        let full = || Failure::Internal("too many resources are watched".to_owned());
        if watches.len() >= WATCHES {
            return Err(full());
        }
        let filter = SubscriptionFilter::builder()
            .resource_subscription(uri)
            .build();
        let accepted = self.handler.accepted_subscription_filter(&filter);
        let listens = accepted
            .and_then(|accepted| accepted.resource_subscriptions)
            .is_some_and(|uris| uris.iter().any(|one| one == uri));
        let how = if listens {
            How::Listen(self.listen(&filter).ok_or_else(full)?)
        } else if self.subscribes {
            self.request("resources/subscribe", json!({"uri": uri}))
                .ok_or_else(full)?;
            How::Subscribe
        } else {
            How::Untold
        };
        watches.insert(uri.to_owned(), Watched { times: 1, how });
        Ok(())
    }

    /// One less.
    pub fn unwatch(&self, uri: &str) {
        let mut watches = self.watches();
        let Some(watched) = watches.get_mut(uri) else {
            return;
        };
        watched.times -= 1;
        if watched.times > 0 {
            return;
        }
        match watched.how {
            How::Listen(id) => {
                let params = json!({"requestId": id});
                let method = "notifications/cancelled";
                self.say(json!({"jsonrpc":"2.0","method":method,"params":params}));
            }
            How::Subscribe => {
                self.request("resources/unsubscribe", json!({"uri": uri}));
            }
            How::Untold => {}
        }
        watches.remove(uri);
    }
}
