//! The program's client by each transport: the same answers, the same refusals, and the bridge with
//! the SDK behind it in both eras.

use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};

use super::support::pki::PATIENCE;
use super::support::program::{Person, Program};
use super::support::served::modern;

const READER: &[&str] = &[
    "tools:files__read_file",
    "tools:files__search_files",
    "tools:self__whoami",
    "resources:*",
    "prompts:*",
];
const WAYS: [&str; 3] = ["raw", "ws", "http"];
/// A search tells its progress every 256 entries.
const FILES: usize = 800;

fn fill(docs: &Path) {
    std::fs::write(docs.join("a.md"), "# Alpha\n").unwrap();
    // The search of one is over soon, that of the other takes its time.
    for (folder, lines) in [("small", 1), ("large", 10_000)] {
        let folder = docs.join(folder);
        std::fs::create_dir(&folder).unwrap();
        let original = folder.join("0000.txt");
        std::fs::write(&original, "nothing to be found here\n".repeat(lines)).unwrap();
        for n in 1..FILES {
            std::fs::hard_link(&original, folder.join(format!("{n:04}.txt"))).unwrap();
        }
    }
}

async fn run(program: &Program, person: &Person, arguments: &[&str]) -> Output {
    let mut command = program.command(person, arguments);
    command.stdin(Stdio::null());
    let running = tokio::time::timeout(PATIENCE, command.output());
    running.await.expect("the command ends in time").unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn every_command_says_the_same_by_every_transport() {
    let program = Program::start(fill).await;
    let reader = program.person("reader", READER);
    let commands: [(&[&str], i32); 8] = [
        (&["tools"], 0),
        (&["resources"], 0),
        (&["prompts"], 0),
        (&["call", "files__read_file", "path=a.md"], 0),
        (&["prompt", "prompts__greet", "who=Ada"], 0),
        (&["call", "files__read_file", "path=none.md"], 1),
        (&["call", "files__write_file", "path=x", "content=y"], 3),
        (&["prompt", "prompts__none"], 3),
    ];
    for (command, exit) in commands {
        let mut said = Vec::new();
        for way in WAYS {
            let output = run(
                &program,
                &reader,
                &[command, &["--transport", way]].concat(),
            )
            .await;
            assert_eq!(
                output.status.code(),
                Some(exit),
                "{way} {command:?} {output:?}"
            );
            said.push((text(&output.stdout), text(&output.stderr)));
        }
        assert_eq!(said[0], said[1], "{command:?}");
        assert_eq!(said[0], said[2], "{command:?}");
    }
    // What says how it came in, or how long it took, is not the same; that it works is.
    let file = program
        .folder
        .path()
        .join("docs/a.md")
        .canonicalize()
        .unwrap();
    let uri = format!("file://{}", file.display());
    for way in WAYS {
        for (command, says) in [
            (&["read", uri.as_str()][..], "# Alpha"),
            (&["whoami"], "reader"),
            (&["ping", "--count", "1"], ""),
            (&["doctor"], ""),
        ] {
            let arguments = [command, &["--transport", way]].concat();
            let output = run(&program, &reader, &arguments).await;
            assert!(output.status.success(), "{way} {command:?} {output:?}");
            assert!(text(&output.stdout).contains(says), "{way} {output:?}");
        }
    }
    let audit = program.audit();
    for transport in ["raw", "websocket", "http"] {
        let mut denied = audit
            .iter()
            .filter(|r| r["event"] == "decision" && r["transport"] == transport);
        assert!(
            denied.any(|r| r["target"] == "files__write_file"),
            "{transport}"
        );
    }
    // Whoever left said so.
    let mut closed = audit.iter().filter(|record| record["event"] == "closed");
    assert!(
        closed.all(|record| record["reason"] == "closed by the peer"),
        "{audit:?}"
    );
}

#[tokio::test]
async fn a_stranger_is_told_the_same_by_every_transport() {
    let program = Program::start(fill).await;
    let reader = program.person("reader", READER);
    let nobody = program.person("nobody", &[]);
    for way in WAYS {
        let output = run(&program, &reader, &["tools", "--transport", way]).await;
        assert!(output.status.success(), "{output:?}");
        let output = run(&program, &nobody, &["tools", "--transport", way]).await;
        assert_eq!(output.status.code(), Some(3), "{way} {output:?}");
        let said = text(&output.stderr);
        assert!(said.contains("access_denied"), "{way} {said}");
    }
}

/// `countersign connect` as a child that is spoken to in lines.
struct Bridge {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Bridge {
    fn start(program: &Program, person: &Person, way: &str) -> Self {
        let mut command = program.command(person, &["connect", "--transport", way]);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        let mut child = command.spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self {
            child,
            input,
            output: BufReader::new(output).lines(),
        }
    }

    async fn send(&mut self, message: &Value) {
        self.input
            .write_all(format!("{message}\n").as_bytes())
            .await
            .unwrap();
    }

    async fn receive(&mut self) -> Value {
        let line = tokio::time::timeout(PATIENCE, self.output.next_line()).await;
        let line = line
            .expect("an answer in time")
            .unwrap()
            .expect("the bridge goes on");
        serde_json::from_str(&line).unwrap()
    }

    /// Closes the input and waits for the end; what was still said.
    async fn end(mut self) -> Vec<String> {
        drop(self.input);
        let mut rest = Vec::new();
        while let Some(line) = self.output.next_line().await.unwrap() {
            rest.push(line);
        }
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        assert!(status.expect("it ends in time").unwrap().success());
        rest
    }
}

fn search(id: u64, folder: &str, modern_era: bool) -> Value {
    let params = json!({"name": "files__search_files", "_meta": {"progressToken": "p"},
        "arguments": {"path": folder, "content": "needle"}});
    match modern_era {
        true => modern(id, "tools/call", params),
        false => json!({"jsonrpc":"2.0","id":id,"method":"tools/call","params":params}),
    }
}

#[tokio::test]
async fn the_bridge_carries_both_eras_with_progress_and_cancellation() {
    let program = Program::start(fill).await;
    let reader = program.person("reader", READER);
    let mut cancelled = 0;
    for way in ["ws", "http"] {
        for modern_era in [true, false] {
            let mut bridge = Bridge::start(&program, &reader, way);
            if !modern_era {
                bridge.send(&json!({"jsonrpc":"2.0","id":0,"method":"initialize","params":{
                    "protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}})).await;
                let opened = bridge.receive().await;
                assert_eq!(
                    opened["result"]["protocolVersion"], "2025-11-25",
                    "{opened}"
                );
                bridge
                    .send(&json!({"jsonrpc":"2.0","method":"notifications/initialized"}))
                    .await;
            }
            bridge.send(&search(1, "small", modern_era)).await;
            let mut heard = 0;
            let answer = loop {
                let message = bridge.receive().await;
                if message["method"] == "notifications/progress" {
                    heard += 1;
                } else {
                    break message;
                }
            };
            assert_eq!(
                answer["result"]["structuredContent"]["files_searched"], FILES,
                "{answer}"
            );
            assert!(heard > 0, "{way} {modern_era}");
            bridge.send(&search(2, "large", modern_era)).await;
            assert_eq!(bridge.receive().await["method"], "notifications/progress");
            bridge.send(&json!({"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":2}})).await;
            cancelled += 1;
            program
                .recorded_times(cancelled, |r| {
                    r["event"] == "outcome" && r["outcome"] == "cancelled"
                })
                .await;
            // Nonsense is answered, and ends nothing.
            bridge.input.write_all(b"nonsense\n").await.unwrap();
            let refused = loop {
                let message = bridge.receive().await;
                if message["method"] != "notifications/progress" {
                    break message;
                }
            };
            assert_eq!(refused["error"]["code"], -32700, "{way} {refused}");
            bridge.send(&search(3, "small", modern_era)).await;
            let rest = bridge.end().await;
            let last: Value = serde_json::from_str(rest.last().unwrap()).unwrap();
            // What was asked before the end of the input is answered.
            assert_eq!(last["id"], 3, "{way} {modern_era} {rest:?}");
        }
    }
}

#[tokio::test]
async fn the_bridge_cancels_for_a_client_that_is_gone() {
    let program = Program::start(fill).await;
    let reader = program.person("reader", READER);
    let mut searches = 0;
    for way in WAYS {
        for modern_era in [true, false] {
            let mut bridge = Bridge::start(&program, &reader, way);
            if !modern_era {
                bridge.send(&json!({"jsonrpc":"2.0","id":0,"method":"initialize","params":{
                    "protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}})).await;
                assert_eq!(bridge.receive().await["id"], 0);
            }
            let mut search = search(1, "large", modern_era);
            let meta = search["params"]["_meta"].as_object_mut().unwrap();
            meta.remove("progressToken");
            bridge.send(&search).await;
            searches += 1;
            let is_search = |r: &Value| r["target"] == "files__search_files";
            program.recorded_times(searches, is_search).await;
            // As when the program that started it is killed: both pipes close, and nobody waits.
            let Bridge {
                mut child,
                input,
                output,
            } = bridge;
            drop((input, output));
            let is_cancelled = |r: &Value| r["outcome"] == "cancelled";
            program.recorded_times(searches, is_cancelled).await;
            let status = tokio::time::timeout(PATIENCE, child.wait()).await;
            assert!(status.expect("it ends in time").unwrap().success(), "{way}");
        }
    }
}

#[tokio::test]
async fn the_bridge_outlives_its_server_by_every_transport() {
    for way in WAYS {
        let mut program = Program::start(fill).await;
        let reader = program.person("reader", READER);
        let mut bridge = Bridge::start(&program, &reader, way);
        bridge.send(&json!({"jsonrpc":"2.0","id":0,"method":"initialize","params":{
            "protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}})).await;
        assert_eq!(bridge.receive().await["id"], 0);
        bridge
            .send(&json!({"jsonrpc":"2.0","method":"notifications/initialized"}))
            .await;
        bridge
            .send(&json!({"jsonrpc":"2.0","id":1,"method":"tools/list"}))
            .await;
        assert!(bridge.receive().await["result"].is_object());
        program.restart().await;
        // The first request after it may be the one that finds the connection broken.
        let mut id = 2;
        loop {
            bridge
                .send(&json!({"jsonrpc":"2.0","id":id,"method":"tools/list"}))
                .await;
            let answer = bridge.receive().await;
            assert_eq!(answer["id"], id);
            if answer["result"].is_object() {
                break;
            }
            assert_eq!(answer["error"]["code"], 4503, "{way} {answer}");
            id += 1;
        }
        bridge.end().await;
    }
}
