//! A provider whose calls a test can watch and hold.

use std::sync::Arc;
use std::sync::OnceLock;

use countersign::backend::{
    Answer, Arguments, Context, Events, Failure, Happening, Note, Provider, ReadResult, Schema,
    Tool, ToolResult,
};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};

/// Offers tools without a prefix and resources `test:…` that can be watched.
pub struct Fixture {
    /// What `steps` and `wait` go on by.
    pub go: Arc<Semaphore>,
    /// Says what happens to calls.
    heard: mpsc::UnboundedSender<String>,
    events: OnceLock<Events>,
}

/// Says `over` when a call is dropped before its end.
struct Watched {
    heard: mpsc::UnboundedSender<String>,
    name: &'static str,
    done: bool,
}

impl Watched {
    fn done(mut self) {
        self.done = true;
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let end = if self.done { "done" } else { "dropped" };
        let _ = self.heard.send(format!("{} {end}", self.name));
    }
}

impl Fixture {
    /// The provider, and what it says.
    #[expect(clippy::disallowed_methods, reason = "a test reads all of it")]
    pub fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<String>) {
        let (heard, hears) = mpsc::unbounded_channel();
        let go = Arc::new(Semaphore::new(0));
        (
            Arc::new(Self {
                go,
                heard,
                events: OnceLock::new(),
            }),
            hears,
        )
    }

    /// Reports to whoever subscribed.
    pub fn happened(&self, what: Happening) {
        self.events.get().unwrap().happened(what);
    }

    fn watch_call(&self, name: &'static str) -> Watched {
        let _ = self.heard.send(format!("{name} begun"));
        Watched {
            heard: self.heard.clone(),
            name,
            done: false,
        }
    }
}

const TOOLS: [(&str, &str); 7] = [
    ("steps", r#"{"type":"object"}"#),
    ("wait", r#"{"type":"object"}"#),
    ("flood", r#"{"type":"object"}"#),
    ("leave", r#"{"type":"object"}"#),
    (
        "ask",
        r#"{"type":"object","properties":{"topic":{"type":"string"}}}"#,
    ),
    (
        "big",
        r#"{"type":"object","properties":{"bytes":{"type":"integer"}},"required":["bytes"]}"#,
    ),
    (
        "region",
        r#"{"type":"object","properties":{"region":{"type":"string","x-mcp-header":"Region"}}}"#,
    ),
];

fn question(context: &Context, topic: &Value) -> Result<ToolResult, Failure> {
    let answers: Option<Value> = context
        .input_responses
        .as_ref()
        .and_then(|raw| serde_json::from_slice(raw).ok());
    let name = answers
        .as_ref()
        .map(|all| all["name"]["content"]["name"].clone());
    match (name, context.request_state.as_deref()) {
        (Some(Value::String(name)), Some(state)) => {
            Ok(ToolResult::text(format!("{name}, {state}")))
        }
        _ => {
            let schema = json!({"type":"object","properties":{"name":{"type":"string"}}});
            let params = json!({"message":"Who?","requestedSchema":schema});
            let request = json!({"method":"elicitation/create","params":params});
            Err(Failure::InputRequired {
                requests: vec![("name".into(), request.to_string())],
                state: Some(format!("about {topic}")),
            })
        }
    }
}

impl Provider for Fixture {
    fn attach(&self, events: Events) {
        let _ = self.events.set(events);
    }

    fn tools(&self) -> Vec<Tool> {
        let tool = |(name, schema): (&str, &str)| {
            Tool::new(name, "for tests", Arc::new(Schema::new(schema).unwrap()))
        };
        TOOLS.into_iter().map(tool).collect()
    }

    fn owns_uri(&self, uri: &str) -> bool {
        uri.starts_with("test:")
    }

    fn read_resource(&self, _: Context, _: &str) -> Answer<ReadResult> {
        Answer::Now(Err(Failure::NotFound))
    }

    fn watch(&self, _: &str) -> Result<(), Failure> {
        Ok(())
    }

    fn call_tool(&self, context: Context, name: &str, arguments: Arguments) -> Answer<ToolResult> {
        let arguments: Value = arguments.parse().unwrap();
        let go = Arc::clone(&self.go);
        match name {
            "ask" => Answer::Now(question(&context, &arguments["topic"])),
            "region" => Answer::Now(Ok(ToolResult::text("here"))),
            "big" => {
                let bytes = usize::try_from(arguments["bytes"].as_u64().unwrap()).unwrap();
                Answer::Now(Ok(ToolResult::text("x".repeat(bytes))))
            }
            "steps" => {
                let watched = self.watch_call("steps");
                Answer::later(async move {
                    for step in 1..=3 {
                        context.progress(f64::from(step), Some(3.0), None);
                        go.acquire().await.unwrap().forget();
                    }
                    watched.done();
                    Ok(ToolResult::text("three steps"))
                })
            }
            "wait" => {
                let watched = self.watch_call("wait");
                Answer::later(async move {
                    go.acquire().await.unwrap().forget();
                    watched.done();
                    Ok(ToolResult::text("waited"))
                })
            }
            "leave" => Answer::later(async move {
                context.release();
                go.acquire().await.unwrap().forget();
                Ok(ToolResult::text("welcome back"))
            }),
            "flood" => {
                let watched = self.watch_call("flood");
                Answer::later(async move {
                    let notes = context.notes.clone().unwrap();
                    for step in 0..200_000_u32 {
                        let progress = f64::from(step);
                        notes.note(Note::Progress {
                            progress,
                            total: None,
                            message: None,
                        });
                        if step % 100 == 0 {
                            tokio::task::yield_now().await;
                        }
                    }
                    watched.done();
                    Ok(ToolResult::text("flooded"))
                })
            }
            _ => Answer::Now(Err(Failure::NotFound)),
        }
    }
}
