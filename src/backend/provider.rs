//! The trait that everything behind the door implements, and what it is given.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::clock::UnixTime;
use crate::peer::Peer;
use crate::policy::Grounds;

use super::result::{Failure, PromptResult, ReadResult, ToolResult};
use super::schema::{Arguments, Schema};

/// A provider's answer: there at once, or later.
pub enum Answer<T> {
    /// No task, no allocation: the data path answers on the spot.
    Now(Result<T, Failure>),
    /// Runs in the connection's task; work that blocks belongs on `spawn_blocking`.
    Later(Pin<Box<dyn Future<Output = Result<T, Failure>> + Send>>),
}

impl<T> Answer<T> {
    /// Boxes a future.
    pub fn later(future: impl Future<Output = Result<T, Failure>> + Send + 'static) -> Self {
        Self::Later(Box::pin(future))
    }
}

/// A tool as it is listed.
#[derive(Clone, Debug)]
pub struct Tool {
    /// 1 to 128 of `A-Z a-z 0-9 _ - .`; the catalogue puts `<provider>__` before it.
    pub name: String,
    /// For people.
    pub title: Option<String>,
    /// For models.
    pub description: String,
    /// Checked before the tool runs.
    pub input: Arc<Schema>,
    /// JSON Schema of `structuredContent`, raw JSON.
    pub output: Option<String>,
    /// `readOnlyHint`, `destructiveHint`, `idempotentHint`, `openWorldHint`, honestly.
    pub annotations: Annotations,
}

/// MCP `ToolAnnotations`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Annotations { pub read_only: bool, pub destructive: bool, pub idempotent: bool, pub open_world: bool }

/// A resource as it is listed.
#[derive(Clone, Debug)]
pub struct Resource { pub uri: String, pub name: String, pub title: Option<String>, pub description: Option<String>, pub mime_type: Option<String>, pub size: Option<u64>, pub last_modified: Option<UnixTime> }

/// A resource template (RFC 6570).
#[derive(Clone, Debug)]
pub struct ResourceTemplate { pub uri_template: String, pub name: String, pub title: Option<String>, pub description: Option<String>, pub mime_type: Option<String> }

/// A prompt as it is listed.
#[derive(Clone, Debug)]
pub struct Prompt { pub name: String, pub title: Option<String>, pub description: Option<String>, pub arguments: Vec<PromptArgument> }

#[derive(Clone, Debug)]
pub struct PromptArgument { pub name: String, pub title: Option<String>, pub description: Option<String>, pub required: bool }

/// One page of a listing that may be long.
#[derive(Clone, Debug)]
pub struct Page<T> { pub items: Vec<T>, /// The last item's key, to be given back as `after`; none on the last page.
    pub next: Option<String> }

/// What is completed.
#[derive(Clone, Debug)]
pub enum CompletionTarget { Prompt(String), Resource(String) }

/// At most 100 values.
#[derive(Clone, Debug, Default)]
pub struct Completion { pub values: Vec<String>, pub total: Option<u64>, pub has_more: bool }

/// RFC 5424 severities as MCP names them, least severe first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel { Debug, Info, Notice, Warning, Error, Critical, Alert, Emergency }

/// Something that a running call tells its caller.
#[derive(Clone, Debug)]
pub enum Note {
    Progress { progress: f64, total: Option<f64>, message: Option<String> },
    /// `data`: raw JSON.
    Log { level: LogLevel, logger: Option<String>, data: String },
}

/// Where notes go. The session drops what nobody asked for and what a slow reader cannot take.
pub trait Notes: Send + Sync { fn note(&self, note: Note); }

/// Who is calling, for providers that ask.
#[derive(Clone, Debug)]
pub struct Caller { pub peer: Peer, pub grounds: Arc<Grounds> }

/// What a provider is given with a call.
#[derive(Clone)]
pub struct Context { pub caller: Caller, pub notes: Option<Arc<dyn Notes>>, pub cancel: Cancel }

impl Context {
    /// Reports progress, where the caller asked for it. `progress` must grow from call to call.
    pub fn progress(&self, progress: f64, total: Option<f64>, message: Option<String>) {
        if let Some(notes) = &self.notes { notes.note(Note::Progress { progress, total, message }); }
    }
}

/// Tells a running call that nobody waits for it any more. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Option<Arc<CancelInner>>);

#[derive(Debug, Default)]
struct CancelInner { cancelled: AtomicBool, notify: Notify }

impl Cancel {
    /// One that can be cancelled ([`Default`] makes one that never is, without an allocation).
    #[must_use] pub fn new() -> Self { Self(Some(Arc::default())) }
    pub fn cancel(&self) { if let Some(inner) = &self.0 { inner.cancelled.store(true, Ordering::Release); inner.notify.notify_waiters(); } }
    /// For loops in blocking code.
    #[must_use] pub fn is_cancelled(&self) -> bool { self.0.as_ref().is_some_and(|inner| inner.cancelled.load(Ordering::Acquire)) }
    /// Ready when cancelled.
    pub async fn cancelled(&self) {
        let Some(inner) = &self.0 else { return std::future::pending().await };
        let waiting = inner.notify.notified();
        if !inner.cancelled.load(Ordering::Acquire) { waiting.await; }
    }
}

/// What happened behind the door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening { ToolsChanged, PromptsChanged, ResourcesChanged, /** The URI as `resources/read` takes it. */ ResourceUpdated(String) }

/// Where a provider reports happenings: a bounded broadcast that sessions with subscriptions hear.
#[derive(Clone, Debug)]
pub struct Events(pub tokio::sync::broadcast::Sender<Happening>);

impl Events { pub fn happened(&self, what: Happening) { let _ = self.0.send(what); } }

/// Something that offers tools, resources and prompts. Every method has a default that offers none.
///
/// Names in calls are the provider's own (the catalogue's prefix is taken off); URIs are whole.
/// What arrives here was authenticated, authorized, recorded, and its arguments fit the schema.
pub trait Provider: Send + Sync + 'static {
    /// Given once, before the first call: where to report changes.
    fn attach(&self, events: Events) { let _ = events; }
    /// Tools in a fixed order.
    fn tools(&self) -> Vec<Tool> { Vec::new() }
    /// Prompts in a fixed order.
    fn prompts(&self) -> Vec<Prompt> { Vec::new() }
    /// Resource templates in a fixed order.
    fn resource_templates(&self) -> Vec<ResourceTemplate> { Vec::new() }
    /// Whether this URI belongs to this provider.
    fn owns_uri(&self, uri: &str) -> bool { let _ = uri; false }
    /// Resources by URI order, from behind `after`, at most `limit`.
    fn resources(&self, after: Option<String>, limit: usize) -> Answer<Page<Resource>> { let _ = (after, limit); Answer::Now(Ok(Page { items: Vec::new(), next: None })) }
    fn call_tool(&self, context: Context, name: &str, arguments: Arguments) -> Answer<ToolResult> { let _ = (context, name, arguments); Answer::Now(Err(Failure::NotFound)) }
    fn read_resource(&self, context: Context, uri: &str) -> Answer<ReadResult> { let _ = (context, uri); Answer::Now(Err(Failure::NotFound)) }
    fn get_prompt(&self, context: Context, name: &str, arguments: Vec<(String, String)>) -> Answer<PromptResult> { let _ = (context, name, arguments); Answer::Now(Err(Failure::NotFound)) }
    /// `given`: the other arguments that are filled in already.
    fn complete(&self, context: Context, target: CompletionTarget, argument: &str, value: &str, given: Vec<(String, String)>) -> Answer<Completion> { let _ = (context, target, argument, value, given); Answer::Now(Ok(Completion::default())) }
    /// Somebody subscribes to a URI (counted: each is followed by one `unwatch`).
    /// # Errors
    /// It does not exist, or there are too many watches.
    fn watch(&self, uri: &str) -> Result<(), Failure> { let _ = uri; Err(Failure::NotFound) }
    fn unwatch(&self, uri: &str) { let _ = uri; }
}

/// A raw JSON text that is known to be valid.
pub type RawJson = Bytes;
