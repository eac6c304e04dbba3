//! rmcp, the official SDK, as a real client: in its legacy and its modern mode, over raw TLS, by
//! Streamable HTTP and through `countersign connect`. Each lists, calls, reads, gets a prompt, sees progress, cancels,
//! and is refused what its certificate does not allow.
#![allow(clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;

use rmcp::model::{
    CallToolRequest, CallToolRequestParams, ClientRequest, ErrorData, ProgressNotificationParam,
    ProtocolVersion,
};
use rmcp::service::{
    ClientLifecycleMode, ClientServiceExt as _, NotificationContext, PeerRequestOptions,
    RunningService, ServiceError,
};
use rmcp::transport::{StreamableHttpClientTransport, TokioChildProcess};
use rmcp::{ClientHandler, RoleClient};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::support::pki::PATIENCE;
use super::support::program::{Person, Program};
use super::support::served::Lines;

/// Everything that the SDK is to be allowed here, and nothing that writes.
const READER: &[&str] = &[
    "tools:files__read_file",
    "tools:files__search_files",
    "tools:self__whoami",
    "resources:*",
    "prompts:prompts__greet",
];

/// A search tells its progress every 256 entries.
const FILES: usize = 800;

/// Passes progress on.
#[derive(Clone)]
struct Handler(mpsc::Sender<f64>);

impl ClientHandler for Handler {
    async fn on_progress(
        &self,
        params: ProgressNotificationParam,
        _: NotificationContext<RoleClient>,
    ) {
        let _ = self.0.try_send(params.progress);
    }
}

type Running = RunningService<RoleClient, Handler>;

#[derive(Clone, Copy, Debug)]
enum Way {
    RawTls,
    Connect,
    Http,
}

fn legacy() -> ClientLifecycleMode {
    ClientLifecycleMode::Initialize
}

fn modern() -> ClientLifecycleMode {
    ClientLifecycleMode::Discover {
        preferred_versions: vec![ProtocolVersion::V_2026_07_28],
    }
}

async fn client(
    program: &Program,
    person: &Person,
    way: Way,
    era: ClientLifecycleMode,
) -> (Running, mpsc::Receiver<f64>) {
    let (sender, progress) = mpsc::channel(4096);
    let handler = Handler(sender);
    let running = match way {
        Way::RawTls => {
            handler
                .serve_with_lifecycle(program.stream(person).await, era)
                .await
        }
        Way::Http => {
            // The SDK's own HTTP client; what it writes goes through TLS byte for byte.
            let socket = program.folder.path().join("http.sock");
            program.door(person, "http/1.1").behind(&socket);
            let transport = StreamableHttpClientTransport::from_unix_socket(
                socket.to_str().unwrap(),
                "http://localhost/mcp",
            );
            handler.serve_with_lifecycle(transport, era).await
        }
        Way::Connect => {
            let child = TokioChildProcess::new(program.command(person, &["connect"])).unwrap();
            handler.serve_with_lifecycle(child, era).await
        }
    };
    (running.expect("the SDK finds a common revision"), progress)
}

fn from<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn call(tool: &str, arguments: Value) -> CallToolRequestParams {
    from(json!({ "name": tool, "arguments": arguments }))
}

/// One file to read, and one file under so many names that a search takes its time.
fn fill(docs: &Path) {
    std::fs::write(docs.join("a.md"), "# Alpha\nfirst\n").unwrap();
    let large = docs.join("large");
    std::fs::create_dir(&large).unwrap();
    let original = large.join("0000.txt");
    std::fs::write(&original, "nothing to be found here\n".repeat(10_000)).unwrap();
    for n in 1..FILES {
        std::fs::hard_link(&original, large.join(format!("{n:04}.txt"))).unwrap();
    }
}

/// The error of a refusal, as the SDK hands it on.
fn refused<T: std::fmt::Debug>(outcome: Result<T, ServiceError>) -> ErrorData {
    match outcome {
        Err(ServiceError::McpError(error)) => error,
        other => panic!("not refused: {other:?}"),
    }
}

/// What the lists hold by hand, over raw TLS as the same identity.
async fn by_hand(program: &Program, person: &Person) -> [Vec<String>; 4] {
    let mut lines = Lines::over(program.stream(person).await);
    let mut all = [const { Vec::new() }; 4];
    for (at, (method, list, key)) in [
        ("tools/list", "tools", "name"),
        ("prompts/list", "prompts", "name"),
        (
            "resources/templates/list",
            "resourceTemplates",
            "uriTemplate",
        ),
        ("resources/list", "resources", "uri"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut cursor = Value::Null;
        loop {
            let params = match cursor.as_str() {
                Some(cursor) => json!({"cursor": cursor}),
                None => json!({}),
            };
            let page = lines.ask(method, params).await;
            let items = page["result"][list].as_array().unwrap().iter();
            all[at].extend(items.map(|one| one[key].as_str().unwrap().to_owned()));
            cursor = page["result"]["nextCursor"].clone();
            if cursor.is_null() {
                break;
            }
        }
    }
    all
}

/// The same lists whichever way they came.
async fn same_lists(program: &Program, person: &Person, client: &Running) {
    let tools = client.list_all_tools().await.unwrap();
    let prompts = client.list_all_prompts().await.unwrap();
    let templates = client.list_all_resource_templates().await.unwrap();
    let resources = client.list_all_resources().await.unwrap();
    let heard: [Vec<String>; 4] = [
        tools.into_iter().map(|one| one.name.into_owned()).collect(),
        prompts.into_iter().map(|one| one.name).collect(),
        templates.into_iter().map(|one| one.uri_template).collect(),
        resources.into_iter().map(|one| one.uri).collect(),
    ];
    assert_eq!(by_hand(program, person).await, heard);
}

async fn lists(client: &Running) {
    let tools = client.list_all_tools().await.unwrap();
    let names: Vec<_> = tools.iter().map(|tool| &*tool.name).collect();
    assert_eq!(
        names,
        ["files__read_file", "files__search_files", "self__whoami"]
    );
    let prompts = client.list_all_prompts().await.unwrap();
    let names: Vec<_> = prompts.iter().map(|prompt| &*prompt.name).collect();
    assert_eq!(names, ["prompts__greet"]);
    let templates = client.list_all_resource_templates().await.unwrap();
    assert!(!templates.is_empty());
}

async fn calls(client: &Running) {
    let read = client
        .call_tool(call("files__read_file", json!({"path": "a.md"})))
        .await
        .unwrap();
    let text = serde_json::to_string(&read).unwrap();
    assert_ne!(read.is_error, Some(true), "{text}");
    assert!(text.contains("# Alpha"), "{text}");
    // What the tool finds wrong is a result that says so, not a protocol error.
    let missing = client
        .call_tool(call("files__read_file", json!({"path": "none.md"})))
        .await
        .unwrap();
    assert_eq!(missing.is_error, Some(true));
}

async fn reads(client: &Running) {
    let all = client.list_all_resources().await.unwrap();
    let found = all
        .iter()
        .find(|resource| resource.uri.ends_with("/a.md"))
        .expect("a.md is listed");
    let read = client
        .read_resource(from(json!({"uri": found.uri})))
        .await
        .unwrap();
    let read = serde_json::to_value(&read).unwrap();
    assert_eq!(read["contents"][0]["text"], "# Alpha\nfirst\n");
    refused(
        client
            .read_resource(from(json!({"uri": found.uri.replace("a.md", "b.md")})))
            .await,
    );
}

async fn prompts(client: &Running) {
    let prompt = json!({"name": "prompts__greet", "arguments": {"who": "Ada"}});
    let got = serde_json::to_value(client.get_prompt(from(prompt)).await.unwrap()).unwrap();
    assert_eq!(got["messages"][0]["content"]["text"], "Say hello to Ada.");
    let missing = json!({"name": "prompts__greet", "arguments": {}});
    refused(client.get_prompt(from(missing)).await);
}

fn search() -> CallToolRequestParams {
    call(
        "files__search_files",
        json!({"path": "large", "content": "needle"}),
    )
}

async fn shows_progress(client: &Running, progress: &mut mpsc::Receiver<f64>) {
    let found = client.call_tool(search()).await.unwrap();
    let found = serde_json::to_value(&found).unwrap();
    assert_eq!(found["structuredContent"]["files_searched"], FILES);
    let mut last = 0.0;
    while let Ok(next) = progress.try_recv() {
        assert!(next > last, "{next} after {last}");
        last = next;
    }
    assert!(last > 0.0, "no progress was heard");
}

async fn cancels(program: &Program, client: &Running, progress: &mut mpsc::Receiver<f64>) {
    let request = ClientRequest::CallToolRequest(CallToolRequest::new(search()));
    let options = PeerRequestOptions::no_options();
    let handle = client
        .send_cancellable_request(request, options)
        .await
        .unwrap();
    // The first progress shows that the search runs.
    let running = tokio::time::timeout(PATIENCE, progress.recv()).await;
    running.expect("progress comes in time").unwrap();
    handle.cancel(Some("changed my mind".into())).await.unwrap();
    program
        .recorded(|record| record["event"] == "outcome" && record["outcome"] == "cancelled")
        .await;
    // The connection goes on.
    client
        .call_tool(call("self__whoami", json!({})))
        .await
        .unwrap();
    while progress.try_recv().is_ok() {}
}

/// What is not granted looks like what does not exist.
async fn is_refused(program: &Program, client: &Running) {
    let write = json!({"path": "a.md", "content": "overwritten"});
    let denied = refused(
        client
            .call_tool(call("files__write_file", write.clone()))
            .await,
    );
    let absent = refused(client.call_tool(call("files__no_such_tool", write)).await);
    assert_eq!(denied.code, absent.code);
    assert_eq!(
        denied
            .message
            .replace("files__write_file", "files__no_such_tool"),
        absent.message
    );
    let text = std::fs::read_to_string(program.folder.path().join("docs/a.md")).unwrap();
    assert_eq!(text, "# Alpha\nfirst\n");
    let record = program
        .recorded(|record| record["event"] == "decision" && record["target"] == "files__write_file")
        .await;
    assert_eq!(record["allowed"], false, "{record}");
}

async fn everything(way: Way, era: ClientLifecycleMode) {
    let program = Program::start(fill).await;
    let reader = program.person("reader", READER);
    let (client, mut progress) = client(&program, &reader, way, era).await;
    lists(&client).await;
    same_lists(&program, &reader, &client).await;
    calls(&client).await;
    reads(&client).await;
    prompts(&client).await;
    shows_progress(&client, &mut progress).await;
    cancels(&program, &client, &mut progress).await;
    is_refused(&program, &client).await;
    client.cancel().await.unwrap();
    // Over raw TLS the SDK drops the stream without a close_notify, so the reasons differ.
    program.recorded(|record| record["event"] == "closed").await;
}

#[tokio::test]
async fn the_sdk_in_its_legacy_mode_over_raw_tls() {
    everything(Way::RawTls, legacy()).await;
}

#[tokio::test]
async fn the_sdk_in_its_modern_mode_over_raw_tls() {
    everything(Way::RawTls, modern()).await;
}

#[tokio::test]
async fn the_sdk_in_its_legacy_mode_through_connect() {
    everything(Way::Connect, legacy()).await;
}

#[tokio::test]
async fn the_sdk_in_its_modern_mode_through_connect() {
    everything(Way::Connect, modern()).await;
}

#[tokio::test]
async fn the_sdk_in_its_legacy_mode_by_http() {
    everything(Way::Http, legacy()).await;
}

#[tokio::test]
async fn the_sdk_in_its_modern_mode_by_http() {
    everything(Way::Http, modern()).await;
}
