//! The provider from outside: calls as they come from dispatch, answers as they go out.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use super::super::testing::{self, Heard};
use super::super::{
    Answer, Body, Cancel, CompletionTarget, Context, Failure, Note, Provider, Schema, ToolResult,
};
use super::{FilesOptions, FilesProvider};

struct Fixture {
    temp: tempfile::TempDir,
    provider: FilesProvider,
    context: Context,
}

fn fixture(change: impl FnOnce(&mut FilesOptions)) -> Fixture {
    let temp = tempfile::tempdir().unwrap();
    let inside = temp.path().join("inside");
    std::fs::create_dir_all(inside.join("docs/deep")).unwrap();
    std::fs::write(
        inside.join("docs/a.md"),
        "# Title\nneedle one\nNeedle two\n",
    )
    .unwrap();
    std::fs::write(inside.join("docs/deep/b.txt"), "a needle\r\nagain").unwrap();
    std::fs::write(inside.join("raw.bin"), [0, 159, 146, 150]).unwrap();
    std::fs::write(inside.join("euro.txt"), "aé€🎉z").unwrap();
    std::fs::write(temp.path().join("outside.txt"), "needle outside").unwrap();
    std::os::unix::fs::symlink("../outside.txt", inside.join("link.txt")).unwrap();
    std::os::unix::fs::symlink("..", inside.join("up")).unwrap();
    let mut options = FilesOptions::new(&inside);
    change(&mut options);
    let provider = FilesProvider::open(options).unwrap();
    Fixture {
        temp,
        provider,
        context: testing::context(&["*"]),
    }
}

impl Fixture {
    fn inside(&self) -> std::path::PathBuf {
        self.temp.path().join("inside")
    }

    /// Checks the arguments as dispatch does, calls, and checks the answer's structured content
    /// against the output schema.
    async fn call_raw(&self, context: Context, name: &str, arguments: Value) -> Value {
        let tools = self.provider.tools();
        let tool = tools.iter().find(|tool| tool.name == name).unwrap();
        let raw = Bytes::from(arguments.to_string());
        let arguments = tool.input.check(Some(raw)).unwrap();
        let result = self
            .provider
            .call_tool(context, name, arguments)
            .wait()
            .await
            .unwrap();
        let value = testing::members(|out| result.encode_members(out));
        if !result.is_error() {
            let schema = Schema::new(tool.output.as_deref().unwrap()).unwrap();
            let structured = Bytes::from(value["structuredContent"].to_string());
            schema.check(Some(structured)).unwrap();
        }
        value
    }

    async fn call(&self, name: &str, arguments: Value) -> Value {
        let value = self.call_raw(self.context.clone(), name, arguments).await;
        assert_eq!(value.get("isError"), None, "{value}");
        value["structuredContent"].clone()
    }

    async fn fails(&self, name: &str, arguments: Value) -> String {
        let value = self.call_raw(self.context.clone(), name, arguments).await;
        assert_eq!(value["isError"], true, "{value}");
        value["content"][0]["text"].as_str().unwrap().to_owned()
    }

    fn uri(&self, path: &str) -> String {
        format!("{}{path}", self.provider.uri_prefix())
    }

    async fn read(&self, uri: &str) -> Result<Body, Failure> {
        let read = self
            .provider
            .read_resource(self.context.clone(), uri)
            .wait()
            .await?;
        assert_eq!(read.contents[0].0, uri);
        Ok(read.contents[0].2.clone())
    }
}

fn names(list: &Value) -> Vec<&str> {
    list["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["name"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn a_directory_is_listed_in_pages() {
    let f = fixture(|_| {});
    let list = f.call("list_directory", json!({})).await;
    assert_eq!(
        names(&list),
        ["docs", "euro.txt", "link.txt", "raw.bin", "up"]
    );
    assert_eq!(list["entries"][0]["type"], "directory");
    assert_eq!(list["entries"][2]["type"], "symlink");
    assert_eq!(list["entries"][3]["size"], 4);
    assert_eq!(list.get("next"), None);
    let list = f.call("list_directory", json!({"limit": 2})).await;
    assert_eq!(list["next"], "euro.txt");
    let list = f
        .call("list_directory", json!({"limit": 2.0, "after": "euro.txt"}))
        .await;
    assert_eq!(names(&list), ["link.txt", "raw.bin"]);
    let list = f.call("list_directory", json!({"path": "docs"})).await;
    assert_eq!(names(&list), ["a.md", "deep"]);
    assert!(
        f.fails("list_directory", json!({"path": "raw.bin"}))
            .await
            .contains("not a directory")
    );
    assert!(
        f.fails("list_directory", json!({"path": "up"}))
            .await
            .contains("symbolic link")
    );
}

#[tokio::test]
async fn ranges_of_text_and_bytes() {
    let f = fixture(|_| {});
    let whole = f.call("read_file", json!({"path": "euro.txt"})).await;
    assert_eq!(whole["content"], "aé€🎉z");
    assert_eq!(
        (&whole["size"], &whole["truncated"]),
        (&json!(11), &json!(false))
    );
    let cut = f
        .call("read_file", json!({"path": "euro.txt", "length": 5}))
        .await;
    assert_eq!(cut["content"], "aé");
    assert_eq!(
        (&cut["length"], &cut["truncated"]),
        (&json!(3), &json!(true))
    );
    let rest = f
        .call("read_file", json!({"path": "euro.txt", "offset": 3}))
        .await;
    assert_eq!(rest["content"], "€🎉z");
    let behind = f
        .call("read_file", json!({"path": "euro.txt", "offset": 99}))
        .await;
    assert_eq!(
        (&behind["content"], &behind["size"]),
        (&json!(""), &json!(11))
    );
    let inside = f
        .fails("read_file", json!({"path": "euro.txt", "offset": 2}))
        .await;
    assert!(inside.contains("inside a character"), "{inside}");
    let raw = f.fails("read_file", json!({"path": "raw.bin"})).await;
    assert!(raw.contains("base64"), "{raw}");
    let raw = f
        .call(
            "read_file",
            json!({"path": "raw.bin", "encoding": "base64"}),
        )
        .await;
    assert_eq!(raw["content"], "AJ+Slg==");
    let part = json!({"path": "raw.bin", "encoding": "base64", "offset": 1, "length": 2});
    assert_eq!(f.call("read_file", part).await["content"], "n5I=");
    let text = f
        .call_raw(f.context.clone(), "read_file", json!({"path": "docs/a.md"}))
        .await;
    assert_eq!(
        text["content"][0]["text"],
        text["structuredContent"]["content"]
    );
}

#[tokio::test]
async fn what_is_larger_than_the_limit_is_read_in_pieces() {
    let f = fixture(|options| options.max_read_bytes = 4);
    let cut = f.call("read_file", json!({"path": "docs/a.md"})).await;
    assert_eq!(
        (&cut["content"], &cut["truncated"]),
        (&json!("# Ti"), &json!(true))
    );
    let tools = f.provider.tools();
    let read = tools.iter().find(|tool| tool.name == "read_file").unwrap();
    let raw = Bytes::from_static(br#"{"path":"docs/a.md","length":5}"#);
    assert_eq!(read.input.check(Some(raw)).unwrap_err()[0].field, "/length");
    let refused = f.read(&f.uri("docs/a.md")).await;
    assert!(matches!(refused, Err(Failure::InvalidParams(why)) if why.contains("read_file")));
    assert!(matches!(f.read(&f.uri("raw.bin")).await, Ok(Body::Blob(_))));
}

#[tokio::test]
async fn no_spelling_leads_out() {
    let f = fixture(|options| options.writable = true);
    assert_eq!(
        f.call("read_file", json!({"path": "./docs//a.md"})).await["path"],
        "docs/a.md"
    );
    let outside = f.temp.path().join("outside.txt");
    let long = "a/".repeat(3_000);
    for path in [
        "../outside.txt",
        "docs/../../outside.txt",
        "docs/..",
        outside.to_str().unwrap(),
        "/etc/passwd",
        "link.txt",
        "up/outside.txt",
        "docs\0/../../outside.txt",
        "..%2foutside.txt",
        "%2e%2e/outside.txt",
        "..\\outside.txt",
        "~/outside.txt",
        ".",
        "",
        &long[..4_000],
    ] {
        for (tool, arguments) in [
            ("read_file", json!({"path": path})),
            ("delete_file", json!({"path": path})),
            ("write_file", json!({"path": path, "content": "x"})),
        ] {
            let harmless = ["..%2foutside.txt", "..\\outside.txt"].contains(&path);
            if tool == "write_file" && harmless {
                // Plain, if odd, names of files inside.
                continue;
            }
            let why = f.fails(tool, arguments).await;
            assert!(!why.is_empty(), "{tool} {path}");
        }
    }
    assert_eq!(std::fs::read_to_string(outside).unwrap(), "needle outside");
    assert!(
        f.inside().join("link.txt").is_symlink(),
        "a link is not deleted either"
    );
}

#[tokio::test]
async fn search_by_name_and_content() {
    let f = fixture(|_| {});
    let found = |value: Value| {
        let all = value["matches"].as_array().unwrap().clone();
        all.iter()
            .map(|m| format!("{}:{}", m["path"].as_str().unwrap(), m["line"]))
            .collect::<Vec<_>>()
    };
    let search = async |arguments| found(f.call("search_files", arguments).await);
    assert_eq!(search(json!({"glob": "*.md"})).await, ["docs/a.md:null"]);
    assert_eq!(search(json!({"glob": "*.MD"})).await, [""; 0]);
    let glob = json!({"glob": "*.MD", "case_sensitive": false});
    assert_eq!(search(glob).await, ["docs/a.md:null"]);
    let all = ["docs/a.md:null", "docs/deep/b.txt:null"];
    assert_eq!(search(json!({"glob": "docs/**"})).await, all);
    assert_eq!(search(json!({"glob": "docs/*"})).await, all[..1]);
    let exact = ["docs/a.md:2", "docs/deep/b.txt:1"];
    assert_eq!(
        search(json!({"content": "needle"})).await,
        exact,
        "not behind the link"
    );
    let any = json!({"content": "NEEDLE", "case_sensitive": false});
    assert_eq!(
        search(any).await,
        ["docs/a.md:2", "docs/a.md:3", "docs/deep/b.txt:1"]
    );
    assert_eq!(
        search(json!({"content": "needle", "path": "docs/deep"})).await,
        exact[1..]
    );
    assert_eq!(
        search(json!({"content": "needle", "glob": "*.txt"})).await,
        exact[1..]
    );
    let one = f
        .call("search_files", json!({"content": "needle", "limit": 1}))
        .await;
    assert_eq!(
        (one["matches"].as_array().unwrap().len(), &one["truncated"]),
        (1, &json!(true))
    );
    let all = f.call("search_files", json!({"content": "needle"})).await;
    assert_eq!(
        (&all["files_searched"], &all["files_skipped"]),
        (&json!(3), &json!(1))
    );
    let text = all["matches"][1]["text"].as_str().unwrap();
    assert_eq!(text, "a needle", "without the line's end");
    assert!(
        f.fails("search_files", json!({}))
            .await
            .contains("`glob` or `content`")
    );
    assert!(
        f.fails("search_files", json!({"glob": "[a"}))
            .await
            .contains("`glob`")
    );
}

fn many(inside: &Path, count: usize) {
    for n in 0..count {
        std::fs::write(inside.join(format!("f{n}.txt")), "hay\n").unwrap();
    }
}

#[tokio::test]
async fn a_search_tells_how_far_it_is() {
    let f = fixture(|_| {});
    many(&f.inside(), 1_000);
    let heard = Arc::new(Heard::default());
    let mut context = f.context.clone();
    context.notes = Some(Arc::clone(&heard) as _);
    f.call_raw(context, "search_files", json!({"content": "needle"}))
        .await;
    let notes = heard.0.lock().unwrap();
    let progress: Vec<f64> = notes
        .iter()
        .map(|note| match note {
            Note::Progress { progress, .. } => *progress,
            other => panic!("nothing else was asked for: {other:?}"),
        })
        .collect();
    assert!(progress.len() >= 3, "{progress:?}");
    assert!(
        progress.windows(2).all(|pair| pair[0] < pair[1]),
        "it grows"
    );
}

/// Cancels at the first progress note: what comes after it must be little.
struct CancelAtOnce(Cancel, Heard);

impl super::super::Notes for CancelAtOnce {
    fn note(&self, note: Note) {
        self.0.cancel();
        self.1.note(note);
    }
}

#[tokio::test]
async fn a_cancelled_search_stops_at_once() {
    let f = fixture(|_| {});
    many(&f.inside(), 2_000);
    let cancel = Cancel::new();
    let notes = Arc::new(CancelAtOnce(cancel.clone(), Heard::default()));
    let mut context = f.context.clone();
    context.cancel = cancel;
    context.notes = Some(Arc::clone(&notes) as _);
    let arguments = Schema::unchecked("{}").check(Some(Bytes::from_static(br#"{"content":"x"}"#)));
    let answer = f
        .provider
        .call_tool(context, "search_files", arguments.unwrap());
    assert!(matches!(answer.wait().await, Err(Failure::Cancelled)));
    assert_eq!(
        notes.1.0.lock().unwrap().len(),
        1,
        "no entry after the cancellation"
    );
}

#[tokio::test]
async fn a_dropped_call_gives_its_place_back() {
    let f = fixture(|options| options.max_concurrent = 1);
    many(&f.inside(), 500);
    for _ in 0..20 {
        let arguments =
            Schema::unchecked("{}").check(Some(Bytes::from_static(br#"{"content":"x"}"#)));
        let answer = f
            .provider
            .call_tool(f.context.clone(), "search_files", arguments.unwrap());
        let Answer::Later(mut future) = answer else {
            panic!("it takes its time")
        };
        // Polled until the work runs, then dropped.
        let _ = futures_util::poll!(&mut future);
        drop(future);
    }
    assert_eq!(
        f.call("file_info", json!({"path": "docs/a.md"})).await["size"],
        30
    );
}

#[tokio::test]
async fn writing_is_not_there_unless_it_is_asked_for() {
    let f = fixture(|_| {});
    for tool in ["write_file", "delete_file"] {
        let raw = Bytes::from_static(br#"{"path":"docs/a.md","content":"x"}"#);
        let arguments = Schema::unchecked("{}").check(Some(raw)).unwrap();
        let answer = f
            .provider
            .call_tool(f.context.clone(), tool, arguments)
            .wait()
            .await;
        assert!(matches!(answer, Err(Failure::NotFound)));
    }
    assert!(f.inside().join("docs/a.md").exists());
}

#[tokio::test]
async fn files_are_written_whole_and_deleted() {
    use std::os::unix::fs::PermissionsExt as _;
    let f = fixture(|options| {
        options.writable = true;
        options.max_write_bytes = 10;
    });
    let new = f
        .call(
            "write_file",
            json!({"path": "docs/new.txt", "content": "one"}),
        )
        .await;
    assert_eq!((&new["created"], &new["bytes"]), (&json!(true), &json!(3)));
    assert_eq!(new["uri"], f.uri("docs/new.txt"));
    let path = f.inside().join("docs/new.txt");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let base64 = json!({"path": "docs/new.txt", "content": "AJ+Slg==", "encoding": "base64"});
    assert_eq!(f.call("write_file", base64).await["created"], false);
    assert_eq!(std::fs::read(&path).unwrap(), [0, 159, 146, 150]);
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o640
    );
    let deep = json!({"path": "x/y/z.txt", "content": ""});
    assert!(f.fails("write_file", deep).await.contains("does not exist"));
    let deep = json!({"path": "x/y/z.txt", "content": "", "create_directories": true});
    f.call("write_file", deep).await;
    assert_eq!(
        f.call("delete_file", json!({"path": "x/y/z.txt"})).await["deleted"],
        true
    );
    for (path, content, word) in [
        ("docs", "x", "not a regular file"),
        ("link.txt", "x", "symbolic link"),
        ("up/new.txt", "x", "symbolic link"),
        (".hidden", "x", "does not exist"),
        ("docs/a.md/b", "x", "not a directory"),
        ("docs/long", "eleven byte", "up to 10"),
    ] {
        let why = f
            .fails("write_file", json!({"path": path, "content": content}))
            .await;
        assert!(why.contains(word), "{path}: {why}");
    }
    let made = json!({"path": "up/a/b", "content": "", "create_directories": true});
    assert!(f.fails("write_file", made).await.contains("symbolic link"));
    let bad = json!({"path": "docs/b", "content": "?", "encoding": "base64"});
    assert!(f.fails("write_file", bad).await.contains("base64"));
    assert!(
        f.fails("delete_file", json!({"path": "docs"}))
            .await
            .contains("not a regular")
    );
    assert!(
        f.fails("delete_file", json!({"path": "none"}))
            .await
            .contains("does not exist")
    );
    assert_eq!(
        std::fs::read_dir(f.inside().join("docs")).unwrap().count(),
        3,
        "no leftovers"
    );
    assert!(!f.temp.path().join("a").exists());
}

/// Readers that look while a file is replaced again and again see one of the two contents.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_never_sees_half_a_file() {
    let f = fixture(|options| options.writable = true);
    let (ones, twos) = ("1".repeat(200_000), "2".repeat(150_000));
    f.call("write_file", json!({"path": "big", "content": ones}))
        .await;
    let path = f.inside().join("big");
    let reader = tokio::task::spawn_blocking(move || {
        let mut lengths = std::collections::BTreeSet::new();
        for _ in 0..300 {
            let bytes = std::fs::read(&path).unwrap();
            assert!(bytes.iter().all(|byte| *byte == bytes[0]));
            lengths.insert(bytes.len());
        }
        lengths
    });
    for _ in 0..20 {
        f.call("write_file", json!({"path": "big", "content": twos}))
            .await;
        f.call("write_file", json!({"path": "big", "content": ones}))
            .await;
    }
    let lengths = reader.await.unwrap();
    assert!(
        lengths.iter().all(|len| [200_000, 150_000].contains(len)),
        "{lengths:?}"
    );
}

#[tokio::test]
async fn files_are_resources_under_one_uri_each() {
    let f = fixture(|_| {});
    let page = f.provider.resources(None, 100).wait().await.unwrap();
    let uris: Vec<&str> = page.items.iter().map(|r| r.uri.as_str()).collect();
    let expected: Vec<String> = ["docs/a.md", "docs/deep/b.txt", "euro.txt", "raw.bin"]
        .map(|p| f.uri(p))
        .to_vec();
    assert_eq!(uris, expected);
    assert_eq!(page.items[0].mime_type.as_deref(), Some("text/markdown"));
    assert_eq!(page.items[0].size, Some(30));
    for uri in &expected {
        assert!(f.provider.owns_uri(uri));
        f.read(uri).await.unwrap();
    }
    assert_eq!(
        f.read(&f.uri("euro.txt")).await.unwrap(),
        Body::Text("aé€🎉z".into())
    );
    for other in [
        "docs/%61.md",
        "docs/../docs/a.md",
        "docs//a.md",
        "docs%2Fa.md",
        "docs/a.md/",
        "docs/a.md?x",
        "docs/a.md%00",
        "link.txt",
        "up/outside.txt",
        "up/inside/docs/a.md",
        "docs",
        "none",
        "",
    ] {
        let uri = f.uri(other);
        assert!(
            matches!(f.read(&uri).await, Err(Failure::NotFound)),
            "{uri}"
        );
    }
    assert!(!f.provider.owns_uri("file:///etc/passwd"));
    assert!(matches!(
        f.read("file:///etc/passwd").await,
        Err(Failure::NotFound)
    ));
}

#[tokio::test]
async fn the_template_completes_what_the_caller_may_see() {
    let f = fixture(|_| {});
    let template = f.provider.resource_templates().remove(0).uri_template;
    assert_eq!(template, f.uri("{+path}"));
    let complete = async |grants: &[&str], value: &str| {
        let target = CompletionTarget::Resource(template.clone());
        let context = testing::context(grants);
        let answer = f
            .provider
            .complete(context, target, "path", value, Vec::new());
        answer.wait().await.unwrap().values
    };
    assert_eq!(
        complete(&["resources:*"], "docs/").await,
        ["docs/a.md", "docs/deep/"]
    );
    let narrow = format!("resources:{}*", f.uri("docs/deep/"));
    assert_eq!(complete(&[&narrow], "docs/").await, ["docs/deep/"]);
    assert_eq!(complete(&["tools:*"], "docs/").await, [""; 0]);
}

#[tokio::test]
async fn facts_of_files_and_directories() {
    let f = fixture(|_| {});
    let info = f.call("file_info", json!({"path": "docs/a.md"})).await;
    assert_eq!((&info["type"], &info["size"]), (&json!("file"), &json!(30)));
    assert_eq!(info["uri"], f.uri("docs/a.md"));
    assert_eq!(info["mime_type"], "text/markdown");
    assert_eq!(
        f.call("file_info", json!({"path": "."})).await["type"],
        "directory"
    );
    let link = f.call("file_info", json!({"path": "link.txt"})).await;
    assert_eq!((&link["type"], link.get("size")), (&json!("symlink"), None));
    assert!(
        f.fails("file_info", json!({"path": "up/inside"}))
            .await
            .contains("symbolic link")
    );
}

#[tokio::test]
async fn hidden_names_are_served_only_where_the_configuration_says_so() {
    for hidden in [false, true] {
        let f = fixture(|options| options.hidden = hidden);
        std::fs::write(f.inside().join(".env"), "needle").unwrap();
        let listed = f.call("list_directory", json!({})).await;
        assert_eq!(names(&listed).contains(&".env"), hidden);
        assert_eq!(f.read(&f.uri(".env")).await.is_ok(), hidden);
        let found = f
            .call("search_files", json!({"content": "needle", "glob": ".*"}))
            .await;
        assert_eq!(
            found["matches"].as_array().unwrap().len(),
            usize::from(hidden)
        );
    }
}

#[test]
fn a_provider_has_a_name_that_tools_can_have() {
    let open = |name: &str| {
        let temp = tempfile::tempdir().unwrap();
        let mut options = FilesOptions::new(temp.path());
        options.name = name.to_owned();
        FilesProvider::open(options).map(|provider| provider.name().to_owned())
    };
    assert_eq!(open("docs-2").unwrap(), "docs-2");
    for name in ["", "a b", "a/b", "a__b", &"a".repeat(65)] {
        assert!(open(name).is_err(), "{name}");
    }
}

#[test]
fn options_are_read_with_their_defaults_and_nothing_unknown() {
    let options: FilesOptions = serde_json::from_str(r#"{"root":"/srv/docs"}"#).unwrap();
    assert_eq!(options, FilesOptions::new("/srv/docs"));
    assert!(!options.writable && !options.hidden);
    assert!(serde_json::from_str::<FilesOptions>(r#"{"root":"/srv","writeable":true}"#).is_err());
    let schema = schemars::schema_for!(FilesOptions);
    let properties = schema.get("properties").unwrap().as_object().unwrap();
    assert!(
        properties.values().all(|p| p.get("description").is_some()),
        "{schema:?}"
    );
}

#[test]
fn a_large_result_is_not_escaped_twice() {
    // 64 KiB of text with a quote in each line: the two copies are the same bytes.
    let temp = tempfile::tempdir().unwrap();
    let text = "a \"quoted\" line\n".repeat(4_096);
    std::fs::write(temp.path().join("a"), &text).unwrap();
    let provider = FilesProvider::open(FilesOptions::new(temp.path())).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let arguments = Schema::unchecked("{}").check(Some(Bytes::from_static(br#"{"path":"a"}"#)));
    let answer = provider.call_tool(testing::context(&["*"]), "read_file", arguments.unwrap());
    let result = runtime.block_on(answer.wait()).unwrap();
    assert!(matches!(result, ToolResult::Encoded(_)));
    let value = testing::members(|out| result.encode_members(out));
    assert_eq!(value["structuredContent"]["content"], text);
    assert_eq!(value["content"][0]["text"], text);
}
