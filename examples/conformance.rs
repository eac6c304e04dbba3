//! The server that the official conformance suite asks for, hosted as any program would host its own
//! tools: a provider written against the public trait, behind Countersign's admission, policy and
//! audit.
//!
//! ```text
//! conformance countersign.toml
//! ```
//!
//! It runs with the configuration that it is given and prints the addresses that it listens on. The
//! suite speaks plain HTTP, so it comes in through `countersign connect --listen`.
#![allow(
    clippy::print_stdout,
    reason = "whoever starts it reads the addresses there"
)]

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use countersign::backend::{
    Answer, Arguments, Body, Completion, CompletionTarget, Content, Context, Events, Failure,
    Happening, Page, Prompt, PromptArgument, PromptResult, Provider, ReadResult, Resource,
    ResourceTemplate, Tool, ToolResult, Toolbox,
};
use countersign::config::Config;
use countersign::mcp::Severity;
use countersign::server;
use serde_json::{Value, json};

/// One red pixel.
const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==";
/// No sound at all.
const WAV: &str = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA=";
const NOTHING: &str = r#"{"type":"object"}"#;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args()
        .nth(1)
        .ok_or("usage: conformance CONFIGURATION")?;
    let load = move || {
        Config::load(Path::new(&path), std::iter::empty()).map_err(|all| {
            all.iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("; ")
        })
    };
    let config = load()?;
    let fixture: Arc<dyn Provider> = Arc::new(Fixture::new()?);
    // A provider without a name puts nothing before the names of its tools.
    let providers = vec![(String::new(), fixture)];
    let stop = async {
        // Without the signal there is nothing to wait for.
        let _ = tokio::signal::ctrl_c().await;
        "interrupted"
    };
    let ready = |ready: server::Ready| println!("{:?}", ready.addresses);
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(server::serve(
        config,
        providers,
        Box::new(load),
        stop,
        ready,
    ))?;
    Ok(())
}

/// Where changes are reported, once the server has said so.
type Reports = Arc<OnceLock<Events>>;

struct Fixture {
    tools: Toolbox,
    reports: Reports,
}

impl Fixture {
    fn new() -> Result<Self, String> {
        let reports = Reports::default();
        let tools = plain_tools(Toolbox::new())?;
        let tools = talking_tools(tools)?;
        let tools = asking_tools(tools)?;
        let tools = round_tools(tools)?;
        let tools = changing_tools(tools, &reports)?;
        Ok(Self { tools, reports })
    }
}

fn bytes(base64: &str) -> Bytes {
    STANDARD.decode(base64).expect("a constant").into()
}

fn png() -> Content {
    Content::Image {
        data: bytes(PNG),
        mime_type: "image/png".into(),
    }
}

fn resource(uri: &str, mime_type: &str, text: &str) -> Content {
    let body = Body::Text(text.into());
    Content::Resource {
        uri: uri.into(),
        mime_type: Some(mime_type.into()),
        body,
    }
}

fn parts(content: Vec<Content>) -> ToolResult {
    ToolResult::Parts {
        content,
        structured: None,
        is_error: false,
    }
}

/// A tool that answers always the same.
fn fixed(tools: Toolbox, name: &str, about: &str, result: ToolResult) -> Result<Toolbox, String> {
    tools.tool(name, about, NOTHING, move |_, _| {
        std::future::ready(Ok(result.clone()))
    })
}

fn plain_tools(tools: Toolbox) -> Result<Toolbox, String> {
    let text = "This is a simple text response for testing.";
    let tools = fixed(
        tools,
        "test_simple_text",
        "Answers text",
        ToolResult::text(text),
    )?;
    let tools = fixed(
        tools,
        "test_image_content",
        "Answers an image",
        parts(vec![png()]),
    )?;
    let sound = Content::Audio {
        data: bytes(WAV),
        mime_type: "audio/wav".into(),
    };
    let tools = fixed(
        tools,
        "test_audio_content",
        "Answers a sound",
        parts(vec![sound]),
    )?;
    let inside = "This is an embedded resource content.";
    let embedded = resource("test://embedded-resource", "text/plain", inside);
    let tools = fixed(
        tools,
        "test_embedded_resource",
        "Answers a resource",
        parts(vec![embedded]),
    )?;
    let mixed = vec![
        Content::Text("Multiple content types test:".into()),
        png(),
        resource(
            "test://mixed-content-resource",
            "application/json",
            r#"{"test":"data","value":123}"#,
        ),
    ];
    let tools = fixed(
        tools,
        "test_multiple_content_types",
        "Answers three things",
        parts(mixed),
    )?;
    let error = ToolResult::error("This tool intentionally returns an error for testing");
    let tools = fixed(tools, "test_error_handling", "Fails", error)?;
    let schema = r##"{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object","$defs":{"address":{"$anchor":"addressDef","type":"object","properties":{"street":{"type":"string"},"city":{"type":"string"}}}},"properties":{"name":{"type":"string"},"address":{"$ref":"#/$defs/address"},"contactMethod":{"type":"string","enum":["phone","email"]},"phone":{"type":"string"},"email":{"type":"string"}},"allOf":[{"anyOf":[{"required":["phone"]},{"required":["email"]}]}],"if":{"properties":{"contactMethod":{"const":"phone"}},"required":["contactMethod"]},"then":{"required":["phone"]},"else":{"required":["email"]},"additionalProperties":false}"##;
    let about = "Tool with JSON Schema 2020-12 features";
    let tools = tools.tool(
        "json_schema_2020_12_tool",
        about,
        schema,
        |_, arguments| async move {
            Ok(ToolResult::text(
                String::from_utf8_lossy(arguments.raw()).into_owned(),
            ))
        },
    )?;
    let schema = r#"{"type":"object","properties":{"region":{"type":"string","x-mcp-header":"Region"}},"required":["region"]}"#;
    tools.tool(
        "test_custom_header",
        "Has an argument in a header",
        schema,
        |_, arguments| async move {
            Ok(ToolResult::text(
                String::from_utf8_lossy(arguments.raw()).into_owned(),
            ))
        },
    )
}

async fn a_moment() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

fn talking_tools(tools: Toolbox) -> Result<Toolbox, String> {
    let about = "Reports its progress";
    let tools = tools.tool(
        "test_tool_with_progress",
        about,
        NOTHING,
        |context, _| async move {
            context.progress(0.0, Some(100.0), None);
            a_moment().await;
            context.progress(50.0, Some(100.0), None);
            a_moment().await;
            context.progress(100.0, Some(100.0), None);
            Ok(ToolResult::text("Progress was reported."))
        },
    )?;
    let logs = |context: Context, _: Arguments| async move {
        let steps = [
            "Tool execution started",
            "Tool processing data",
            "Tool execution completed",
        ];
        for (index, step) in steps.into_iter().enumerate() {
            if index > 0 {
                a_moment().await;
            }
            context.log(
                Severity::Info,
                Some("conformance"),
                &json!(step).to_string(),
            );
        }
        Ok(ToolResult::text("Messages were logged."))
    };
    let tools = tools.tool(
        "test_tool_with_logging",
        "Logs three messages",
        NOTHING,
        logs,
    )?;
    let tools = tools.tool(
        "test_logging_tool",
        "Logs where it is asked to",
        NOTHING,
        logs,
    )?;
    let about = "Lets its stream go and answers whoever comes back for it";
    tools.tool(
        "test_reconnection",
        about,
        NOTHING,
        |context, _| async move {
            context.release();
            tokio::time::sleep(Duration::from_millis(200)).await;
            Ok(ToolResult::text(
                "Reconnection test completed successfully.",
            ))
        },
    )
}

/// What the client said to this key.
fn answer_to(context: &Context, key: &str) -> Option<Value> {
    let answers: Value = serde_json::from_slice(context.input_responses.as_ref()?).ok()?;
    answers
        .get(key)
        .filter(|answer| answer.is_object())
        .cloned()
}

/// A field that a person filled in.
fn filled_in(context: &Context, key: &str, field: &str) -> Option<Value> {
    let answer = answer_to(context, key)?;
    let accepted = answer["action"] == "accept";
    answer["content"].get(field).filter(|_| accepted).cloned()
}

fn ask(requests: Vec<(&str, Value)>, state: Option<&str>) -> Failure {
    let requests = requests
        .into_iter()
        .map(|(key, request)| (key.to_owned(), request.to_string()));
    Failure::InputRequired {
        requests: requests.collect(),
        state: state.map(str::to_owned),
    }
}

fn form(message: &str, properties: Value, required: &[&str]) -> Value {
    let schema = json!({"type":"object","properties":properties,"required":required});
    json!({"method":"elicitation/create","params":{"message":message,"requestedSchema":schema}})
}

fn name_form() -> Value {
    form(
        "What is your name?",
        json!({"name":{"type":"string"}}),
        &["name"],
    )
}

fn sample(text: &str, max_tokens: u32) -> Value {
    let message = json!({"role":"user","content":{"type":"text","text":text}});
    json!({"method":"sampling/createMessage","params":{"messages":[message],"maxTokens":max_tokens}})
}

fn roots() -> Value {
    json!({"method":"roots/list","params":{}})
}

/// One question, then its answer as text.
fn once(
    tools: Toolbox,
    name: &str,
    about: &str,
    request: Value,
    say: fn(&Value) -> String,
) -> Result<Toolbox, String> {
    tools.tool(name, about, NOTHING, move |context, _| {
        let request = request.clone();
        async move {
            match answer_to(&context, "question") {
                Some(answer) => Ok(ToolResult::text(say(&answer))),
                None => Err(ask(vec![("question", request)], None)),
            }
        }
    })
}

fn asking_tools(tools: Toolbox) -> Result<Toolbox, String> {
    let schema =
        r#"{"type":"object","properties":{"prompt":{"type":"string"}},"required":["prompt"]}"#;
    let tools = tools.tool(
        "test_sampling",
        "Asks the client's model",
        schema,
        |context, arguments| async move {
            let arguments: Value = arguments.parse()?;
            match answer_to(&context, "sample") {
                Some(answer) => {
                    let text = answer["content"]["text"].as_str().unwrap_or_default();
                    Ok(ToolResult::text(format!("LLM response: {text}")))
                }
                None => {
                    let prompt = arguments["prompt"].as_str().unwrap_or_default();
                    Err(ask(vec![("sample", sample(prompt, 100))], None))
                }
            }
        },
    )?;
    let schema =
        r#"{"type":"object","properties":{"message":{"type":"string"}},"required":["message"]}"#;
    let tools = tools.tool(
        "test_elicitation",
        "Asks a person",
        schema,
        |context, arguments| async move {
            let arguments: Value = arguments.parse()?;
            match answer_to(&context, "form") {
                Some(answer) => Ok(ToolResult::text(format!("User response: {answer}"))),
                None => {
                    let fields = json!({
                    "username": {"type":"string","description":"User's response"},
                    "email": {"type":"string","description":"User's email address"}});
                    let message = arguments["message"].as_str().unwrap_or_default();
                    Err(ask(
                        vec![("form", form(message, fields, &["username", "email"]))],
                        None,
                    ))
                }
            }
        },
    )?;
    let completed = |answer: &Value| {
        format!(
            "Elicitation completed: action={}, content={}",
            answer["action"], answer["content"]
        )
    };
    let defaults = json!({
        "name": {"type":"string","default":"John Doe"},
        "age": {"type":"integer","default":30},
        "score": {"type":"number","default":95.5},
        "status": {"type":"string","enum":["active","inactive","pending"],"default":"active"},
        "verified": {"type":"boolean","default":true}});
    let about = "Asks with defaults";
    let request = form("Please check these values", defaults, &[]);
    let tools = once(
        tools,
        "test_elicitation_sep1034_defaults",
        about,
        request,
        completed,
    )?;
    let titled = |titles: [&str; 3]| {
        let one =
            |(n, title): (usize, &str)| json!({"const":format!("value{}", n + 1),"title":title});
        titles.into_iter().enumerate().map(one).collect::<Vec<_>>()
    };
    let options = json!(["option1", "option2", "option3"]);
    let enums = json!({
        "untitledSingle": {"type":"string","enum":options},
        "titledSingle": {"type":"string","oneOf":titled(["First Option","Second Option","Third Option"])},
        "legacyEnum": {"type":"string","enum":["opt1","opt2","opt3"],
            "enumNames":["Option One","Option Two","Option Three"]},
        "untitledMulti": {"type":"array","items":{"type":"string","enum":options}},
        "titledMulti": {"type":"array",
            "items":{"anyOf":titled(["First Choice","Second Choice","Third Choice"])}}});
    let request = form("Please choose", enums, &[]);
    let tools = once(
        tools,
        "test_elicitation_sep1330_enums",
        "Asks for choices",
        request,
        completed,
    )?;
    let tools = once(
        tools,
        "test_streaming_elicitation",
        "Asks on a stream",
        name_form(),
        Value::to_string,
    )?;
    tools.tool(
        "test_missing_capability",
        "Needs sampling",
        NOTHING,
        |context, _| async move {
            if context.client_can(&["sampling"]) {
                Ok(ToolResult::text("The client can sample."))
            } else {
                Err(Failure::MissingCapability(r#"{"sampling":{}}"#.into()))
            }
        },
    )
}

fn round_tools(tools: Toolbox) -> Result<Toolbox, String> {
    const PREFIX: &str = "test_input_required_result_";
    let name = |end: &str| format!("{PREFIX}{end}");
    let tools = tools.tool(
        &name("elicitation"),
        "Asks for a name",
        NOTHING,
        |context, _| async move {
            match filled_in(&context, "user_name", "name")
                .as_ref()
                .and_then(Value::as_str)
            {
                Some(name) => Ok(ToolResult::text(format!("Hello, {name}!"))),
                None => Err(ask(vec![("user_name", name_form())], None)),
            }
        },
    )?;
    let tools = tools.tool(
        &name("sampling"),
        "Asks a model",
        NOTHING,
        |context, _| async move {
            match answer_to(&context, "capital_question") {
                Some(answer) => Ok(ToolResult::text(
                    answer["content"]["text"].as_str().unwrap_or_default(),
                )),
                None => {
                    let question = sample("What is the capital of France?", 100);
                    Err(ask(vec![("capital_question", question)], None))
                }
            }
        },
    )?;
    let tools = tools.tool(
        &name("list_roots"),
        "Asks for roots",
        NOTHING,
        |context, _| async move {
            match answer_to(&context, "client_roots") {
                Some(answer) => Ok(ToolResult::text(answer["roots"].to_string())),
                None => Err(ask(vec![("client_roots", roots())], None)),
            }
        },
    )?;
    let confirm = |context: Context, _: Arguments| async move {
        let ok = filled_in(&context, "confirm", "ok").is_some();
        if ok && context.request_state.as_deref() == Some("asked to confirm") {
            return Ok(ToolResult::text("state-ok"));
        }
        let question = form("Please confirm", json!({"ok":{"type":"boolean"}}), &["ok"]);
        Err(ask(vec![("confirm", question)], Some("asked to confirm")))
    };
    let tools = tools.tool(&name("request_state"), "Keeps a state", NOTHING, confirm)?;
    let tools = tools.tool(
        &name("tampered_state"),
        "Keeps its state safe",
        NOTHING,
        confirm,
    )?;
    let tools = tools.tool(
        &name("multiple_inputs"),
        "Asks three things",
        NOTHING,
        |context, _| async move {
            let keys = ["user_name", "greeting", "client_roots"];
            let answers = keys.map(|key| answer_to(&context, key));
            if context.request_state.is_some() && answers.iter().all(Option::is_some) {
                return Ok(ToolResult::text("Everything was answered."));
            }
            let requests = [name_form(), sample("Generate a greeting", 50), roots()];
            Err(ask(
                keys.into_iter().zip(requests).collect(),
                Some("asked three things"),
            ))
        },
    )?;
    let tools = tools.tool(
        &name("multi_round"),
        "Asks twice",
        NOTHING,
        |context, _| async move {
            let step = |number: &str, what: &str, field: &str| {
                form(
                    &format!("Step {number}: {what}"),
                    json!({field:{"type":"string"}}),
                    &[field],
                )
            };
            let name = filled_in(&context, "step1", "name");
            let color = filled_in(&context, "step2", "color");
            match (context.request_state.as_deref(), name, color) {
                (Some("one"), Some(name), _) => {
                    let question = step("2", "What is your favorite color?", "color");
                    Err(ask(vec![("step2", question)], Some(&format!("two {name}"))))
                }
                (Some(state), _, Some(color)) if state.starts_with("two ") => {
                    Ok(ToolResult::text(format!("{} likes {color}", &state[4..])))
                }
                _ => Err(ask(
                    vec![("step1", step("1", "What is your name?", "name"))],
                    Some("one"),
                )),
            }
        },
    )?;
    tools.tool(
        &name("capabilities"),
        "Asks what can be asked",
        NOTHING,
        |context, _| async move {
            let all = [
                ("elicitation", "user_name", name_form()),
                ("sampling", "greeting", sample("Generate a greeting", 50)),
                ("roots", "client_roots", roots()),
            ];
            let can = all
                .into_iter()
                .filter(|(capability, ..)| context.client_can(&[*capability]));
            let requests: Vec<_> = can.map(|(_, key, request)| (key, request)).collect();
            if requests
                .iter()
                .all(|(key, _)| answer_to(&context, key).is_some())
            {
                return Ok(ToolResult::text(
                    "Everything that could be asked was answered.",
                ));
            }
            Err(ask(requests, None))
        },
    )
}

fn changing_tools(tools: Toolbox, reports: &Reports) -> Result<Toolbox, String> {
    let change = |tools: Toolbox, name: &str, about: &str, what: Happening| {
        let reports = Arc::clone(reports);
        tools.tool(name, about, NOTHING, move |_, _| {
            if let Some(events) = reports.get() {
                events.happened(what.clone());
            }
            std::future::ready(Ok(ToolResult::text("Changed.")))
        })
    };
    let about = "Reports that tools have changed";
    let tools = change(
        tools,
        "test_trigger_tool_change",
        about,
        Happening::ToolsChanged,
    )?;
    let about = "Reports that prompts have changed";
    change(
        tools,
        "test_trigger_prompt_change",
        about,
        Happening::PromptsChanged,
    )
}

fn listed(uri: &str, name: &str, about: &str, mime_type: &str) -> Resource {
    Resource {
        uri: uri.into(),
        name: name.into(),
        title: None,
        description: Some(about.into()),
        mime_type: Some(mime_type.into()),
        size: None,
        last_modified: None,
        more: String::new(),
    }
}

fn prompt(name: &str, about: &str, arguments: &[&str]) -> Prompt {
    let argument = |name: &&str| PromptArgument {
        name: (*name).into(),
        title: None,
        description: Some(format!("The value of {name}")),
        required: true,
    };
    Prompt {
        name: name.into(),
        title: None,
        description: Some(about.into()),
        arguments: arguments.iter().map(argument).collect(),
        more: String::new(),
    }
}

fn template_id(uri: &str) -> Option<&str> {
    let id = uri
        .strip_prefix("test://template/")?
        .strip_suffix("/data")?;
    (!id.is_empty() && !id.contains('/')).then_some(id)
}

impl Provider for Fixture {
    fn attach(&self, events: Events) {
        let _ = self.reports.set(events);
    }

    fn tools(&self) -> Vec<Tool> {
        self.tools.tools()
    }

    fn call_tool(&self, context: Context, name: &str, arguments: Arguments) -> Answer<ToolResult> {
        self.tools.call_tool(context, name, arguments)
    }

    fn owns_uri(&self, uri: &str) -> bool {
        uri.starts_with("test://")
    }

    fn resources(&self, _: Option<String>, _: usize) -> Answer<Page<Resource>> {
        let items = vec![
            listed(
                "test://static-binary",
                "static-binary",
                "An image",
                "image/png",
            ),
            listed("test://static-text", "static-text", "A text", "text/plain"),
            listed(
                "test://watched-resource",
                "watched-resource",
                "Can be watched",
                "text/plain",
            ),
        ];
        Answer::Now(Ok(Page { items, next: None }))
    }

    fn resource_templates(&self) -> Vec<ResourceTemplate> {
        vec![ResourceTemplate {
            uri_template: "test://template/{id}/data".into(),
            name: "template".into(),
            title: None,
            description: Some("Data by id".into()),
            mime_type: Some("application/json".into()),
            more: String::new(),
        }]
    }

    fn read_resource(&self, _: Context, uri: &str) -> Answer<ReadResult> {
        let text = |mime_type: &str, text: String| {
            Ok(ReadResult::one(
                uri,
                Some(mime_type.into()),
                Body::Text(text),
            ))
        };
        Answer::Now(match (uri, template_id(uri)) {
            ("test://static-text", _) => text(
                "text/plain",
                "This is the content of the static text resource.".into(),
            ),
            ("test://static-binary", _) => Ok(ReadResult::one(
                uri,
                Some("image/png".into()),
                Body::Blob(bytes(PNG)),
            )),
            ("test://watched-resource", _) => text("text/plain", "Watched.".into()),
            (_, Some(id)) => {
                let data = json!({"id":id,"templateTest":true,"data":format!("Data for ID: {id}")});
                text("application/json", data.to_string())
            }
            _ => Err(Failure::NotFound),
        })
    }

    fn watch(&self, uri: &str) -> Result<(), Failure> {
        if uri == "test://watched-resource" {
            Ok(())
        } else {
            Err(Failure::NotFound)
        }
    }

    fn prompts(&self) -> Vec<Prompt> {
        vec![
            prompt("test_simple_prompt", "A prompt without arguments", &[]),
            prompt(
                "test_prompt_with_arguments",
                "A prompt with two arguments",
                &["arg1", "arg2"],
            ),
            prompt(
                "test_prompt_with_embedded_resource",
                "A prompt with a resource",
                &["resourceUri"],
            ),
            prompt("test_prompt_with_image", "A prompt with an image", &[]),
            prompt(
                "test_input_required_result_prompt",
                "A prompt that asks back",
                &[],
            ),
        ]
    }

    fn get_prompt(
        &self,
        context: Context,
        name: &str,
        arguments: Vec<(String, String)>,
    ) -> Answer<PromptResult> {
        let value = |wanted: &str| {
            let found = arguments.iter().find(|(name, _)| name == wanted);
            found.map(|(_, value)| value.clone()).ok_or_else(|| {
                Failure::InvalidParams(format!("the argument `{wanted}` is missing"))
            })
        };
        let text = |text: String| ("user", Content::Text(text));
        let messages = match name {
            "test_simple_prompt" => Ok(vec![text("This is a simple prompt for testing.".into())]),
            "test_prompt_with_arguments" => value("arg1").and_then(|one| {
                let two = value("arg2")?;
                Ok(vec![text(format!(
                    "Prompt with arguments: arg1='{one}', arg2='{two}'"
                ))])
            }),
            "test_prompt_with_embedded_resource" => value("resourceUri").map(|uri| {
                let inside = "Embedded resource content for testing.";
                vec![
                    ("user", resource(&uri, "text/plain", inside)),
                    text("Please process the embedded resource above.".into()),
                ]
            }),
            "test_prompt_with_image" => Ok(vec![
                ("user", png()),
                text("Please analyze the image above.".into()),
            ]),
            "test_input_required_result_prompt" => {
                match filled_in(&context, "user_context", "context") {
                    Some(given) => Ok(vec![text(format!("Use this context: {given}"))]),
                    None => {
                        let fields = json!({"context":{"type":"string"}});
                        let question =
                            form("What context should the prompt use?", fields, &["context"]);
                        Err(ask(vec![("user_context", question)], None))
                    }
                }
            }
            _ => Err(Failure::NotFound),
        };
        Answer::Now(messages.map(|messages| PromptResult {
            description: None,
            messages,
        }))
    }

    fn complete(
        &self,
        _: Context,
        _: CompletionTarget,
        _: &str,
        value: &str,
        _: Vec<(String, String)>,
    ) -> Answer<Completion> {
        let all = ["paris", "park", "party"]
            .into_iter()
            .filter(|word| word.starts_with(value));
        Answer::Now(Ok(Completion::of(all.map(str::to_owned).collect())))
    }
}
