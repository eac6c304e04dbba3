//! `connect --listen`: who on this machine may use the endpoint, and that an ordinary HTTP client
//! goes through it in both eras.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Child;

use super::support::http::each_is_secured;
use super::support::pki::PATIENCE;
use super::support::program::{Person, Program};
use super::support::served::modern;

const READER: &[&str] = &["tools:files__read_file", "tools:self__whoami"];

struct Endpoint {
    port: u16,
    token: Option<String>,
    _child: Child,
}

/// An answer of HTTP/1.1.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let wanted = |line: &&str| line.to_ascii_lowercase().starts_with(&format!("{name}: "));
        Some(self.head.lines().find(wanted)?.split_once(": ")?.1)
    }

    fn json(&self) -> Value {
        let text = self.body.lines().rfind(|line| line.starts_with("data: {"));
        let text = text.map_or(self.body.as_str(), |line| &line[6..]);
        serde_json::from_str(text).unwrap_or_else(|_| panic!("{self:?}"))
    }
}

impl Endpoint {
    async fn start(program: &Program, person: &Person, more: &[&str]) -> Self {
        let arguments = [&["connect", "--listen", "127.0.0.1:0"], more].concat();
        let mut command = program.command(person, &arguments);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let reading = async {
            let mut next = async || {
                lines
                    .next_line()
                    .await
                    .unwrap()
                    .expect("it says where it listens")
            };
            (next().await, next().await)
        };
        let (place, token) = tokio::time::timeout(PATIENCE, reading).await.unwrap();
        let place = place.split_once("127.0.0.1:").unwrap().1;
        let port = place.split('/').next().unwrap().parse().unwrap();
        let token = token
            .split_once("Bearer ")
            .map(|(_, token)| token.trim_end_matches('`').to_owned());
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self {
            port,
            token,
            _child: child,
        }
    }

    /// One request on a connection of its own, with exactly these fields.
    async fn request(
        &self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        for (name, value) in fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        stream
            .write_all(format!("{head}\r\n{body}").as_bytes())
            .await
            .unwrap();
        let mut text = String::new();
        let reading = stream.read_to_string(&mut text);
        tokio::time::timeout(PATIENCE, reading)
            .await
            .expect("an answer in time")
            .unwrap();
        // Our own refusals and what the server answers alike.
        each_is_secured(&text);
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer {
            status,
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    /// A POST as an ordinary client sends it, with other or more fields.
    async fn post(&self, message: &Value, more: &[(&str, &str)]) -> Answer {
        let host = format!("localhost:{}", self.port);
        let bearer = self.token.as_ref().map(|token| format!("Bearer {token}"));
        let mut fields = vec![
            ("Host", host.as_str()),
            ("Content-Type", "application/json"),
            ("Accept", "application/json, text/event-stream"),
        ];
        if let Some(bearer) = &bearer {
            fields.push(("Authorization", bearer));
        }
        for (name, value) in more {
            fields.retain(|(known, _)| known != name);
            fields.push((name, value));
        }
        fields.retain(|(_, value)| !value.is_empty());
        self.request("POST", "/mcp", &fields, &message.to_string())
            .await
    }
}

fn whoami() -> Value {
    modern(1, "tools/call", json!({"name": "self__whoami"}))
}

const MODERN: [(&str, &str); 3] = [
    ("MCP-Protocol-Version", "2026-07-28"),
    ("Mcp-Method", "tools/call"),
    ("Mcp-Name", "self__whoami"),
];

#[tokio::test]
async fn only_who_knows_the_token_and_names_this_machine_comes_in() {
    let program = Program::start(|_| ()).await;
    let reader = program.person("reader", READER);
    let endpoint = Endpoint::start(&program, &reader, &[]).await;
    assert!(endpoint.token.as_ref().unwrap().len() >= 43);
    let port = endpoint.port;
    let good = endpoint.post(&whoami(), &MODERN).await;
    assert_eq!(good.status, 200, "{good:?}");
    assert!(
        good.json()["result"]["structuredContent"]["name"]
            .as_str()
            .unwrap()
            .ends_with("/reader")
    );
    let here = format!("http://localhost:{port}");
    assert_eq!(
        endpoint
            .post(&whoami(), &[&MODERN[..], &[("Origin", &here)]].concat())
            .await
            .status,
        200
    );
    let elsewhere = format!("evil.example:{port}");
    for (field, status) in [
        (("Authorization", ""), 401),
        (("Authorization", "Bearer 0123456789abcdef"), 401),
        (("Host", elsewhere.as_str()), 421),
        (("Host", ""), 400),
        (("Origin", "http://evil.example"), 403),
        (("Origin", "null"), 403),
    ] {
        let refused = endpoint
            .post(&whoami(), &[&MODERN[..], &[field]].concat())
            .await;
        // Without a host hyper itself may refuse; with ours it is 421.
        let fits = refused.status == status || (status == 400 && refused.status == 421);
        assert!(fits, "{field:?} {refused:?}");
    }
    let host = format!("127.0.0.1:{port}");
    let bearer = format!("Bearer {}", endpoint.token.as_ref().unwrap());
    let fields = [("Host", host.as_str()), ("Authorization", bearer.as_str())];
    assert_eq!(
        endpoint
            .request("POST", "/other", &fields, "{}")
            .await
            .status,
        404
    );
    let refused = endpoint.request("PUT", "/mcp", &fields, "{}").await;
    assert_eq!(
        (refused.status, refused.header("allow")),
        (405, Some("POST, GET, DELETE"))
    );
    let long = [&fields[..], &[("Content-Length", "99999999999")]].concat();
    assert_eq!(
        endpoint.request("POST", "/mcp", &long, "").await.status,
        413
    );
    // What hyper refuses by itself.
    for (field, status) in [
        (("Bad Name", "1".to_owned()), 400),
        (("X-Long", "x".repeat(100_000)), 431),
    ] {
        let fields = [&fields[..], &[(field.0, field.1.as_str())]].concat();
        let refused = endpoint.request("GET", "/mcp", &fields, "").await;
        assert_eq!(refused.status, status, "{field:?}");
    }
    // Nothing of what was refused reached the server.
    let decisions = program
        .audit()
        .iter()
        .filter(|r| r["event"] == "decision")
        .count();
    assert_eq!(decisions, 2);
    drop(program);
    assert_eq!(endpoint.post(&whoami(), &MODERN).await.status, 502);
}

#[tokio::test]
async fn a_token_is_chosen_or_left_out_on_purpose() {
    let program = Program::start(|_| ()).await;
    let reader = program.person("reader", READER);
    let file = program.folder.path().join("token");
    let endpoint =
        Endpoint::start(&program, &reader, &["--token-file", file.to_str().unwrap()]).await;
    assert_eq!(endpoint.token, None, "a token in a file is not shown");
    let token = std::fs::read_to_string(&file).unwrap();
    assert_eq!(endpoint.post(&whoami(), &MODERN).await.status, 401);
    let bearer = format!("Bearer {}", token.trim());
    let with = [&MODERN[..], &[("Authorization", bearer.as_str())]].concat();
    assert_eq!(endpoint.post(&whoami(), &with).await.status, 200);
    let endpoint = Endpoint::start(&program, &reader, &["--no-token"]).await;
    assert_eq!(endpoint.post(&whoami(), &MODERN).await.status, 200);
    // Loopback addresses only.
    let mut command = program.command(&reader, &["connect", "--listen", "0.0.0.0:0", "--no-token"]);
    let output = command.output().await.unwrap();
    assert_eq!(output.status.code(), Some(6), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("`0.0.0.0:0` is not a loopback address"),
        "{said}"
    );
}

#[tokio::test]
async fn a_session_goes_through_with_its_streams() {
    let program = Program::start(|docs| std::fs::write(docs.join("a.md"), "one").unwrap()).await;
    let reader = program.person("reader", &["tools:*", "resources:*"]);
    let endpoint = Endpoint::start(&program, &reader, &["--no-token"]).await;
    let initialize = json!({"jsonrpc":"2.0","id":0,"method":"initialize","params":{
        "protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}});
    let opened = endpoint.post(&initialize, &[]).await;
    assert_eq!(opened.status, 200, "{opened:?}");
    let session = opened
        .header("mcp-session-id")
        .expect("a session")
        .to_owned();
    let fields = [
        ("Mcp-Session-Id", session.as_str()),
        ("MCP-Protocol-Version", "2025-11-25"),
    ];
    let told = json!({"jsonrpc":"2.0","method":"notifications/initialized"});
    assert_eq!(endpoint.post(&told, &fields).await.status, 202);
    let listed = endpoint
        .post(
            &json!({"jsonrpc":"2.0","id":1,"method":"resources/list"}),
            &fields,
        )
        .await;
    let uri = listed.json()["result"]["resources"][0]["uri"]
        .as_str()
        .unwrap()
        .to_owned();
    let watch = json!({"jsonrpc":"2.0","id":2,"method":"resources/subscribe","params":{"uri":uri}});
    assert_eq!(endpoint.post(&watch, &fields).await.status, 200);
    // The session's own stream brings what happens while it is open.
    let mut stream = TcpStream::connect(("127.0.0.1", endpoint.port))
        .await
        .unwrap();
    let get = format!(
        "GET /mcp HTTP/1.1\r\nHost: localhost:{}\r\nAccept: text/event-stream\r\n\
         Mcp-Session-Id: {session}\r\nMCP-Protocol-Version: 2025-11-25\r\n\r\n",
        endpoint.port
    );
    stream.write_all(get.as_bytes()).await.unwrap();
    let mut lines = BufReader::new(&mut stream).lines();
    let mut next = async || {
        tokio::time::timeout(PATIENCE, lines.next_line())
            .await
            .unwrap()
            .unwrap()
            .unwrap()
    };
    assert!(next().await.starts_with("HTTP/1.1 200"));
    while !next().await.is_empty() {}
    let write = json!({"jsonrpc":"2.0","id":3,"method":"tools/call",
        "params":{"name":"files__write_file","arguments":{"path":"a.md","content":"two"}}});
    assert_eq!(endpoint.post(&write, &fields).await.status, 200);
    while !next().await.contains("notifications/resources/updated") {}
    let host = format!("localhost:{}", endpoint.port);
    let fields = [&fields[..], &[("Host", host.as_str())]].concat();
    assert!(endpoint.request("DELETE", "/mcp", &fields, "").await.status < 300);
    assert_eq!(
        endpoint
            .post(&json!({"jsonrpc":"2.0","id":4,"method":"ping"}), &fields)
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn whoever_goes_away_cancels_upstream() {
    let program = Program::start(|docs| {
        let large = docs.join("large");
        std::fs::create_dir(&large).unwrap();
        let original = large.join("0000.txt");
        std::fs::write(&original, "nothing to be found here\n".repeat(10_000)).unwrap();
        for n in 1..800 {
            std::fs::hard_link(&original, large.join(format!("{n:04}.txt"))).unwrap();
        }
    })
    .await;
    let reader = program.person("reader", &["tools:*"]);
    let endpoint = Endpoint::start(&program, &reader, &["--no-token"]).await;
    let search = modern(
        1,
        "tools/call",
        json!({"name": "files__search_files",
        "_meta": {"progressToken": 1}, "arguments": {"path": "large", "content": "needle"}}),
    );
    let body = search.to_string();
    let mut stream = TcpStream::connect(("127.0.0.1", endpoint.port))
        .await
        .unwrap();
    let head = format!(
        "POST /mcp HTTP/1.1\r\nHost: localhost:{}\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2026-07-28\r\n\
         Mcp-Method: tools/call\r\nMcp-Name: files__search_files\r\nContent-Length: {}\r\n\r\n",
        endpoint.port,
        body.len()
    );
    stream
        .write_all(format!("{head}{body}").as_bytes())
        .await
        .unwrap();
    let mut lines = BufReader::new(stream).lines();
    let first = async {
        while !lines
            .next_line()
            .await
            .unwrap()
            .unwrap()
            .contains("notifications/progress")
        {}
    };
    tokio::time::timeout(PATIENCE, first)
        .await
        .expect("progress comes as it happens");
    drop(lines);
    program
        .recorded(|r| r["event"] == "outcome" && r["outcome"] == "cancelled")
        .await;
}
