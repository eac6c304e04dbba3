//! A handler of the rmcp SDK that does everything a handler can do, hosted unchanged: what of it
//! arrives at a client, and what does not arrive at the wrong one.

use std::sync::Arc;

use countersign::backend::rmcp::{Hosted, caller, host};
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CompleteRequestParams, CompleteResult, ErrorData,
    GetPromptRequestParams, GetPromptResponse, InputRequiredResult, ListPromptsResult,
    ListResourceTemplatesResult, ListResourcesResult, ListToolsResult, PaginatedRequestParams,
    ReadResourceRequestParams, ReadResourceResponse, ServerConfig, ServerNotification,
    ServerRequest, SubscribeRequestParams, UnsubscribeRequestParams,
};
use rmcp::service::RequestContext;
use rmcp::{RoleServer, ServerHandler};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::support::pki::{self, Certified, PATIENCE};
use crate::support::served::{Lines, Served, Site};

fn from<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn text(text: &str) -> CallToolResponse {
    CallToolResponse::Complete(from(json!({"content":[{"type":"text","text":text}]})))
}

/// Tells a test what it is told.
struct Handler(mpsc::Sender<String>);

impl Handler {
    fn heard(&self, what: &str) {
        self.0.try_send(what.to_owned()).unwrap();
    }
}

async fn say(context: &RequestContext<RoleServer>, method: &str, params: Value) {
    let said: ServerNotification = from(json!({"method": method, "params": params}));
    context.peer.send_notification(said).await.unwrap();
}

async fn steps(context: &RequestContext<RoleServer>) -> CallToolResponse {
    let token = context.meta.get_progress_token();
    for step in 1..=2 {
        if let Some(token) = &token {
            let params = json!({"progressToken": token, "progress": step, "total": 2});
            say(context, "notifications/progress", params).await;
        }
        let params = json!({"level": "info", "logger": "steps", "data": {"step": step}});
        say(context, "notifications/message", params).await;
    }
    text("two steps")
}

/// As a handler for both eras asks: by an answer in the new one, by a request in the older ones.
async fn ask(
    params: &CallToolRequestParams,
    context: &RequestContext<RoleServer>,
) -> Result<CallToolResponse, ErrorData> {
    let schema = json!({"type":"object","properties":{"name":{"type":"string"}}});
    let question = json!({"message":"Who?","requestedSchema":schema});
    let question = json!({"method":"elicitation/create","params":question});
    let version = context.protocol_version().unwrap();
    if version.as_str() < "2026-07-28" {
        let question: ServerRequest = from(question);
        let answer = context.peer.send_request(question).await;
        let answer = answer.map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
        let answer = serde_json::to_value(answer).unwrap();
        return Ok(text(answer["content"]["name"].as_str().unwrap()));
    }
    let answers = params.input_responses.as_ref();
    match answers.and_then(|all| all["name"]["content"]["name"].as_str()) {
        Some(name) => {
            let state = params.request_state.as_deref().unwrap();
            Ok(text(&format!("{name}, {state}")))
        }
        None => Ok(CallToolResponse::InputRequired(InputRequiredResult::new(
            from(json!({"name": question})),
            Some("tea".to_owned()),
        ))),
    }
}

type Given = RequestContext<RoleServer>;

#[allow(
    deprecated,
    reason = "handlers of the older revisions take subscriptions so"
)]
impl ServerHandler for Handler {
    fn get_info(&self) -> ServerConfig {
        from(
            json!({"protocolVersion":"2025-11-25","serverInfo":{"name":"h","version":"1"},
            "capabilities":{"tools":{},"resources":{"subscribe":true},"prompts":{}}}),
        )
    }

    async fn on_initialized(&self, _: rmcp::service::NotificationContext<RoleServer>) {
        self.heard("initialized");
    }

    /// Two pages.
    async fn list_tools(
        &self,
        page: Option<PaginatedRequestParams>,
        _: Given,
    ) -> Result<ListToolsResult, ErrorData> {
        let tool = |name: &str| {
            json!({"name":name,"inputSchema":{"type":"object"},
            "annotations":{"title":"Shown","readOnlyHint":true},
            "icons":[{"src":"https://example.org/i.png"}],"_meta":{"org.example/a":1}})
        };
        Ok(from(match page.and_then(|page| page.cursor) {
            None => json!({"tools":[tool("steps"),tool("wait"),tool("ask")],"nextCursor":"more"}),
            Some(_) => json!({"tools":[tool("touch"),tool("who"),tool("fail")]}),
        }))
    }

    async fn call_tool(
        &self,
        params: CallToolRequestParams,
        context: Given,
    ) -> Result<CallToolResponse, ErrorData> {
        match &*params.name {
            "steps" => Ok(steps(&context).await),
            "ask" => ask(&params, &context).await,
            "who" => {
                let caller = caller(&context).unwrap();
                let claimed = context.client_info().unwrap().name;
                assert_eq!(claimed, caller.peer.name().as_str());
                Ok(text(&claimed))
            }
            "touch" => {
                let params = json!({"uri":"note:1"});
                say(&context, "notifications/resources/updated", params).await;
                Ok(text("touched"))
            }
            "wait" => {
                self.heard("waiting");
                context.ct.cancelled().await;
                // What is done after a cancellation is done.
                tokio::task::yield_now().await;
                self.heard("tidied");
                Ok(text("nobody hears this"))
            }
            _ => {
                let code = rmcp::model::ErrorCode(4711);
                Err(ErrorData::new(
                    code,
                    "no luck",
                    Some(json!({"try":"later"})),
                ))
            }
        }
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        context: Given,
    ) -> Result<ListResourcesResult, ErrorData> {
        assert!(caller(&context).is_none());
        Ok(from(json!({"resources":[{"uri":"note:2","name":"two"},
            {"uri":"note:1","name":"one","annotations":{"priority":1.0}}]})))
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: Given,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        Ok(from(
            json!({"resourceTemplates":[{"uriTemplate":"note:{id}","name":"note"}]}),
        ))
    }

    async fn read_resource(
        &self,
        params: ReadResourceRequestParams,
        _: Given,
    ) -> Result<ReadResourceResponse, ErrorData> {
        match params.uri.as_str() {
            "note:1" => Ok(ReadResourceResponse::Complete(from(json!({"contents":[
                {"uri":"note:1","mimeType":"text/plain","text":"first"},
                {"uri":"note:1","blob":"AP8="}]})))),
            _ => Err(ErrorData::resource_not_found("no such note", None)),
        }
    }

    async fn list_prompts(
        &self,
        _: Option<PaginatedRequestParams>,
        _: Given,
    ) -> Result<ListPromptsResult, ErrorData> {
        Ok(from(
            json!({"prompts":[{"name":"greet","arguments":[{"name":"who","required":true}]}]}),
        ))
    }

    async fn get_prompt(
        &self,
        params: GetPromptRequestParams,
        _: Given,
    ) -> Result<GetPromptResponse, ErrorData> {
        let who = params.arguments.unwrap()["who"].clone();
        let content = json!({"type":"text","text":who,"annotations":{"audience":["user"]}});
        let messages = json!([{"role":"assistant","content":content}]);
        Ok(GetPromptResponse::Complete(from(
            json!({"messages":messages}),
        )))
    }

    async fn complete(
        &self,
        params: CompleteRequestParams,
        _: Given,
    ) -> Result<CompleteResult, ErrorData> {
        let begun = params.argument.value;
        Ok(from(
            json!({"completion":{"values":[format!("{begun}n"), format!("{begun}nika")]}}),
        ))
    }

    async fn subscribe(&self, params: SubscribeRequestParams, _: Given) -> Result<(), ErrorData> {
        self.heard(&format!("subscribed {}", params.uri));
        Ok(())
    }

    async fn unsubscribe(
        &self,
        params: UnsubscribeRequestParams,
        _: Given,
    ) -> Result<(), ErrorData> {
        self.heard(&format!("unsubscribed {}", params.uri));
        Ok(())
    }
}

struct Stage {
    site: Site,
    served: Served,
    ann: Certified,
    bob: Certified,
    hears: mpsc::Receiver<String>,
}

impl Stage {
    async fn open() -> Self {
        let site = Site::new().await;
        let ann = site.enrol("ann", &["*"]).await;
        let bob = site
            .enrol("bob", &["tools:sdk__steps", "resources:note:2"])
            .await;
        let (heard, hears) = mpsc::channel(64);
        let hosted: Hosted<Handler> = host(Handler(heard)).await.unwrap();
        let providers = vec![("sdk".to_owned(), Arc::new(hosted) as _)];
        let served = site.serve_with(providers).await;
        let mut stage = Self {
            site,
            served,
            ann,
            bob,
            hears,
        };
        stage.hear("initialized").await;
        stage
    }

    async fn lines(&self, who: &Certified) -> Lines {
        self.site.reach(&self.served, who).await
    }

    async fn hear(&mut self, what: &str) {
        let heard = tokio::time::timeout(PATIENCE, self.hears.recv()).await;
        assert_eq!(heard.expect("in time").as_deref(), Some(what));
    }
}

fn names(list: &Value, key: &str) -> Vec<String> {
    let all = list.as_array().unwrap().iter();
    all.map(|one| one[key].as_str().unwrap().to_owned())
        .filter(|name| name.starts_with("sdk__") || name.starts_with("note:"))
        .collect()
}

#[tokio::test]
async fn what_a_handler_offers_is_listed_and_filtered() {
    let stage = Stage::open().await;
    let mut hers = stage.lines(&stage.ann).await;
    let tools = hers.ask("tools/list", json!({})).await["result"]["tools"].clone();
    let all = ["steps", "wait", "ask", "touch", "who", "fail"];
    assert_eq!(
        names(&tools, "name"),
        all.map(|name| format!("sdk__{name}"))
    );
    let first = &tools[0];
    assert_eq!(first["title"], "Shown");
    assert_eq!(first["annotations"]["readOnlyHint"], true);
    assert_eq!(first["icons"][0]["src"], "https://example.org/i.png");
    assert_eq!(first["_meta"], json!({"org.example/a":1}));
    let resources = hers.ask("resources/list", json!({})).await["result"]["resources"].clone();
    assert_eq!(names(&resources, "uri"), ["note:1", "note:2"]);
    let mut notes = resources.as_array().unwrap().iter();
    let one = notes.find(|one| one["uri"] == "note:1").unwrap();
    assert_eq!(one["annotations"]["priority"], 1.0);
    let templates = hers.ask("resources/templates/list", json!({})).await;
    assert_eq!(
        names(&templates["result"]["resourceTemplates"], "uriTemplate"),
        ["note:{id}"]
    );
    let prompts = hers.ask("prompts/list", json!({})).await;
    assert_eq!(names(&prompts["result"]["prompts"], "name"), ["sdk__greet"]);

    let mut his = stage.lines(&stage.bob).await;
    let tools = his.ask("tools/list", json!({})).await;
    assert_eq!(names(&tools["result"]["tools"], "name"), ["sdk__steps"]);
    let resources = his.ask("resources/list", json!({})).await;
    assert_eq!(names(&resources["result"]["resources"], "uri"), ["note:2"]);
    let refused = his.ask("tools/call", json!({"name":"sdk__who"})).await;
    assert_eq!(refused["error"]["message"], "unknown tool: sdk__who");
    stage.served.stop().await;
}

#[tokio::test]
async fn a_handler_answers_names_its_caller_and_fails_in_its_own_words() {
    let stage = Stage::open().await;
    let mut lines = stage.lines(&stage.ann).await;
    let answer = lines.ask("tools/call", json!({"name":"sdk__who"})).await;
    assert_eq!(answer["result"]["content"][0]["text"], pki::spiffe("ann"));
    let answer = lines.ask("tools/call", json!({"name":"sdk__fail"})).await;
    let error = json!({"code":4711,"message":"no luck","data":{"try":"later"}});
    assert_eq!(answer["error"], error);
    let read = lines.ask("resources/read", json!({"uri":"note:1"})).await;
    let contents = json!([{"uri":"note:1","mimeType":"text/plain","text":"first"},
        {"uri":"note:1","blob":"AP8="}]);
    assert_eq!(read["result"]["contents"], contents);
    let missing = lines.ask("resources/read", json!({"uri":"note:3"})).await;
    assert_eq!(missing["error"]["code"], -32602, "{missing}");
    let prompt = json!({"name":"sdk__greet","arguments":{"who":"Ann"}});
    let prompt = lines.ask("prompts/get", prompt).await;
    let message = &prompt["result"]["messages"][0];
    assert_eq!(message["role"], "assistant");
    assert_eq!(message["content"]["annotations"]["audience"][0], "user");
    let about = json!({"ref":{"type":"ref/prompt","name":"sdk__greet"},
        "argument":{"name":"who","value":"An"}});
    let completed = lines.ask("completion/complete", about).await;
    let values = &completed["result"]["completion"]["values"];
    assert_eq!(*values, json!(["Ann", "Annika"]));
    stage.served.stop().await;
}

#[tokio::test]
async fn what_a_handler_says_meanwhile_goes_to_its_caller_alone() {
    let stage = Stage::open().await;
    let mut lines = stage.lines(&stage.ann).await;
    let mut other = stage.lines(&stage.ann).await;
    let meta = json!({"progressToken":"p","io.modelcontextprotocol/logLevel":"info"});
    let params = json!({"name":"sdk__steps","_meta":meta});
    lines
        .send(&crate::support::served::modern(7, "tools/call", params))
        .await;
    for step in 1..=2 {
        let told = lines.receive().await;
        assert_eq!(told["params"]["progressToken"], "p", "{told}");
        assert_eq!(told["params"]["progress"], json!(step));
        let logged = lines.receive().await;
        assert_eq!(logged["params"]["data"], json!({"step":step}), "{logged}");
        assert_eq!(logged["params"]["logger"], "steps");
    }
    let answer = lines.receive().await;
    assert_eq!(answer["result"]["content"][0]["text"], "two steps");
    // Nobody asked for anything here, so the first line is the answer.
    let params = json!({"name":"sdk__steps"});
    other
        .send(&crate::support::served::modern(8, "tools/call", params))
        .await;
    assert_eq!(other.receive().await["id"], 8);
    stage.served.stop().await;
}

#[tokio::test]
async fn a_cancelled_handler_is_told_and_tidies_up() {
    let mut stage = Stage::open().await;
    let mut lines = stage.lines(&stage.ann).await;
    let params = json!({"name":"sdk__wait"});
    lines
        .send(&crate::support::served::modern(7, "tools/call", params))
        .await;
    stage.hear("waiting").await;
    lines
        .notify("notifications/cancelled", json!({"requestId":7}))
        .await;
    stage.hear("tidied").await;
    // No answer to it comes, and the connection goes on.
    let params = json!({"name":"sdk__who"});
    lines
        .send(&crate::support::served::modern(8, "tools/call", params))
        .await;
    assert_eq!(lines.receive().await["id"], 8);
    stage.served.stop().await;
}

#[tokio::test]
async fn a_handler_asks_its_caller_in_both_eras() {
    let stage = Stage::open().await;
    let mut lines = stage.lines(&stage.ann).await;
    let can = json!({"io.modelcontextprotocol/clientCapabilities":{"elicitation":{}}});
    let question = json!({"name":"sdk__ask","_meta":can});
    let asked = lines.ask("tools/call", question).await;
    let asked = &asked["result"];
    assert_eq!(asked["resultType"], "input_required", "{asked}");
    assert_eq!(
        asked["inputRequests"]["name"]["method"],
        "elicitation/create"
    );
    let answer = json!({"action":"accept","content":{"name":"Ann"}});
    let again = json!({"name":"sdk__ask","_meta":can,"requestState":asked["requestState"],
        "inputResponses":{"name":answer}});
    let done = lines.ask("tools/call", again).await;
    assert_eq!(done["result"]["content"][0]["text"], "Ann, tea", "{done}");

    let mut older = stage.lines(&stage.ann).await;
    let params = json!({"protocolVersion":"2025-11-25","capabilities":{"elicitation":{}},
        "clientInfo":{"name":"test","version":"1"}});
    older.ask_bare("initialize", params).await;
    let call = json!({"jsonrpc":"2.0","id":"c","method":"tools/call","params":{"name":"sdk__ask"}});
    older.send(&call).await;
    let asked = older.receive().await;
    assert_eq!(asked["method"], "elicitation/create", "{asked}");
    older
        .send(&json!({"jsonrpc":"2.0","id":asked["id"],"result":answer}))
        .await;
    let done = older.answer(&json!("c")).await;
    assert_eq!(done["result"]["content"][0]["text"], "Ann", "{done}");
    // Who declared nothing is asked nothing.
    let mut silent = stage.lines(&stage.ann).await;
    silent.initialize("2025-11-25").await;
    let refused = silent
        .ask_bare("tools/call", json!({"name":"sdk__ask"}))
        .await;
    assert_eq!(refused["error"]["message"], "internal error", "{refused}");
    stage.served.stop().await;
}

#[tokio::test]
async fn a_changed_resource_is_told_to_those_who_may_read_it() {
    let mut stage = Stage::open().await;
    let mut hers = stage.lines(&stage.ann).await;
    hers.initialize("2025-11-25").await;
    let subscribed = hers
        .ask_bare("resources/subscribe", json!({"uri":"note:1"}))
        .await;
    assert!(subscribed["result"].is_object(), "{subscribed}");
    stage.hear("subscribed note:1").await;
    let mut his = stage.lines(&stage.bob).await;
    his.initialize("2025-11-25").await;
    let refused = his
        .ask_bare("resources/subscribe", json!({"uri":"note:1"}))
        .await;
    assert_eq!(refused["error"]["code"], -32002, "{refused}");
    let call =
        json!({"jsonrpc":"2.0","id":"t","method":"tools/call","params":{"name":"sdk__touch"}});
    hers.send(&call).await;
    let (mut told, mut answered) = (false, false);
    while !(told && answered) {
        let message = hers.receive().await;
        if message["method"] == "notifications/resources/updated" {
            assert_eq!(message["params"]["uri"], "note:1");
            told = true;
        } else {
            assert_eq!(message["id"], "t", "{message}");
            answered = true;
        }
    }
    his.ask_bare("ping", json!({})).await;
    drop(hers);
    stage.hear("unsubscribed note:1").await;
    stage.served.stop().await;
}
