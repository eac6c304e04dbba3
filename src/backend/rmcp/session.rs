//! One session of the SDK for one call: what the handler says on it goes to the caller of that
//! call. Nothing is encoded on the way in; what comes out is looked at as JSON.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use rmcp::model::{ClientCapabilities, Implementation, InitializeRequestParams, RequestId};
use rmcp::model::{ProtocolVersion, RequestMetaObject};
use rmcp::service::{
    RequestContext, RunningService, RxJsonRpcMessage, TxJsonRpcMessage, serve_directly,
};
use rmcp::transport::Transport;
use rmcp::{RoleServer, ServerHandler};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::backend::provider::{Context, Events, Happening};
use crate::mcp::Severity;

/// A message to the SDK's service.
pub type Inward = RxJsonRpcMessage<RoleServer>;
/// Answers that may wait for the service.
const ANSWERS: usize = 64;
/// The capability that is not carried, wherever a client declares it.
const TASKS: &str = "io.modelcontextprotocol/tasks";

/// Where changes are reported, once the catalogue has said so.
pub type Reports = Arc<OnceLock<Events>>;

type Heard = Pin<Box<dyn Future<Output = ()> + Send>>;
/// Takes what the handler says.
type Ear = Box<dyn Fn(Value) -> Heard + Send + Sync>;

/// Both directions between the SDK's service and us, message by message.
pub struct Wire {
    inward: mpsc::Receiver<Inward>,
    ear: Ear,
}

impl Wire {
    pub fn new(inward: mpsc::Receiver<Inward>, ear: Ear) -> Self {
        Self { inward, ear }
    }
}

impl Transport<RoleServer> for Wire {
    type Error = Infallible;

    fn send(
        &mut self,
        item: TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = Result<(), Infallible>> + Send + 'static {
        // What cannot be written as JSON cannot be said.
        let heard = serde_json::to_value(&item).ok().map(&self.ear);
        async move {
            if let Some(heard) = heard {
                heard.await;
            }
            Ok(())
        }
    }

    async fn receive(&mut self) -> Option<Inward> {
        self.inward.recv().await
    }

    async fn close(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// Answers nothing: the session of a call is only there to be spoken on.
struct Mute;

impl ServerHandler for Mute {}

/// The session of one call. Dropping it ends it.
pub struct Session {
    running: RunningService<RoleServer, Mute>,
    meta: RequestMetaObject,
    context: Context,
}

impl Session {
    /// In a runtime.
    pub fn open(context: Context, reports: Reports) -> Self {
        let client = client(&context);
        let meta = meta(&context, &client);
        let (answers, inward) = mpsc::channel(ANSWERS);
        let line = Arc::new(Line {
            context: context.clone(),
            reports,
            answers,
        });
        let ear: Ear = Box::new(move |message| Box::pin(Arc::clone(&line).hear(message)));
        let running = serve_directly(Mute, Wire::new(inward, ear), Some(client));
        Self {
            running,
            meta,
            context,
        }
    }

    /// What the handler is given with the call.
    pub fn request(&self) -> RequestContext<RoleServer> {
        let mut request = RequestContext::new(RequestId::Number(1), self.running.peer().clone());
        request.meta = self.meta.clone();
        request.extensions.insert(Arc::clone(&self.context.caller));
        request
    }
}

/// The client as the handler sees it: what it can, and who it was proven to be.
fn client(context: &Context) -> InitializeRequestParams {
    let mut can: Value = context
        .client_capabilities
        .as_ref()
        .and_then(|raw| serde_json::from_slice(raw).ok())
        .unwrap_or_else(|| json!({}));
    if let Some(extensions) = can.get_mut("extensions").and_then(Value::as_object_mut) {
        extensions.remove(TASKS);
    }
    let can: ClientCapabilities = serde_json::from_value(can).unwrap_or_default();
    let name = context.caller.peer.name().as_str();
    InitializeRequestParams::new(can, Implementation::new(name, ""))
        .with_protocol_version(version(context.revision.as_str()))
}

/// The SDK's word for a revision.
pub fn version(text: &str) -> ProtocolVersion {
    serde_json::from_value(json!(text)).unwrap_or_default()
}

fn meta(context: &Context, client: &InitializeRequestParams) -> RequestMetaObject {
    let mut meta = RequestMetaObject::new();
    let modern = context.revision.is_modern();
    if modern {
        meta.set_protocol_version(client.protocol_version.clone());
        meta.set_client_info(client.client_info.clone());
        meta.set_client_capabilities(client.capabilities.clone());
    }
    // What was asked for is known where notes are written down; the rest is dropped there.
    if context.notes.is_some() {
        let mut wanted = json!({"progressToken": 1});
        if modern {
            wanted["io.modelcontextprotocol/logLevel"] = json!("debug");
        }
        if let Ok(wanted) = serde_json::from_value(wanted) {
            meta.extend(wanted);
        }
    }
    meta
}

/// Who hears what is said on the session of a call.
struct Line {
    context: Context,
    reports: Reports,
    answers: mpsc::Sender<Inward>,
}

impl Line {
    async fn hear(self: Arc<Self>, message: Value) {
        let params = &message["params"];
        match (message["method"].as_str(), message.get("id")) {
            (Some(method), Some(id)) => {
                let answer = match self.ask(method, params).await {
                    Ok(result) => json!({"jsonrpc":"2.0","id":id,"result":result}),
                    Err(why) => refusal(id, -32603, &why),
                };
                if let Ok(answer) = serde_json::from_value(answer) {
                    let _ = self.answers.send(answer).await;
                }
            }
            (Some("notifications/progress"), None) => {
                let text = params["message"].as_str().map(str::to_owned);
                let progress = params["progress"].as_f64().unwrap_or_default();
                let total = params["total"].as_f64();
                self.context.progress(progress, total, text);
            }
            (Some("notifications/message"), None) => {
                let level = params["level"].as_str().and_then(Severity::named);
                let logger = params["logger"].as_str();
                let data = params["data"].to_string();
                let level = level.unwrap_or(Severity::Info);
                self.context.log(level, logger, &data);
            }
            (Some(method), None) => report(&self.reports, method, params),
            (None, _) => {}
        }
    }

    /// Asks the caller, where it is of an older revision and said that it can be asked.
    async fn ask(&self, method: &str, params: &Value) -> Result<Value, String> {
        let capability = match method {
            "elicitation/create" => "elicitation",
            "sampling/createMessage" => "sampling",
            "roots/list" => "roots",
            _ => return Err(format!("a client is not asked for `{method}`")),
        };
        let asker = self.context.asker.as_ref();
        let Some(asker) = asker.filter(|_| self.context.client_can(&[capability])) else {
            return Err(format!("the client cannot be asked for `{method}`"));
        };
        let mut params = if params.is_object() {
            params.clone()
        } else {
            json!({})
        };
        if let Some(members) = params.as_object_mut() {
            members.remove("_meta");
        }
        let request = json!({"method": method, "params": params}).to_string();
        let answers = asker.ask(vec![("answer".to_owned(), request)]).await;
        let answers = answers.map_err(|error| error.to_string())?;
        let mut answers: Value = serde_json::from_slice(&answers).map_err(|e| e.to_string())?;
        Ok(answers["answer"].take())
    }
}

/// Reports a change of a resource; other changes are not carried.
pub fn report(reports: &Reports, method: &str, params: &Value) {
    let what = match method {
        "notifications/resources/list_changed" => Happening::ResourcesChanged,
        "notifications/resources/updated" => {
            let uri = params["uri"].as_str().unwrap_or_default();
            Happening::ResourceUpdated(uri.to_owned())
        }
        _ => return,
    };
    if let Some(events) = reports.get() {
        events.happened(what);
    }
}

/// An error in answer to a request of the handler's.
pub fn refusal(id: &Value, code: i64, why: &str) -> Value {
    json!({"jsonrpc":"2.0","id":id,"error":{"code":code,"message":why}})
}
