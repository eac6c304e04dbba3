//! The provider around a handler.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Waker, Poll};
use std::time::Duration;

use rmcp::model::{
    ArgumentInfo, CallToolRequestParams, CompleteRequestParams, CompletionContext, ErrorData,
    GetPromptRequestParams, InputResponses, JsonObject, ReadResourceRequestParams, Reference,
};
use rmcp::service::RequestContext;
use rmcp::{RoleServer, ServerHandler};
use tokio::sync::Semaphore;

use crate::backend::offer::{Completion, Page, Prompt, Resource, ResourceTemplate, Tool};
use crate::backend::provider::{
    Answer, Caller, CompletionTarget, Context, Events, Provider, RawJson,
};
use crate::backend::result::{Failure, PromptResult, ReadResult, ToolResult};
use crate::backend::schema::Arguments;

use super::session::{Reports, Session};
use super::standing::Standing;
use super::{listing, outcome};

/// How long a call that was cancelled may go on to tidy up.
const GRACE: Duration = Duration::from_secs(5);
/// How many may do so at once; any more end on the spot.
const LINGERING: usize = 64;

/// Why a handler cannot be hosted.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// One of its lists.
    #[error("the rmcp handler does not say what it offers: {0}")]
    List(String),
    /// A schema that arguments cannot be checked against.
    #[error("the rmcp handler offers what cannot be served: {0}")]
    Tool(String),
}

/// A hosted handler, to be given to [`crate::server::serve`].
///
/// [`crate::server::serve`]: ../../server/fn.serve.html
pub struct Hosted<H: ServerHandler> {
    handler: Arc<H>,
    standing: Arc<Standing<H>>,
    reports: Reports,
    tools: Vec<Tool>,
    prompts: Vec<Prompt>,
    templates: Vec<ResourceTemplate>,
    owns: Box<dyn Fn(&str) -> bool + Send + Sync>,
    lingering: Arc<Semaphore>,
}

/// Initializes the handler, reads what it offers, and makes a provider of it. In a runtime.
///
/// URIs of the schemes of the resources and templates that it lists now are its own;
/// [`Hosted::owning`] says otherwise.
///
/// # Errors
/// A list fails, or a tool's schema is not one.
pub async fn host<H: ServerHandler>(handler: H) -> Result<Hosted<H>, HostError> {
    let handler = Arc::new(handler);
    let reports = Reports::default();
    let standing = Arc::new(Standing::open(Arc::clone(&handler), Arc::clone(&reports)));
    let unlisted = |error: ErrorData| HostError::List(error.message.into_owned());
    let tools = listing::tools(&*handler, &standing)
        .await
        .map_err(unlisted)?;
    let tools = tools.into_iter().collect::<Result<_, _>>();
    let prompts = listing::prompts(&*handler, &standing).await;
    let templates = listing::templates(&*handler, &standing)
        .await
        .map_err(unlisted)?;
    let resources = listing::resources(&*handler, &standing)
        .await
        .map_err(unlisted)?;
    let listed = resources.iter().map(|one| one.uri.as_str());
    let listed = listed.chain(templates.iter().map(|one| one.uri_template.as_str()));
    let mut schemes: Vec<String> = listed.filter_map(scheme).collect();
    schemes.sort();
    schemes.dedup();
    Ok(Hosted {
        tools: tools.map_err(HostError::Tool)?,
        prompts: prompts.map_err(unlisted)?,
        templates,
        owns: Box::new(move |uri| scheme(uri).is_some_and(|one| schemes.contains(&one))),
        lingering: Arc::new(Semaphore::new(LINGERING)),
        handler,
        standing,
        reports,
    })
}

/// Who is calling, for a handler that asks. The same is an extension of the request, so that
/// `Extension(caller): Extension<Arc<Caller>>` is a parameter of a tool. `None` where nobody is:
/// when lists are read, and on the session that subscriptions run on.
#[must_use]
pub fn caller(context: &RequestContext<RoleServer>) -> Option<&Caller> {
    context.extensions.get::<Arc<Caller>>().map(AsRef::as_ref)
}

fn scheme(uri: &str) -> Option<String> {
    let (scheme, _) = uri.split_once(':')?;
    Some(scheme.to_ascii_lowercase())
}

impl<H: ServerHandler> Hosted<H> {
    /// Says which URIs belong to the handler. The first provider that owns a URI answers for it.
    #[must_use]
    pub fn owning(mut self, owns: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        self.owns = Box::new(owns);
        self
    }

    /// Takes a call to the handler, in a session of its own.
    fn attend<T, R>(
        &self,
        context: Context,
        run: impl FnOnce(Arc<H>, RequestContext<RoleServer>) -> R + Send + 'static,
    ) -> Answer<T>
    where
        T: Send + 'static,
        R: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        let handler = Arc::clone(&self.handler);
        let reports = Arc::clone(&self.reports);
        let lingering = Arc::clone(&self.lingering);
        Answer::later(async move {
            let session = Session::open(context, reports);
            let request = session.request();
            let token = request.ct.clone();
            let work = Box::pin(async move {
                let result = run(handler, request).await;
                drop(session);
                result
            });
            let attended = Attended {
                work: Some(work),
                cancel: move || token.cancel(),
                lingering,
            };
            attended.await
        })
    }
}

type Work<T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send>>;

/// A call of a handler. Dropped before its end it is told by its token, as the SDK does it, and
/// has a moment to tidy up.
struct Attended<T: Send + 'static, C: FnMut()> {
    work: Option<Work<T>>,
    cancel: C,
    lingering: Arc<Semaphore>,
}

impl<T: Send + 'static, C: FnMut() + Unpin> Future for Attended<T, C> {
    type Output = Result<T, Failure>;

    fn poll(mut self: Pin<&mut Self>, waker: &mut Waker<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Some(work) = &mut this.work else {
            return Poll::Pending;
        };
        let polled = work.as_mut().poll(waker);
        if polled.is_ready() {
            this.work = None;
            (this.cancel)();
        }
        polled
    }
}

impl<T: Send + 'static, C: FnMut()> Drop for Attended<T, C> {
    fn drop(&mut self) {
        let Some(work) = self.work.take() else {
            return;
        };
        (self.cancel)();
        let place = Arc::clone(&self.lingering).try_acquire_owned();
        if let (Ok(place), Ok(runtime)) = (place, tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move {
                let _ = tokio::time::timeout(GRACE, work).await;
                drop(place);
            });
        }
    }
}

fn answers(raw: Option<&RawJson>) -> Option<InputResponses> {
    outcome::answers(raw)
}

fn texts(given: Vec<(String, String)>) -> JsonObject {
    given
        .into_iter()
        .map(|(key, value)| (key, value.into()))
        .collect()
}

impl<H: ServerHandler> Provider for Hosted<H> {
    fn attach(&self, events: Events) {
        if self.reports.set(events).is_ok() {
            self.standing.follow();
        }
    }

    fn tools(&self) -> Vec<Tool> {
        self.tools.clone()
    }

    fn prompts(&self) -> Vec<Prompt> {
        self.prompts.clone()
    }

    fn resource_templates(&self) -> Vec<ResourceTemplate> {
        self.templates.clone()
    }

    fn owns_uri(&self, uri: &str) -> bool {
        (self.owns)(uri)
    }

    fn resources(&self, after: Option<String>, limit: usize) -> Answer<Page<Resource>> {
        let handler = Arc::clone(&self.handler);
        let standing = Arc::clone(&self.standing);
        Answer::later(async move {
            let all = listing::resources(&*handler, &standing).await;
            let mut all = all.map_err(outcome::failure)?.into_iter().peekable();
            while all
                .next_if(|one| after.as_ref().is_some_and(|after| one.uri <= *after))
                .is_some()
            {}
            let items: Vec<_> = all.by_ref().take(limit).collect();
            let last = items.last().map(|one| one.uri.clone());
            let next = last.filter(|_| all.peek().is_some());
            Ok(Page { items, next })
        })
    }

    fn call_tool(&self, context: Context, name: &str, arguments: Arguments) -> Answer<ToolResult> {
        let mut params = CallToolRequestParams::new(name.to_owned());
        match arguments.parse() {
            Ok(arguments) => params.arguments = Some(arguments),
            Err(failure) => return Answer::Now(Err(failure)),
        }
        params.input_responses = answers(context.input_responses.as_ref());
        params.request_state.clone_from(&context.request_state);
        self.attend(context, |handler, request| async move {
            let response = handler.call_tool(params, request).await;
            outcome::tool(response.map_err(outcome::failure)?)
        })
    }

    fn read_resource(&self, context: Context, uri: &str) -> Answer<ReadResult> {
        let mut params = ReadResourceRequestParams::new(uri);
        params.input_responses = answers(context.input_responses.as_ref());
        params.request_state.clone_from(&context.request_state);
        self.attend(context, |handler, request| async move {
            let response = handler.read_resource(params, request).await;
            outcome::read(response.map_err(outcome::failure)?)
        })
    }

    fn get_prompt(
        &self,
        context: Context,
        name: &str,
        arguments: Vec<(String, String)>,
    ) -> Answer<PromptResult> {
        let mut params = GetPromptRequestParams::new(name);
        params.arguments = Some(texts(arguments));
        params.input_responses = answers(context.input_responses.as_ref());
        params.request_state.clone_from(&context.request_state);
        self.attend(context, |handler, request| async move {
            let response = handler.get_prompt(params, request).await;
            outcome::prompt(response.map_err(outcome::failure)?)
        })
    }

    fn complete(
        &self,
        context: Context,
        target: CompletionTarget,
        argument: &str,
        value: &str,
        given: Vec<(String, String)>,
    ) -> Answer<Completion> {
        let about = match target {
            CompletionTarget::Prompt(name) => Reference::for_prompt(name),
            CompletionTarget::Resource(uri) => Reference::for_resource(uri),
        };
        let argument = serde_json::json!({"name": argument, "value": value});
        let Ok(argument) = serde_json::from_value::<ArgumentInfo>(argument) else {
            return Answer::Now(Ok(Completion::default()));
        };
        let mut params = CompleteRequestParams::new(about, argument);
        if !given.is_empty() {
            let given = serde_json::json!({"arguments": texts(given)});
            params.context = serde_json::from_value::<CompletionContext>(given).ok();
        }
        self.attend(context, |handler, request| async move {
            let result = handler.complete(params, request).await;
            Ok(outcome::completion(result.map_err(outcome::failure)?))
        })
    }

    fn watch(&self, uri: &str) -> Result<(), Failure> {
        self.standing.watch(uri)
    }

    fn unwatch(&self, uri: &str) {
        self.standing.unwatch(uri);
    }
}
