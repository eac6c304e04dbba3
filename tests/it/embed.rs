//! Somebody else's program with tools of its own: the two examples of `docs/embed.md`, each run as
//! a process and asked by a client over mutual TLS. The handler names who called; what the
//! certificate does not allow does not reach it.

use serde_json::{Value, json};

use super::support::pki;
use super::support::program::{Person, Program};
use super::support::served::{Lines, modern};

async fn lines(program: &Program, person: &Person) -> Lines {
    Lines::over(program.stream(person).await)
}

/// The text of the answer, or the error's message.
fn said(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"]
        .as_str()
        .or_else(|| answer["error"]["message"].as_str())
        .unwrap()
}

async fn hosted(example: &str) {
    let program = Program::start_example(example).await;
    let ann = program.person("ann", &["tools:demo__shout"]);
    let bob = program.person("bob", &["tools:demo__whisper", "resources:*"]);
    let shout = json!({"name":"demo__shout","arguments":{"text":"hello"}});

    let mut hers = lines(&program, &ann).await;
    let answer = hers.ask("tools/call", shout.clone()).await;
    assert_eq!(said(&answer), format!("HELLO, says {}", pki::spiffe("ann")));
    let tools = hers.ask("tools/list", json!({})).await;
    assert_eq!(tools["result"]["tools"][0]["name"], "demo__shout");
    let wrong = json!({"name":"demo__shout","arguments":{"text":1}});
    let answer = hers.ask("tools/call", wrong).await;
    assert_eq!(answer["result"]["isError"], true, "{answer}");

    // In an older revision, on one connection after the other.
    let mut hers = lines(&program, &ann).await;
    assert_eq!(hers.initialize("2025-11-25").await, "2025-11-25");
    let answer = hers.ask_bare("tools/call", shout.clone()).await;
    assert_eq!(said(&answer), format!("HELLO, says {}", pki::spiffe("ann")));

    // The handler is the same; the certificate is another.
    let mut his = lines(&program, &bob).await;
    let tools = his.ask("tools/list", json!({})).await;
    assert_eq!(tools["result"]["tools"], json!([]));
    his.send(&modern(9, "tools/call", shout)).await;
    let answer = his.receive().await;
    assert_eq!(said(&answer), "unknown tool: demo__shout");
    program
        .recorded(|one| one["target"] == "demo__shout" && one["allowed"] == false)
        .await;
}

#[tokio::test]
async fn a_program_serves_its_own_tools() {
    hosted("embed").await;
}

#[cfg(feature = "rmcp")]
#[tokio::test]
async fn a_program_serves_a_handler_of_the_sdk() {
    hosted("embed_rmcp").await;
}

#[test]
fn the_document_shows_the_programs_as_they_are() {
    let read = |path| std::fs::read_to_string(path).unwrap();
    let document = read("docs/embed.md");
    let programs = [read("examples/embed.rs"), read("examples/embed_rmcp.rs")];
    let mut blocks = document
        .split("```rust\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap());
    for program in &programs {
        let shown = blocks.next().expect("a block for each program");
        assert!(program.contains(shown), "{shown}");
        let lines = program.lines().filter(|line| !line.trim().is_empty());
        assert!(lines.filter(|line| !line.starts_with("//")).count() < 30);
    }
}
