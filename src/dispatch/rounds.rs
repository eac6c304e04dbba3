//! Calls that cannot go on without the client: `InputRequiredResult` in the modern era, requests of
//! the server's own in the older ones. A provider is written once: it answers
//! [`Failure::InputRequired`] and is called again with what the client said.
//!
//! The state that goes out with an `InputRequiredResult` is sealed to the caller, the method, the
//! target and the arguments, and for an hour: nobody reads it, changes it or plays it back
//! elsewhere.

use std::ops::Deref;
use std::sync::Arc;

use serde_json::Value;

use crate::backend::{
    Answer, Arguments, AskError, Asker, Context, Failure, Provider, RawJson, ToolResult,
};
use crate::clock::{self, UnixTime};
use crate::jsonrpc::{RpcError, code};
use crate::mcp::{Method, Retry, Revision};

use super::cursor::Cursors;
use super::reply::{Dispatched, Reply};
use super::router::{Router, missing_error, tool_reply};

/// Rounds of questions that one call of an older revision may take.
const ROUNDS: usize = 8;
/// How long a state may be out, seconds.
const STATE_SECONDS: i64 = 3600;

/// Something of the catalogue: lent as long as a call can be answered on the spot, kept when it must
/// wait. Every thread that counts a holder of the same thing up and down takes its counter away from
/// the others' caches, with each call.
pub(super) enum Held<'a, T: ?Sized> {
    Lent(&'a Arc<T>),
    Kept(Arc<T>),
}

impl<T: ?Sized> Held<'_, T> {
    fn keep(self) -> Held<'static, T> {
        Held::Kept(match self {
            Self::Lent(it) => Arc::clone(it),
            Self::Kept(it) => it,
        })
    }
}

impl<T: ?Sized> Deref for Held<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Self::Lent(it) => it,
            Self::Kept(it) => it,
        }
    }
}

/// What a provider is called for.
pub(super) enum What<'a> {
    /// A tool by the provider's own name.
    Tool(Held<'a, str>, Arguments),
    /// A resource.
    Resource,
    /// A prompt by the provider's own name.
    Prompt(Held<'a, str>, Vec<(String, String)>),
}

/// One call of a method that may take several rounds.
pub(super) struct Job<'a> {
    pub provider: Held<'a, dyn Provider>,
    pub what: What<'a>,
    /// The full name or the URI.
    pub target: String,
    pub revision: Revision,
}

impl Job<'_> {
    /// For a future, which may outlive what was lent.
    fn keep(self) -> Job<'static> {
        Job {
            provider: self.provider.keep(),
            what: match self.what {
                What::Tool(local, arguments) => What::Tool(local.keep(), arguments),
                What::Resource => What::Resource,
                What::Prompt(local, arguments) => What::Prompt(local.keep(), arguments),
            },
            target: self.target,
            revision: self.revision,
        }
    }

    const fn method(&self) -> Method {
        match self.what {
            What::Tool(..) => Method::ToolsCall,
            What::Resource => Method::ResourcesRead,
            What::Prompt(..) => Method::PromptsGet,
        }
    }

    fn attempt(&self, context: Context) -> Answer<Reply> {
        match &self.what {
            What::Tool(local, arguments) => map(
                self.provider.call_tool(context, local, arguments.clone()),
                tool_reply,
            ),
            What::Resource => map(
                self.provider.read_resource(context, &self.target),
                |result| {
                    let mut members = Vec::new();
                    result.encode_members(&mut members);
                    Reply::members(members)
                },
            ),
            What::Prompt(local, arguments) => map(
                self.provider.get_prompt(context, local, arguments.clone()),
                |result| {
                    let mut members = Vec::new();
                    result.encode_members(&mut members);
                    Reply::members(members)
                },
            ),
        }
    }

    fn failed(&self, failure: Failure) -> Reply {
        Reply::failure(failure, || {
            missing_error(self.method(), self.revision, "", &self.target)
        })
    }

    /// What a state is bound to besides its caller.
    fn bound(&self) -> String {
        let (method, about) = match &self.what {
            What::Tool(_, arguments) => ("tools/call", canonical(arguments.raw())),
            What::Resource => ("resources/read", String::new()),
            What::Prompt(_, arguments) => {
                let mut sorted = arguments.clone();
                sorted.sort();
                ("prompts/get", format!("{sorted:?}"))
            }
        };
        let digest = ring::digest::digest(&ring::digest::SHA256, about.as_bytes());
        format!("state\0{method}\0{}\0{}", self.target, hex::encode(digest))
    }
}

/// The same text for the same arguments, however a client writes them.
fn canonical(raw: &[u8]) -> String {
    fn write(value: &Value, out: &mut String) {
        match value {
            Value::Object(members) => {
                let mut sorted: Vec<_> = members.iter().collect();
                sorted.sort_by_key(|(key, _)| *key);
                out.push('{');
                for (key, value) in sorted {
                    out.push_str(&format!("{key:?}:"));
                    write(value, out);
                    out.push(',');
                }
                out.push('}');
            }
            Value::Array(items) => {
                out.push('[');
                for item in items {
                    write(item, out);
                    out.push(',');
                }
                out.push(']');
            }
            other => out.push_str(&other.to_string()),
        }
    }
    let mut out = String::new();
    if let Ok(value) = serde_json::from_slice(raw) {
        write(&value, &mut out);
    }
    out
}

fn map<T: 'static>(answer: Answer<T>, encode: fn(T) -> Reply) -> Answer<Reply> {
    match answer {
        Answer::Now(result) => Answer::Now(result.map(encode)),
        Answer::Later(future) => Answer::later(async move { future.await.map(encode) }),
    }
}

/// How the client of an older revision is asked, and what the provider is given again then.
struct Again {
    asker: Arc<dyn Asker>,
    context: Context,
}

impl Router {
    /// Takes what a retry carries into the context. False: the state is not ours, or not this
    /// caller's, or not for this call.
    pub(super) fn take_retry(&self, context: &mut Context, retry: Retry, job: &Job<'_>) -> bool {
        context.input_responses = retry.responses;
        context.request_state = match retry.state {
            None => None,
            Some(sealed) => {
                let name = context.caller.peer.name().as_str();
                match open_state(&self.cursors, name, &job.bound(), &sealed) {
                    Some(state) => Some(state),
                    None => return false,
                }
            }
        };
        true
    }

    /// Runs a job to its reply, round after round where it takes several.
    pub(super) fn run(
        self: &Arc<Self>,
        job: Job<'_>,
        mut context: Context,
        retry: Retry,
    ) -> Dispatched {
        if (retry.state.is_some() || retry.responses.is_some())
            && !self.take_retry(&mut context, retry, &job)
        {
            return Dispatched::Now(bad_state());
        }
        let asker = context.asker.clone();
        let capabilities = context.client_capabilities.clone();
        let caller = Arc::clone(&context.caller);
        let again = asker.map(|asker| Again {
            asker,
            context: context.clone(),
        });
        let seal = move |router: &Self, job: &Job<'_>, failure: Failure| {
            let name = caller.peer.name().as_str();
            router.ask_modern(job, name, capabilities.as_ref(), failure)
        };
        match job.attempt(context) {
            Answer::Now(Ok(reply)) => Dispatched::Now(reply),
            Answer::Now(Err(failure)) => match again.filter(|_| is_question(&failure)) {
                Some(again) => Dispatched::Later(Box::pin(legacy(job.keep(), again, failure))),
                None => Dispatched::Now(seal(self, &job, failure)),
            },
            Answer::Later(first) => {
                let (router, job) = (Arc::clone(self), job.keep());
                Dispatched::Later(Box::pin(async move {
                    match (first.await, again) {
                        (Ok(reply), _) => reply,
                        (Err(failure), Some(again)) => legacy(job, again, failure).await,
                        (Err(failure), None) => seal(&router, &job, failure),
                    }
                }))
            }
        }
    }

    /// What a failure is answered with where nobody can be asked in between.
    fn ask_modern(
        &self,
        job: &Job<'_>,
        name: &str,
        capabilities: Option<&RawJson>,
        failure: Failure,
    ) -> Reply {
        let Failure::InputRequired { requests, state } = failure else {
            return job.failed(failure);
        };
        if let Some(missing) = missing_capability(&requests, capabilities) {
            return job.failed(Failure::MissingCapability(missing));
        }
        if !job.revision.is_modern() {
            // The client declared what is asked for, but this way there is nothing to ask it on.
            return Reply::error(
                code::INTERNAL,
                "this call has a question, and there is no stream to ask it on",
            );
        }
        match state {
            None => Reply::InputRequired(requests, None),
            Some(state) => match seal_state(&self.cursors, name, &job.bound(), &state) {
                Some(sealed) => Reply::InputRequired(requests, Some(sealed)),
                None => Reply::error(code::INTERNAL, "internal error"),
            },
        }
    }
}

const fn is_question(failure: &Failure) -> bool {
    matches!(failure, Failure::InputRequired { .. })
}

/// Asks and calls again until there is a reply.
async fn legacy(job: Job<'static>, again: Again, mut failure: Failure) -> Reply {
    for _ in 0..ROUNDS {
        let Failure::InputRequired { requests, state } = failure else {
            return job.failed(failure);
        };
        let capabilities = again.context.client_capabilities.as_ref();
        if let Some(missing) = missing_capability(&requests, capabilities) {
            return job.failed(Failure::MissingCapability(missing));
        }
        let answers = match again.asker.ask(requests).await {
            Ok(answers) => answers,
            Err(error) => return unanswered(&job, &error),
        };
        let mut context = again.context.clone();
        context.input_responses = Some(answers);
        context.request_state = state;
        match job.attempt(context).wait().await {
            Ok(reply) => return reply,
            Err(next) => failure = next,
        }
    }
    Reply::error(code::INTERNAL, "the call asked too many questions")
}

/// A tool that got no answer failed, which its caller can read; everything else is an error.
fn unanswered(job: &Job<'_>, error: &AskError) -> Reply {
    match job.what {
        What::Tool(..) => tool_reply(ToolResult::error(error.to_string())),
        _ => Reply::error(code::INTERNAL, error.to_string()),
    }
}

fn bad_state() -> Reply {
    Reply::Error(RpcError::new(
        code::INVALID_PARAMS,
        "the request state is not one of this call",
    ))
}

/// The first capability that the requests need and the client did not declare, as a
/// `ClientCapabilities` object.
fn missing_capability(
    requests: &[(String, String)],
    capabilities: Option<&RawJson>,
) -> Option<String> {
    let declared: Value = capabilities
        .and_then(|raw| serde_json::from_slice(raw).ok())
        .unwrap_or(Value::Null);
    let missing = requests.iter().find_map(|(_, request)| {
        let request: Value = serde_json::from_str(request).ok()?;
        lacks(&request, &declared)
    });
    missing.map(str::to_owned)
}

fn lacks(request: &Value, declared: &Value) -> Option<&'static str> {
    let params = &request["params"];
    match request["method"].as_str()? {
        "elicitation/create" => {
            let elicitation = declared
                .get("elicitation")
                .filter(|value| value.is_object());
            let Some(modes) = elicitation.and_then(Value::as_object) else {
                return Some(r#"{"elicitation":{}}"#);
            };
            if params["mode"] == "url" {
                return (!modes.contains_key("url")).then_some(r#"{"elicitation":{"url":{}}}"#);
            }
            // An empty object stands for forms.
            let forms = modes.contains_key("form") || !modes.contains_key("url");
            (!forms).then_some(r#"{"elicitation":{"form":{}}}"#)
        }
        "sampling/createMessage" => {
            let sampling = declared.get("sampling").filter(|value| value.is_object());
            let Some(sampling) = sampling else {
                return Some(r#"{"sampling":{}}"#);
            };
            let tools = params.get("tools").is_some() || params.get("toolChoice").is_some();
            (tools && sampling.get("tools").is_none()).then_some(r#"{"sampling":{"tools":{}}}"#)
        }
        "roots/list" => declared.get("roots").is_none().then_some(r#"{"roots":{}}"#),
        _ => None,
    }
}

fn seal_state(cursors: &Cursors, name: &str, bound: &str, state: &str) -> Option<String> {
    let UnixTime(now) = clock::unix_now();
    let until = now.saturating_add(STATE_SECONDS);
    cursors.seal(name, bound, &format!("{until}:{state}"))
}

fn open_state(cursors: &Cursors, name: &str, bound: &str, sealed: &str) -> Option<String> {
    let plain = cursors.open(name, bound, sealed)?;
    let (until, state) = plain.split_once(':')?;
    let UnixTime(now) = clock::unix_now();
    (until.parse::<i64>().ok()? >= now).then(|| state.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_state_is_bound_and_opens_for_its_call_only() {
        let cursors = Cursors::new().unwrap();
        let sealed = seal_state(&cursors, "ann", "state\0tools/call\0t", "a:b").unwrap();
        let open = |name, bound, sealed: &str| open_state(&cursors, name, bound, sealed);
        assert_eq!(
            open("ann", "state\0tools/call\0t", &sealed).as_deref(),
            Some("a:b")
        );
        assert_eq!(open("bob", "state\0tools/call\0t", &sealed), None);
        assert_eq!(open("ann", "state\0tools/call\0u", &sealed), None);
        assert_eq!(open("ann", "state\0tools/call\0t", "x"), None);
        let late = cursors.seal("ann", "state\0tools/call\0t", "1:a").unwrap();
        assert_eq!(open("ann", "state\0tools/call\0t", &late), None);
    }

    #[test]
    fn arguments_are_the_same_in_any_order() {
        let one = canonical(br#"{"a":1,"b":{"x":"\u0041","y":[1,2]}}"#);
        assert_eq!(one, canonical(br#" {"b":{"y":[1,2],"x":"A"},"a":1}"#));
        assert_ne!(one, canonical(br#"{"a":1,"b":{"x":"A","y":[2,1]}}"#));
    }

    #[test]
    fn what_was_not_declared_is_not_asked_for() {
        let lacking = |declared: Value, method: &str, params: Value| {
            lacks(&json!({"method": method, "params": params}), &declared)
        };
        let form = json!({"message":"m"});
        let url = json!({"mode":"url"});
        let elicit = "elicitation/create";
        assert_eq!(
            lacking(json!({"elicitation":{}}), elicit, form.clone()),
            None
        );
        assert_eq!(
            lacking(json!({"elicitation":{"form":{}}}), elicit, form.clone()),
            None
        );
        assert!(lacking(json!({"elicitation":{"url":{}}}), elicit, form.clone()).is_some());
        assert!(lacking(json!({}), elicit, form).is_some());
        assert!(lacking(json!({"elicitation":{}}), elicit, url.clone()).is_some());
        assert_eq!(
            lacking(json!({"elicitation":{"url":{}}}), elicit, url),
            None
        );
        let sample = "sampling/createMessage";
        assert_eq!(lacking(json!({"sampling":{}}), sample, json!({})), None);
        assert!(lacking(json!({"sampling":{}}), sample, json!({"tools":[]})).is_some());
        assert_eq!(
            lacking(Value::Null, "roots/list", json!({})),
            Some(r#"{"roots":{}}"#)
        );
    }
}
