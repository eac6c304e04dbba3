//! The trait that everything behind the door implements, and what it is given.
//!
//! A provider decides nothing about permissions: what reaches it was allowed and recorded. It can
//! ask who is calling, and it may refuse more, never allow more.

use std::cell::Cell;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::mcp::{Revision, Severity};
use crate::peer::Peer;
use crate::policy::Grounds;

use super::encode;
use super::offer::{Completion, Page, Prompt, Resource, ResourceTemplate, Tool};
use super::result::{Failure, PromptResult, ReadResult, ToolResult};
use super::schema::Arguments;

/// A raw JSON text that is known to be valid.
pub type RawJson = Bytes;

/// A provider's answer: there at once, or later.
pub enum Answer<T> {
    /// No task, no allocation: the data path answers on the spot.
    Now(Result<T, Failure>),
    /// Runs in the connection's task; work that blocks belongs on `spawn_blocking`. Dropped when
    /// the call is cancelled.
    Later(Pin<Box<dyn Future<Output = Result<T, Failure>> + Send>>),
}

impl<T> Answer<T> {
    /// Boxes a future.
    pub fn later(future: impl Future<Output = Result<T, Failure>> + Send + 'static) -> Self {
        Self::Later(Box::pin(future))
    }

    /// Waits for it.
    ///
    /// # Errors
    /// The provider's failure.
    pub async fn wait(self) -> Result<T, Failure> {
        match self {
            Self::Now(result) => result,
            Self::Later(future) => future.await,
        }
    }
}

/// What is completed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompletionTarget {
    /// A prompt by the provider's own name for it.
    Prompt(String),
    /// A resource template, or a resource, by its URI.
    Resource(String),
}

/// Something that a running call tells its caller.
#[derive(Clone, Debug, PartialEq)]
pub enum Note {
    /// `notifications/progress`, without the token.
    Progress {
        /// Grows from note to note.
        progress: f64,
        /// Where it will end, if that is known.
        total: Option<f64>,
        /// For people.
        message: Option<String>,
    },
    /// `notifications/message`.
    Log {
        /// How bad it is.
        level: Severity,
        /// Which part says so.
        logger: Option<String>,
        /// Raw JSON, on one line.
        data: String,
    },
    /// The call takes long, and its caller need not hold a stream open for it: over HTTP, a client
    /// of an older revision is sent away and comes back for the rest. Elsewhere it means nothing.
    Release,
}

/// Where notes go. The session drops what nobody asked for and what a slow reader cannot take;
/// it never blocks.
pub trait Notes: Send + Sync {
    /// Takes a note.
    fn note(&self, note: Note);
}

/// Why a client's answers are not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The client answered with an error: its message.
    #[error("the client refused: {0}")]
    Refused(String),
    /// It could not be asked, or did not answer in time.
    #[error("{0}")]
    Failed(String),
}

/// Asks a client of the older revisions for what [`Failure::InputRequired`] wants. The session
/// gives one with each call of a client that declared something to be asked for; the router uses
/// it, so that a provider is written once for all revisions.
pub trait Asker: Send + Sync {
    /// Sends every request and waits for all answers: an object of results by key. Dropping the
    /// future cancels what is open.
    fn ask(
        &self,
        requests: Vec<(String, String)>,
    ) -> Pin<Box<dyn Future<Output = Result<RawJson, AskError>> + Send>>;
}

/// Who is calling, for providers that ask. The session makes one for each set of grounds and
/// shares it between the calls of a connection.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The proven peer.
    pub peer: Peer,
    /// What decides on its calls.
    pub grounds: Arc<Grounds>,
    /// The encoded answer of `whoami`, which is the same as long as the grounds are.
    pub(super) whoami: OnceLock<Bytes>,
}

impl Caller {
    /// The peer of these grounds.
    #[must_use]
    pub fn new(grounds: Arc<Grounds>) -> Self {
        Self {
            peer: grounds.peer().clone(),
            grounds,
            whoami: OnceLock::new(),
        }
    }
}

/// What a provider is given with a call. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// Who is calling.
    pub caller: Arc<Caller>,
    /// The revision that the call came in.
    pub revision: Revision,
    /// Where notes go; none where nobody asked for any.
    pub notes: Option<Arc<dyn Notes>>,
    /// Says when nobody waits any more.
    pub cancel: Cancel,
    /// `ClientCapabilities` as the client declared them for this request (modern era) or in
    /// `initialize` (older ones).
    pub client_capabilities: Option<RawJson>,
    /// The client's answers to [`Failure::InputRequired`], an object by key; keys that were never
    /// asked for are to be ignored.
    pub input_responses: Option<RawJson>,
    /// The state that was given out with them; the session checked that it is ours and this
    /// caller's.
    pub request_state: Option<String>,
    /// Asks a client of the older revisions, in the middle of a call.
    pub(crate) asker: Option<Arc<dyn Asker>>,
}

impl Context {
    /// A context without notes, cancellation or answers: the session fills in what there is.
    #[must_use]
    pub fn new(caller: Arc<Caller>) -> Self {
        Self {
            caller,
            revision: Revision::V2026_07_28,
            notes: None,
            cancel: Cancel::default(),
            client_capabilities: None,
            input_responses: None,
            request_state: None,
            asker: None,
        }
    }

    /// Reports progress, where the caller asked for it. `progress` must grow from call to call.
    pub fn progress(&self, progress: f64, total: Option<f64>, message: Option<String>) {
        if let Some(notes) = &self.notes {
            notes.note(Note::Progress {
                progress,
                total,
                message,
            });
        }
    }

    /// Lets the stream of this call's answer go: see [`Note::Release`].
    pub fn release(&self) {
        if let Some(notes) = &self.notes {
            notes.note(Note::Release);
        }
    }

    /// Sends a log message to the caller, where it asked for this level. `data`: raw JSON, never
    /// with secrets, personal data or internals in it.
    pub fn log(&self, level: Severity, logger: Option<&str>, data: &str) {
        if let Some(notes) = &self.notes {
            let mut line = Vec::with_capacity(data.len());
            encode::raw_json(&mut line, data.as_bytes());
            let data = String::from_utf8_lossy(&line).into_owned();
            notes.note(Note::Log {
                level,
                logger: logger.map(str::to_owned),
                data,
            });
        }
    }

    /// Whether the client declared this capability: `["elicitation", "form"]` is a path of keys.
    #[must_use]
    pub fn client_can(&self, path: &[&str]) -> bool {
        let Some(raw) = &self.client_capabilities else {
            return false;
        };
        let Ok(value) = serde_json::from_slice::<serde_json::Value>(raw) else {
            return false;
        };
        path.iter()
            .try_fold(&value, |value, key| value.get(key))
            .is_some()
    }
}

/// Tells a running call that nobody waits for it any more. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Option<Arc<CancelInner>>);

#[derive(Debug, Default)]
struct CancelInner {
    cancelled: AtomicBool,
    notify: Notify,
}

thread_local! {
    /// Served a call of this thread and nobody has it any more: most calls are over before anybody could
    /// have cancelled them.
    static SPARE: Cell<Option<Arc<CancelInner>>> = const { Cell::new(None) };
}

impl Cancel {
    /// One that can be cancelled ([`Default`] makes one that never is, without an allocation).
    #[must_use]
    pub fn new() -> Self {
        Self(Some(SPARE.take().unwrap_or_default()))
    }

    /// Its call is over: it serves another one where nobody else holds it and nobody has cancelled.
    pub fn over(self) {
        if let Some(mut inner) = self.0
            && Arc::get_mut(&mut inner).is_some_and(|inner| !*inner.cancelled.get_mut())
        {
            SPARE.set(Some(inner));
        }
    }

    /// Cancels; again does nothing.
    pub fn cancel(&self) {
        if let Some(inner) = &self.0 {
            inner.cancelled.store(true, Ordering::Release);
            inner.notify.notify_waiters();
        }
    }

    /// For loops in blocking code.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0
            .as_ref()
            .is_some_and(|inner| inner.cancelled.load(Ordering::Acquire))
    }

    /// Ready when cancelled.
    pub async fn cancelled(&self) {
        let Some(inner) = &self.0 else {
            return std::future::pending().await;
        };
        // Registered before the flag is read: a cancellation between the two is not missed.
        let waiting = inner.notify.notified();
        if !inner.cancelled.load(Ordering::Acquire) {
            waiting.await;
        }
    }
}

/// What happened behind the door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// `notifications/tools/list_changed`.
    ToolsChanged,
    /// `notifications/prompts/list_changed`.
    PromptsChanged,
    /// `notifications/resources/list_changed`.
    ResourcesChanged,
    /// `notifications/resources/updated`: the URI as `resources/read` takes it.
    ResourceUpdated(String),
}

/// Where a provider reports happenings: a bounded broadcast that sessions with subscriptions hear.
#[derive(Clone, Debug)]
pub struct Events(pub tokio::sync::broadcast::Sender<Happening>);

impl Events {
    /// Reports; nobody listening is fine.
    pub fn happened(&self, what: Happening) {
        let _ = self.0.send(what);
    }
}

/// Something that offers tools, resources and prompts. Every method has a default that offers none.
///
/// Names in calls are the provider's own (the catalogue's prefix is taken off); URIs are whole.
/// What arrives here was authenticated, authorized, recorded, and its arguments fit the schema.
pub trait Provider: Send + Sync + 'static {
    /// Given once, before the first call: where to report changes.
    fn attach(&self, events: Events) {
        let _ = events;
    }

    /// Tools in a fixed order.
    fn tools(&self) -> Vec<Tool> {
        Vec::new()
    }

    /// Prompts in a fixed order.
    fn prompts(&self) -> Vec<Prompt> {
        Vec::new()
    }

    /// Resource templates in a fixed order.
    fn resource_templates(&self) -> Vec<ResourceTemplate> {
        Vec::new()
    }

    /// Whether this URI (or URI template, in a completion) belongs to this provider. Cheap: it
    /// need not say whether such a resource is there.
    fn owns_uri(&self, uri: &str) -> bool {
        let _ = uri;
        false
    }

    /// Resources by URI order, from behind `after`, at most `limit`.
    fn resources(&self, after: Option<String>, limit: usize) -> Answer<Page<Resource>> {
        let _ = (after, limit);
        Answer::Now(Ok(Page {
            items: Vec::new(),
            next: None,
        }))
    }

    /// Runs a tool.
    fn call_tool(&self, context: Context, name: &str, arguments: Arguments) -> Answer<ToolResult> {
        let _ = (context, name, arguments);
        Answer::Now(Err(Failure::NotFound))
    }

    /// Reads a resource.
    fn read_resource(&self, context: Context, uri: &str) -> Answer<ReadResult> {
        let _ = (context, uri);
        Answer::Now(Err(Failure::NotFound))
    }

    /// Fills in a prompt. `arguments`: in the order in which they came, no key twice.
    fn get_prompt(
        &self,
        context: Context,
        name: &str,
        arguments: Vec<(String, String)>,
    ) -> Answer<PromptResult> {
        let _ = (context, name, arguments);
        Answer::Now(Err(Failure::NotFound))
    }

    /// Completes the value of an argument. `given`: the other arguments that are filled in
    /// already. A target or an argument that is not there completes to nothing.
    fn complete(
        &self,
        context: Context,
        target: CompletionTarget,
        argument: &str,
        value: &str,
        given: Vec<(String, String)>,
    ) -> Answer<Completion> {
        let _ = (context, target, argument, value, given);
        Answer::Now(Ok(Completion::default()))
    }

    /// Somebody subscribes to a URI (counted: each is followed by one `unwatch`). May look at the
    /// file system; called from a task of the runtime.
    ///
    /// # Errors
    /// It does not exist, or there are too many watches.
    fn watch(&self, uri: &str) -> Result<(), Failure> {
        let _ = uri;
        Err(Failure::NotFound)
    }

    /// One subscription less.
    fn unwatch(&self, uri: &str) {
        let _ = uri;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cancellation_reaches_loops_and_waiters() {
        let cancel = Cancel::new();
        assert!(!cancel.is_cancelled());
        let waiter = tokio::spawn({
            let cancel = cancel.clone();
            async move { cancel.cancelled().await }
        });
        cancel.cancel();
        waiter.await.unwrap();
        assert!(cancel.is_cancelled());
        cancel.cancelled().await;
        let never = Cancel::default();
        never.cancel();
        assert!(!never.is_cancelled());
    }

    #[test]
    fn a_cancel_serves_another_call_only_where_nobody_can_know_it() {
        let inner = |cancel: &Cancel| cancel.0.as_ref().map(Arc::as_ptr);
        let first = Cancel::new();
        let known = inner(&first);
        first.over();
        let again = Cancel::new();
        assert_eq!(inner(&again), known);

        let held = again.clone();
        again.over();
        let other = Cancel::new();
        assert_ne!(inner(&other), known);
        held.cancel();
        assert!(!other.is_cancelled());

        held.over();
        other.cancel();
        other.over();
        assert!(!Cancel::new().is_cancelled());
        Cancel::default().over();
        let fresh = Cancel::new();
        fresh.cancel();
        assert!(fresh.is_cancelled());
    }
}
