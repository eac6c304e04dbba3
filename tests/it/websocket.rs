//! The WebSocket, by RFC 6455: what is agreed on, what ends it and with which code, and what a peer
//! that does not play along can cost.

use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::support::pki::{Certified, PATIENCE};
use crate::support::served::{Served, Site, modern};
use crate::support::ws::{self, BINARY, CLOSE, PING, PONG, TEXT, Ws, frame, head};

async fn open(site: &Site) -> (Served, Certified) {
    let operator = site.enrol("operator", &["*", "admin:*"]).await;
    (site.serve().await, operator)
}

async fn works(ws: &mut Ws) {
    let answer = ws.ask("tools/call", json!({"name": "self__whoami"})).await;
    assert_eq!(answer["result"]["resultType"], "complete", "{answer}");
}

#[tokio::test]
async fn the_upgrade_agrees_on_the_subprotocol_and_on_no_extension() {
    let site = Site::with("[http]\nallowed_origins = [\"https://good.example\"]\n").await;
    let (served, operator) = open(&site).await;
    let cases = [
        ("", false),
        ("Sec-WebSocket-Protocol: mcp\r\n", true),
        ("Sec-WebSocket-Protocol: other, mcp\r\n", true),
        (
            "Sec-WebSocket-Protocol: other\r\nSec-WebSocket-Protocol: mcp\r\n",
            true,
        ),
        (
            "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n",
            false,
        ),
        ("Origin: https://good.example\r\n", false),
        // With a body, an empty one.
        ("Transfer-Encoding: chunked\r\n\r\n0\r\n", false),
    ];
    for (fields, agreed) in cases {
        let mut stream = ws::https(&site, &served, &operator).await;
        let head = ws::upgrade(&mut stream, fields).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{fields} {head}");
        let lower = head.to_ascii_lowercase();
        assert!(head.contains(ws::ACCEPT), "{head}");
        assert_eq!(
            lower.contains("sec-websocket-protocol: mcp\r\n"),
            agreed,
            "{fields} {head}"
        );
        assert!(!lower.contains("sec-websocket-extensions"), "{head}");
        let connection = lower.matches("connection: ").count();
        assert!(
            lower.contains("connection: upgrade\r\n") && connection == 1,
            "{fields} {head}"
        );
    }
    for (fields, status) in [
        ("Origin: https://evil.example\r\n", "403"),
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "400"),
    ] {
        let mut stream = ws::https(&site, &served, &operator).await;
        let head = ws::upgrade(&mut stream, fields).await;
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{fields} {head}"
        );
    }
    for (wrong, status) in [
        (
            "Sec-WebSocket-Version: 8\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            "426",
        ),
        (
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: c2hvcnQ=\r\n",
            "400",
        ),
        ("Sec-WebSocket-Version: 13\r\n", "400"),
    ] {
        let mut stream = ws::https(&site, &served, &operator).await;
        let request = format!(
            "GET /mcp HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{wrong}\r\n"
        );
        let head = ws::answer(&mut stream, &request).await;
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{wrong} {head}"
        );
    }
    served.stop().await;
}

#[tokio::test]
async fn both_eras_are_served_and_the_lists_are_those_of_the_raw_stream() {
    let site = Site::new().await;
    let (served, operator) = open(&site).await;
    let mut ws = Ws::open(&site, &served, &operator).await;
    let mut raw = site.reach(&served, &operator).await;
    for list in [
        "tools/list",
        "resources/list",
        "resources/templates/list",
        "prompts/list",
    ] {
        let over_ws = ws.ask(list, json!({})).await;
        let over_raw = raw.ask(list, json!({})).await;
        assert_eq!(
            over_ws["result"].to_string(),
            over_raw["result"].to_string()
        );
    }
    let mut ws = Ws::open(&site, &served, &operator).await;
    let initialize = json!({"jsonrpc":"2.0","id":"i","method":"initialize","params":{
        "protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}});
    ws.send(&frame(TEXT, initialize.to_string().as_bytes()))
        .await;
    assert_eq!(
        ws.message().await["result"]["protocolVersion"],
        "2025-11-25"
    );
    let call =
        json!({"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"self__whoami"}});
    ws.send(&frame(TEXT, call.to_string().as_bytes())).await;
    let answer = ws.message().await;
    assert!(
        answer["result"]["structuredContent"]["name"].is_string(),
        "{answer}"
    );
    assert!(answer["result"]["resultType"].is_null());
    served.stop().await;
}

#[tokio::test]
async fn a_message_may_be_cut_and_pings_may_come_between() {
    let site = Site::new().await;
    let (served, operator) = open(&site).await;
    let mut ws = Ws::open(&site, &served, &operator).await;
    let request = modern(
        7,
        "tools/call",
        json!({"name": "self__whoami", "arguments": {}}),
    );
    let request = request.to_string();
    let (first, rest) = request.as_bytes().split_at(9);
    let (second, third) = rest.split_at(30);
    for piece in [
        frame(0x01, first),
        frame(PING, b"one"),
        frame(0x00, second),
        frame(PING, b""),
        frame(0x80, third),
    ] {
        for byte in piece {
            ws.send(&[byte]).await;
        }
    }
    assert_eq!(ws.frame().await, Some((PONG, b"one".to_vec())));
    assert_eq!(ws.frame().await, Some((PONG, Vec::new())));
    assert_eq!(ws.message().await["id"], 7);
    // A pong that nobody asked for means nothing.
    ws.send(&frame(PONG, b"unasked")).await;
    works(&mut ws).await;
    served.stop().await;
}

#[tokio::test]
async fn each_broken_rule_ends_the_connection_with_its_code() {
    let site = Site::with("[limits]\nmax_message_bytes = \"64KiB\"\n").await;
    let (served, operator) = open(&site).await;
    let just = modern(1, "ping", json!({"pad": ""})).to_string().len();
    let fits = modern(1, "ping", json!({"pad": "x".repeat(64 * 1024 - just)})).to_string();
    assert_eq!(fits.len(), 64 * 1024);
    let mut ws = Ws::open(&site, &served, &operator).await;
    ws.send(&frame(TEXT, fits.as_bytes())).await;
    assert_eq!(ws.message().await["id"], 1);
    let half = vec![b' '; 40 * 1024];
    let cases = [
        (frame(BINARY, b"{}"), 1003),
        (frame(TEXT, b"{\"a\":\"\xff\"}"), 1007),
        ([frame(0x01, b"\xe4"), frame(0x80, b"\xb8")].concat(), 1007),
        (frame(TEXT, format!("{fits} ").as_bytes()), 1009),
        ([frame(0x01, &half), frame(0x80, &half)].concat(), 1009),
        // Not a byte of the message is there yet.
        (head(TEXT, 1 << 40), 1009),
        (b"\x81\x02{}".to_vec(), 1002),
        (frame(0xc1, b"{}"), 1002),
        (frame(0x83, b"{}"), 1002),
        (frame(0x80, b"{}"), 1002),
        (frame(0x09, b""), 1002),
        (frame(PING, &[0; 126]), 1002),
        ([frame(0x01, b"{"), frame(TEXT, b"{}")].concat(), 1002),
    ];
    for (bad, code) in cases {
        let mut ws = Ws::open(&site, &served, &operator).await;
        works(&mut ws).await;
        ws.send(&bad).await;
        assert_eq!(ws.closed().await, code, "{:x?}", &bad[..bad.len().min(16)]);
    }
    // What is only no JSON-RPC ends nothing.
    let mut ws = Ws::open(&site, &served, &operator).await;
    ws.send(&frame(TEXT, b"hello")).await;
    assert_eq!(ws.message().await["error"]["code"], -32700);
    works(&mut ws).await;
    served.stop().await;
}

#[tokio::test]
async fn a_close_is_answered_with_its_code() {
    let site = Site::new().await;
    let (served, operator) = open(&site).await;
    for code in [1000_u16, 1001] {
        let mut ws = Ws::open(&site, &served, &operator).await;
        works(&mut ws).await;
        ws.send(&frame(CLOSE, &code.to_be_bytes())).await;
        assert_eq!(ws.closed().await, code);
    }
    served.stop().await;
    let audit = site.audit();
    let mut closed = audit.iter().filter(|record| record["event"] == "closed");
    assert!(
        closed.all(|record| record["reason"] == "closed by the peer"),
        "{audit:?}"
    );
    let admitted = audit.iter().filter(|record| record["event"] == "decision");
    assert!(admitted.clone().count() > 0);
    for record in admitted {
        assert_eq!(record["transport"], "websocket", "{record}");
    }
}

#[tokio::test]
async fn the_server_says_why_it_ends_a_connection() {
    let site = Site::new().await;
    let (served, operator) = open(&site).await;
    let other = site.enrol("other", &["tools:*"]).await;
    let mut theirs = loop {
        // The server hears of the new certificate in a moment.
        let mut lines = site.reach(&served, &other).await;
        if lines.ask("ping", json!({})).await["id"].is_number() {
            break Ws::open(&site, &served, &other).await;
        }
    };
    let mut ours = Ws::open(&site, &served, &operator).await;
    works(&mut theirs).await;
    works(&mut ours).await;
    site.revoke(&other).await;
    assert_eq!(theirs.closed().await, 1008);
    works(&mut ours).await;
    let (code, ()) = tokio::join!(ours.closed(), served.stop());
    assert_eq!(code, 1001);
}

#[tokio::test]
async fn whoever_sends_and_never_reads_is_not_read_from_and_then_gone() {
    let site = Site::with("[limits]\nwrite_timeout = \"1s\"\n").await;
    let (served, operator) = open(&site).await;
    let request = modern(1, "tools/list", json!({})).to_string();
    let mut requests = Vec::new();
    for id in 1..1000 {
        requests.extend(frame(
            TEXT,
            request
                .replace("\"id\":1,", &format!("\"id\":{id},"))
                .as_bytes(),
        ));
    }
    let mut ws = Ws::open(&site, &served, &operator).await;
    works(&mut ws).await;
    let flood = async {
        let mut sent = 0_usize;
        while ws.stream.write_all(&requests).await.is_ok() && ws.stream.flush().await.is_ok() {
            sent += requests.len();
        }
        sent
    };
    let sent = tokio::time::timeout(PATIENCE, flood)
        .await
        .expect("the server ends it in time");
    // What the system's own buffers hold, and one read of the server.
    assert!(sent < 32 << 20, "{sent}");
    let mut ws = Ws::open(&site, &served, &operator).await;
    works(&mut ws).await;
    served.stop().await;
    let reasons: Vec<_> = site
        .audit()
        .into_iter()
        .filter(|r| r["event"] == "closed")
        .collect();
    assert!(
        reasons.iter().any(|r| r["reason"] == "answers left unread"),
        "{reasons:?}"
    );
}
