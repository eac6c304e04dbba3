//! The router: from a recorded call to the provider that answers it, or to the answers that the
//! server gives itself.

use std::sync::Arc;

use bytes::Bytes;

use crate::audit::{Recorded, Ticket};
use crate::backend::{
    Answer, ArgumentError, Caller, Catalogue, CompletionTarget, Context, Failure, ToolResult,
};
use crate::grant::Kind;
use crate::jsonrpc::{RpcError, code, write_string};
use crate::mcp::{Call, Detail, Filter, Method, Reference, Retry, Revision, ServerInfo};
use crate::policy::Permitted;

use super::cursor::Cursors;
use super::reply::{Dispatched, Effect, Listening, Members, Reply, Watch};
use super::rounds::{Held, Job, What};

/// What the configuration says about answers.
#[derive(Clone, Debug)]
pub struct RouterOptions {
    /// Elements of one page of a list.
    pub page_size: usize,
    /// `ttlMs` of lists and of `server/discover`, milliseconds.
    pub list_ttl_ms: u32,
    /// URIs that one `subscriptions/listen` may name.
    pub max_uris: usize,
}

impl Default for RouterOptions {
    fn default() -> Self {
        Self {
            page_size: 100,
            list_ttl_ms: 5_000,
            max_uris: 256,
        }
    }
}

/// Routes. One for the life of a server.
pub struct Router {
    pub(super) catalogue: Catalogue,
    pub(super) cursors: Cursors,
    pub(super) options: RouterOptions,
    info: ServerInfo,
    discover: Bytes,
}

impl Router {
    /// `info`: what the server says of itself.
    #[must_use]
    pub fn new(
        catalogue: Catalogue,
        cursors: Cursors,
        info: ServerInfo,
        options: RouterOptions,
    ) -> Self {
        let discover = info.discover().into();
        Self {
            catalogue,
            cursors,
            options,
            info,
            discover,
        }
    }

    /// What the server says of itself.
    #[must_use]
    pub const fn info(&self) -> &ServerInfo {
        &self.info
    }

    /// What is offered.
    #[must_use]
    pub const fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// Adds to a call what the thing that it names needs besides its own grant. Before deciding.
    pub fn complete_call(&self, call: &mut Call) {
        if let Detail::Tool { name, .. } = &call.detail
            && let Some(requires) = self.catalogue.requires(name)
        {
            call.also = Some(Arc::clone(requires));
        }
    }

    /// The answer to a call for something that does not exist, or that the caller shall believe
    /// does not exist: the two must not differ in a byte.
    #[must_use]
    pub fn missing(call: &Call) -> Reply {
        Reply::Error(missing_error(
            call.method,
            call.revision,
            &call.name,
            target_of(call),
        ))
    }

    /// Takes a recorded call to its answer. The ticket is for the outcome.
    pub fn dispatch(
        self: &Arc<Self>,
        recorded: Recorded<Permitted<Box<Call>>>,
        context: Context,
    ) -> (Ticket, Dispatched) {
        let (permitted, ticket) = recorded.into_parts();
        (ticket, self.route(permitted.into_call(), context))
    }

    fn route(self: &Arc<Self>, mut call: Box<Call>, mut context: Context) -> Dispatched {
        let (method, revision) = (call.method, call.revision);
        context.revision = revision;
        if revision.is_modern() {
            context.client_capabilities = call.meta.capabilities.take();
        }
        match call.detail {
            Detail::Nothing => self.own(method, &call.name, revision),
            Detail::Initialize {
                version,
                capabilities,
            } => {
                let revision = Revision::negotiate(&version);
                let members = self.info.initialize(revision);
                Dispatched::Effect(Reply::members(members), Effect::Pin(revision, capabilities))
            }
            Detail::List(cursor) => self.list(method, &context.caller, cursor),
            Detail::Tool {
                name,
                arguments,
                retry,
            } => self.call_tool(name, arguments, retry, context, revision),
            Detail::Resource(uri, retry) => self.resource(method, revision, uri, retry, context),
            Detail::Prompt {
                name,
                arguments,
                retry,
            } => self.prompt(name, arguments, retry, context, revision),
            Detail::Completion {
                reference,
                argument,
                value,
                given,
            } => self.complete(reference, &argument, &value, given, context, revision),
            Detail::Level(level) => {
                Dispatched::Effect(Reply::members(Bytes::new()), Effect::Level(level))
            }
            Detail::Listen(filter) => self.listen(filter, &context.caller),
        }
    }

    fn own(&self, method: Method, name: &str, revision: Revision) -> Dispatched {
        Dispatched::Now(match method {
            Method::Discover => Reply::Result {
                members: self.discover.clone().into(),
                tool_error: false,
                ttl_ms: self.options.list_ttl_ms,
            },
            Method::Ping => Reply::members(Bytes::new()),
            _ => Reply::Error(missing_error(method, revision, name, "")),
        })
    }

    fn list(
        self: &Arc<Self>,
        method: Method,
        caller: &Arc<Caller>,
        cursor: Option<String>,
    ) -> Dispatched {
        let cursor_text = cursor.as_deref();
        match method {
            Method::ToolsList => Dispatched::Now(self.list_tools(caller, cursor_text)),
            Method::PromptsList => Dispatched::Now(self.list_prompts(caller, cursor_text)),
            Method::TemplatesList => Dispatched::Now(self.list_templates(caller, cursor_text)),
            _ => {
                let (router, caller) = (Arc::clone(self), Arc::clone(caller));
                Dispatched::Later(Box::pin(router.list_resources(caller, cursor)))
            }
        }
    }

    fn call_tool(
        self: &Arc<Self>,
        name: String,
        arguments: Option<Bytes>,
        retry: Retry,
        context: Context,
        revision: Revision,
    ) -> Dispatched {
        let found = self.catalogue.tool(&name);
        let Some((tool, provider)) =
            found.and_then(|tool| Some((tool, self.catalogue.provider(tool.listed.provider)?)))
        else {
            let error = missing_error(Method::ToolsCall, revision, "", &name);
            return Dispatched::Now(Reply::Error(error));
        };
        let arguments = match tool.input.check(arguments) {
            Ok(arguments) => arguments,
            Err(mistakes) => return Dispatched::Now(wrong_arguments(&mistakes)),
        };
        let what = What::Tool(Held::Lent(&tool.listed.local), arguments);
        let job = Job {
            provider: Held::Lent(provider),
            what,
            target: name,
            revision,
        };
        self.run(job, context, retry)
    }

    fn resource(
        self: &Arc<Self>,
        method: Method,
        revision: Revision,
        uri: String,
        retry: Retry,
        context: Context,
    ) -> Dispatched {
        if method == Method::Unsubscribe {
            return Dispatched::Effect(Reply::members(Bytes::new()), Effect::Unsubscribe(uri));
        }
        let Some(provider) = self.catalogue.owner(&uri) else {
            return Dispatched::Now(Reply::Error(missing_error(method, revision, "", &uri)));
        };
        if method == Method::Subscribe {
            return match Watch::start(provider, &uri) {
                Ok(watch) => {
                    Dispatched::Effect(Reply::members(Bytes::new()), Effect::Subscribe(watch))
                }
                Err(failure) => Dispatched::Now(Reply::failure(failure, || {
                    missing_error(method, revision, "", &uri)
                })),
            };
        }
        let job = Job {
            provider: Held::Lent(provider),
            what: What::Resource,
            target: uri,
            revision,
        };
        self.run(job, context, retry)
    }

    fn prompt(
        self: &Arc<Self>,
        name: String,
        arguments: Vec<(String, String)>,
        retry: Retry,
        context: Context,
        revision: Revision,
    ) -> Dispatched {
        let found = self.catalogue.prompt(&name);
        let Some((prompt, provider)) =
            found.and_then(|one| Some((one, self.catalogue.provider(one.provider)?)))
        else {
            let error = missing_error(Method::PromptsGet, revision, "", &name);
            return Dispatched::Now(Reply::Error(error));
        };
        let what = What::Prompt(Held::Lent(&prompt.local), arguments);
        let job = Job {
            provider: Held::Lent(provider),
            what,
            target: name,
            revision,
        };
        self.run(job, context, retry)
    }

    fn complete(
        &self,
        reference: Reference,
        argument: &str,
        value: &str,
        given: Vec<(String, String)>,
        context: Context,
        revision: Revision,
    ) -> Dispatched {
        let (found, text) = match reference {
            Reference::Prompt(name) => {
                let found = self.catalogue.prompt(&name).and_then(|one| {
                    let target = CompletionTarget::Prompt(one.local.to_string());
                    Some((self.catalogue.provider(one.provider)?, target))
                });
                (found, name)
            }
            Reference::Resource(uri) => {
                let by_template = || {
                    let listed = self
                        .catalogue
                        .templates()
                        .iter()
                        .find(|one| one.key == uri)?;
                    self.catalogue.provider(listed.provider)
                };
                let provider = by_template().or_else(|| self.catalogue.owner(&uri));
                let target = CompletionTarget::Resource(uri.clone());
                (provider.map(|provider| (provider, target)), uri)
            }
        };
        let missing = move || missing_error(Method::Complete, revision, "", &text);
        let Some((provider, target)) = found else {
            return Dispatched::Now(Reply::Error(missing()));
        };
        // Completion must not disclose what the caller could not read.
        let filter = match &target {
            CompletionTarget::Prompt(_) => None,
            CompletionTarget::Resource(template) => Some(Disclosure {
                caller: Arc::clone(&context.caller),
                template: template.clone(),
                argument: argument.to_owned(),
                given: given.clone(),
            }),
        };
        answer(
            provider.complete(context, target, argument, value, given),
            move |mut completion| {
                if let Some(filter) = &filter {
                    let before = completion.values.len();
                    completion.values.retain(|value| filter.may_show(value));
                    // A total would tell how much was left out.
                    if completion.values.len() < before {
                        completion.total = None;
                    }
                }
                let mut members = Vec::new();
                completion.encode_members(&mut members);
                Reply::members(members)
            },
            missing,
        )
    }

    /// Entry by entry: what may not be read, does not exist or is too much is left out of the
    /// honoured subset, and the three look the same.
    fn listen(&self, mut filter: Filter, caller: &Caller) -> Dispatched {
        let mut watches = Vec::new();
        for uri in filter.uris.drain(..).take(self.options.max_uris) {
            if caller.grounds.allows(Kind::Resources, &uri)
                && let Some(provider) = self.catalogue.owner(&uri)
                && let Ok(watch) = Watch::start(provider, &uri)
            {
                watches.push(watch);
            }
        }
        filter.uris = watches.iter().map(|watch| watch.uri().to_owned()).collect();
        Dispatched::Listen(Listening { filter, watches })
    }
}

/// Which completions of a resource template a caller may see: those that lead to something that
/// it could read.
struct Disclosure {
    caller: Arc<Caller>,
    template: String,
    argument: String,
    given: Vec<(String, String)>,
}

impl Disclosure {
    fn may_show(&self, value: &str) -> bool {
        let mut expanded = self.template.clone();
        let known = self
            .given
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        // A folder is a beginning, not an end: what lies below it counts.
        let open = if value.ends_with('/') { "{rest}" } else { "" };
        let value = format!("{value}{open}");
        for (name, value) in known.chain([(self.argument.as_str(), value.as_str())]) {
            for operator in ["", "+"] {
                expanded = expanded.replace(&format!("{{{operator}{name}}}"), value);
            }
        }
        self.caller.grounds.could_allow(Kind::Resources, &expanded)
    }
}

fn target_of(call: &Call) -> &str {
    use crate::policy::Ask;
    call.target()
}

pub(super) fn tool_reply(result: ToolResult) -> Reply {
    Reply::Result {
        tool_error: result.is_error(),
        members: Members::Tool(result),
        ttl_ms: 0,
    }
}

/// Turns a provider's answer into a reply, now or later.
fn answer<T: 'static>(
    answer: Answer<T>,
    encode: impl FnOnce(T) -> Reply + Send + 'static,
    missing: impl FnOnce() -> RpcError + Send + 'static,
) -> Dispatched {
    let finish = move |result: Result<T, Failure>| match result {
        Ok(value) => encode(value),
        Err(failure) => Reply::failure(failure, missing),
    };
    match answer {
        Answer::Now(result) => Dispatched::Now(finish(result)),
        Answer::Later(future) => Dispatched::Later(Box::pin(async move { finish(future.await) })),
    }
}

/// Wrong arguments are the model's mistake, which it can mend: a tool error, not a protocol error.
fn wrong_arguments(mistakes: &[ArgumentError]) -> Reply {
    let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    let text = format!("invalid arguments: {}", lines.join("; "));
    tool_reply(ToolResult::error(text))
}

/// The error for a thing that is not there, as each method and revision words it.
pub(super) fn missing_error(
    method: Method,
    revision: Revision,
    name: &str,
    target: &str,
) -> RpcError {
    let about_uri = |error_code, message: &str| {
        let mut data = Vec::from(&br#"{"uri":"#[..]);
        write_string(&mut data, target);
        data.push(b'}');
        let data = Some(String::from_utf8_lossy(&data).into_owned());
        RpcError {
            code: error_code,
            message: message.to_owned(),
            data,
        }
    };
    match method {
        Method::ToolsCall => RpcError::new(code::INVALID_PARAMS, format!("unknown tool: {target}")),
        Method::PromptsGet => {
            RpcError::new(code::INVALID_PARAMS, format!("unknown prompt: {target}"))
        }
        Method::Complete => {
            RpcError::new(code::INVALID_PARAMS, format!("unknown reference: {target}"))
        }
        Method::ResourcesRead | Method::Subscribe | Method::Unsubscribe => {
            let modern = revision.is_modern();
            let number = if modern {
                code::INVALID_PARAMS
            } else {
                code::RESOURCE_NOT_FOUND
            };
            about_uri(number, "resource not found")
        }
        _ => RpcError::new(code::METHOD_NOT_FOUND, format!("unknown method: {name}")),
    }
}
