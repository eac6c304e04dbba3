//! HTTP clients that are slow, greedy or wrong on purpose: each is answered rightly or cut, holds a
//! bounded amount, and nobody else notices.

use std::sync::Arc;

use countersign::backend::Provider;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::fixture::Fixture;
use crate::support::http::{RawHttp, Web, whole};
use crate::support::pki::{Certified, PATIENCE};
use crate::support::served::{Served, Site};

async fn open(extra: &str) -> (Site, Served, Certified) {
    let site = Site::with(extra).await;
    let operator = site.enrol("operator", &["*"]).await;
    let (fixture, hears) = Fixture::new();
    // What it says is of no interest here.
    drop(hears);
    let provider = fixture as Arc<dyn Provider>;
    let served = site.serve_with(vec![(String::new(), provider)]).await;
    (site, served, operator)
}

/// Whether an ordinary client is served as ever.
async fn others_are_served(site: &Site, served: &Served, operator: &Certified) {
    let mut web = Web::http1(site, served, operator).await;
    let answer = web.ask("tools/call", json!({"name":"self__whoami"})).await;
    assert_eq!(answer["result"]["resultType"], "complete", "{answer}");
}

/// The reasons of connections that ended.
fn ends(site: &Site) -> Vec<String> {
    let closed = |record: &Value| record["event"] == "closed";
    let reason = |record: Value| record["reason"].as_str().unwrap().to_owned();
    site.audit()
        .into_iter()
        .filter(closed)
        .map(reason)
        .collect()
}

const PING: &str = r#"{"jsonrpc":"2.0","method":"notifications/x"}"#;

fn head(more: &str) -> String {
    format!(
        "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         MCP-Protocol-Version: 2026-07-28\r\n{more}\r\n"
    )
}

#[tokio::test]
async fn a_head_has_its_time_and_rest_between_requests_is_not_part_of_it() {
    let (site, served, operator) = open("[http]\nhead_timeout = \"300ms\"\n").await;
    let mut raw = RawHttp::open(&site, &served, &operator).await;
    let whole = head(&format!("Content-Length: {}\r\n", PING.len())) + PING;
    for _ in 0..2 {
        raw.send(&whole).await;
        assert!(raw.head().await.starts_with("HTTP/1.1 202 "));
        tokio::time::sleep(std::time::Duration::from_millis(400)).await;
    }
    raw.send("POST /mcp HTTP/1.1\r\nHost: local").await;
    assert_eq!(raw.rest().await, "");
    others_are_served(&site, &served, &operator).await;
    served.stop().await;
    assert!(ends(&site).contains(&"request too slow".to_owned()));
}

#[tokio::test]
async fn a_body_has_its_time() {
    let (site, served, operator) = open("[http]\nbody_timeout = \"300ms\"\n").await;
    let mut raw = RawHttp::open(&site, &served, &operator).await;
    raw.send(&head("Content-Length: 100\r\n")).await;
    raw.send("{\"a").await;
    let answer = raw.rest().await;
    assert!(
        answer.starts_with("HTTP/1.1 408 ") && answer.contains("connection: close"),
        "{answer}"
    );
    // A body that stands still before it begins, and one in chunks.
    let mut raw = RawHttp::open(&site, &served, &operator).await;
    raw.send(&head("Content-Length: 100\r\n")).await;
    assert!(raw.rest().await.starts_with("HTTP/1.1 408 "));
    let mut raw = RawHttp::open(&site, &served, &operator).await;
    raw.send(&head("Transfer-Encoding: chunked\r\n")).await;
    raw.send("1\r\n{\r\n").await;
    assert!(raw.rest().await.starts_with("HTTP/1.1 408 "));
    others_are_served(&site, &served, &operator).await;
    served.stop().await;
}

#[tokio::test]
async fn who_says_nothing_is_closed() {
    let (site, served, operator) = open("[limits]\nfirst_byte_timeout = \"300ms\"\n").await;
    for alpn in [&["http/1.1"][..], &["h2"], &[]] {
        let client =
            crate::support::client::Client::of(&operator, &site.server_root).offering(alpn);
        let mut stream = crate::support::served::tls(&client, served.address)
            .await
            .unwrap();
        let mut some = [0; 512];
        let ended = async { while let Ok(1..) = stream.read(&mut some).await {} };
        tokio::time::timeout(PATIENCE, ended)
            .await
            .expect("closed in time");
    }
    others_are_served(&site, &served, &operator).await;
    served.stop().await;
}

#[tokio::test]
async fn a_request_is_read_in_one_way_only() {
    let (site, served, operator) = open("").await;
    let good = format!("Content-Length: {}\r\n", PING.len());
    let both = format!("{good}Transfer-Encoding: chunked\r\n");
    let reverse = format!("Transfer-Encoding: chunked\r\n{good}");
    let chunks = format!("{:x}\r\n{PING}\r\n0\r\n\r\n", PING.len());
    let cases = [
        (head(&good) + PING, "202", false),
        (
            head("Transfer-Encoding: chunked\r\n") + &chunks,
            "202",
            true,
        ),
        // The chunks count, and the connection ends with them (RFC 9112, section 6.1).
        (head(&both) + &chunks, "202", true),
        (head(&reverse) + &chunks, "202", true),
        (
            head(&format!("{good}Content-Length: 3\r\n")) + PING,
            "400",
            true,
        ),
        (head(&format!("{good}Host: other\r\n")) + PING, "400", true),
        (
            head(&good).replace("Host: localhost\r\n", "") + PING,
            "400",
            true,
        ),
        (head(&good).replace("Host:", "Host :") + PING, "400", true),
        (head(&format!("{good}X: a\r\n b\r\n")) + PING, "400", true),
        ("NONSENSE\r\n\r\n".to_owned(), "400", true),
        (
            head(&good).replace("/mcp", "https://other/mcp") + PING,
            "400",
            true,
        ),
    ];
    for (request, status, closes) in cases {
        let mut raw = RawHttp::open(&site, &served, &operator).await;
        raw.send(&request).await;
        let answer = if closes {
            raw.rest().await
        } else {
            raw.head().await
        };
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{request}\n{answer}"
        );
        assert_eq!(
            answer.matches("HTTP/1.1 ").count(),
            1,
            "{request}\n{answer}"
        );
    }
    served.stop().await;
}

#[tokio::test]
async fn a_head_is_bounded() {
    let (site, served, operator) = open("").await;
    let good = format!("Content-Length: {}\r\n", PING.len());
    for (more, status) in [
        (format!("X-Long: {}\r\n", "x".repeat(8_000)), "202"),
        (format!("X-Long: {}\r\n", "x".repeat(40_000)), "431"),
        ("X: 1\r\n".repeat(50), "202"),
        ("X: 1\r\n".repeat(200), "431"),
    ] {
        let mut raw = RawHttp::open(&site, &served, &operator).await;
        raw.send(&(head(&(good.clone() + &more)) + PING)).await;
        let head = raw.head().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{head}");
    }
    // On HTTP/2 the refusal is h2's own, and secured like every answer; the second time its status is one
    // that both ends' compression knows, and the others of the connection are served before and after.
    let mut web = Web::http2(&site, &served, &operator).await;
    for (length, status) in [(8_000, 200), (40_000, 431), (40_000, 431), (8_000, 200)] {
        let mut request = web.modern("tools/list", json!({}));
        let long = "x".repeat(length).parse().unwrap();
        request.headers_mut().insert("x-long", long);
        assert_eq!(web.whole(request).await.status, status);
    }
    served.stop().await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_before_it_is_read() {
    let (site, served, operator) = open("[limits]\nmax_message_bytes = \"64KiB\"\n").await;
    let mut raw = RawHttp::open(&site, &served, &operator).await;
    raw.send(&head("Content-Length: 999999999\r\n")).await;
    let answer = raw.rest().await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    // In chunks, where the length is not told beforehand.
    let mut raw = RawHttp::open(&site, &served, &operator).await;
    let mut request = head("Transfer-Encoding: chunked\r\n");
    request += &format!("{:x}\r\n{}\r\n", 70_000, "x".repeat(70_000));
    raw.send(&request).await;
    assert!(raw.rest().await.starts_with("HTTP/1.1 413 "));
    served.stop().await;
}

#[tokio::test]
async fn who_never_reads_is_cut() {
    let (site, served, operator) = open("[limits]\nwrite_timeout = \"300ms\"\n").await;
    let mut web = Web::http1(&site, &served, &operator).await;
    let big = |bytes: u64| json!({"name":"big","arguments":{"bytes":bytes}});
    let answer = web.ask("tools/call", big(100_000)).await;
    assert_eq!(
        answer["result"]["content"][0]["text"]
            .as_str()
            .unwrap()
            .len(),
        100_000
    );
    // The answer is never looked at: hyper reads no further than its own buffer.
    let request = web.modern("tools/call", big(30_000_000));
    let unread = web.send(request).await.unwrap();
    cut(&site, 1).await;
    drop(unread);
    // On HTTP/2 the connection itself is read, and it is the windows that stay shut, here at 5 MiB.
    let mut web = Web::http2(&site, &served, &operator).await;
    let mut unread = Vec::new();
    for _ in 0..50 {
        let request = web.modern("tools/call", big(300_000));
        match web.send(request).await {
            Ok(response) => unread.push(response),
            Err(_) => break,
        }
    }
    cut(&site, 2).await;
    drop(unread);
    others_are_served(&site, &served, &operator).await;
    served.stop().await;
}

#[tokio::test]
async fn who_pings_over_http_2_and_never_reads_is_cut() {
    // Nothing of it is an answer that could be counted: the stream itself tells.
    let (site, served, operator) = open("[limits]\nwrite_timeout = \"300ms\"\n").await;
    let client = crate::support::client::Client::of(&operator, &site.server_root).offering(&["h2"]);
    // Small, so that the answers do not all find room in it.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let tcp = socket.connect(served.address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client.config));
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let mut stream = connector.connect(name, tcp).await.unwrap();
    let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let begin = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings, &ping].concat();
    stream.write_all(&begin).await.unwrap();
    stream.flush().await.unwrap();
    // Who reads has its answer.
    let mut heard = Vec::new();
    let mut answer = ping;
    answer[4] = 1;
    let reading = async {
        while !heard.ends_with(&answer) {
            heard.push(stream.read_u8().await.unwrap());
        }
    };
    tokio::time::timeout(PATIENCE, reading)
        .await
        .expect("a ping is answered");
    let many = ping.repeat(1000);
    let pouring =
        async { while stream.write_all(&many).await.is_ok() && stream.flush().await.is_ok() {} };
    tokio::time::timeout(PATIENCE, pouring)
        .await
        .expect("the server ends it");
    cut(&site, 1).await;
    others_are_served(&site, &served, &operator).await;
    served.stop().await;
}

/// Waits until the server has cut so many that do not read.
async fn cut(site: &Site, count: usize) {
    let looking = async {
        while ends(site)
            .into_iter()
            .filter(|reason| reason == "answers left unread")
            .count()
            < count
        {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking)
        .await
        .expect("cut in time");
}

#[tokio::test]
async fn a_slow_reader_of_events_loses_hints_and_not_the_answer() {
    let (site, served, operator) = open("").await;
    for two in [false, true] {
        let mut web = if two {
            Web::http2(&site, &served, &operator).await
        } else {
            Web::http1(&site, &served, &operator).await
        };
        let params = json!({"name":"flood","_meta":{"progressToken":1}});
        let request = web.modern("tools/call", params.clone());
        let response = web.send(request).await.unwrap();
        // The call comes to its end although nobody reads; then everything that was kept is there.
        let answer = whole(response).await;
        assert_eq!(answer.json()["result"]["content"][0]["text"], "flooded");
        web.initialize("2025-06-18", json!({})).await;
        let request = web.bare("tools/call", params);
        let response = web.send(request).await.unwrap();
        let answer = whole(response).await;
        assert_eq!(answer.json()["result"]["content"][0]["text"], "flooded");
    }
    served.stop().await;
}

#[tokio::test]
async fn who_gives_up_request_after_request_is_cut() {
    let (site, served, operator) = open("").await;
    let mut web = Web::http2(&site, &served, &operator).await;
    assert!(web.ask("tools/list", json!({})).await["result"].is_object());
    let giving_up = async {
        while web.is_open() {
            let request = web.modern("tools/call", json!({"name":"wait"}));
            let mut sender = web.http2_sender();
            if sender.ready().await.is_err() {
                break;
            }
            let sending = sender.send_request(request);
            // Long enough for the request to go out.
            let _ = tokio::time::timeout(std::time::Duration::from_millis(1), sending).await;
        }
    };
    tokio::time::timeout(PATIENCE, giving_up)
        .await
        .expect("the server cuts it");
    others_are_served(&site, &served, &operator).await;
    served.stop().await;
}

#[tokio::test]
async fn sessions_that_are_left_behind_end() {
    let (site, served, operator) = open("[http]\nsession_idle = \"200ms\"\n").await;
    let mut web = Web::http1(&site, &served, &operator).await;
    web.initialize("2025-11-25", json!({})).await;
    let left = web.session.clone();
    // An open stream keeps its session.
    web.initialize("2025-11-25", json!({})).await;
    let kept = web.session.clone();
    let mut listener = Web::http1(&site, &served, &operator).await;
    listener.session.clone_from(&kept);
    let stream = listener.listen(None).await;
    assert_eq!(stream.status, 200);
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    for (session, status) in [(left, 404), (kept, 200)] {
        web.session = session;
        let request = web.bare("ping", json!({}));
        assert_eq!(web.whole(request).await.status, status);
    }
    served.stop().await;
}
