//! What clients that are slow, greedy or wrong on purpose can cost: each attack runs against a server
//! in a process of its own, whose memory is looked at all the while. It must answer rightly, stay
//! within its bound, and go on serving others. That the answers are right in every detail is shown
//! in `pressure`, `websocket` and `http`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use countersign::backend::Provider;
use countersign::config::Config;
use countersign::server;
use hyper::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::support::fixture::Fixture;
use crate::support::http::{RawHttp, Web};
use crate::support::pki::{Certified, PATIENCE};
use crate::support::served::{Served, Site, modern};
use crate::support::ws::{TEXT, Ws, frame};

const LIMITS: &str = "[http]\nhead_timeout = \"1s\"\nbody_timeout = \"1s\"\n\
    [limits]\nmax_message_bytes = \"256KiB\"\nwrite_timeout = ";
/// Attackers at once.
const CROWD: usize = 24;
/// What a crowd may cost: for each a message, what is being answered, and the buffers of TLS and of
/// HTTP, rounded up. What is offered to the server is many times as much.
const BOUND: u64 = 32 << 20;
/// An answer of this many bytes.
const BIG: u64 = 200_000;

/// Not a test: the server that the tests below start, with their configuration as last argument.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the other tests of this file start it"]
async fn a_server_of_its_own() {
    let last = std::env::args().next_back().unwrap();
    if !last.ends_with("countersign.toml") {
        return;
    }
    let read = move || {
        Config::load(Path::new(&last), std::iter::empty()).map_err(|_| String::from("mistakes"))
    };
    let (fixture, hears) = Fixture::new();
    drop(hears);
    let providers = vec![(String::new(), fixture as Arc<dyn Provider>)];
    let ready = |ready: server::Ready| println!("\nlistens {}", ready.addresses[0]);
    let never = std::future::pending();
    server::serve(read().unwrap(), providers, Box::new(read), never, ready)
        .await
        .unwrap();
}

struct Stage {
    site: Site,
    served: Served,
    process: u32,
    operator: Certified,
    thief: Certified,
}

impl Stage {
    /// `patience`: with clients that do not read.
    async fn open(patience: &str) -> Self {
        let site = Site::with(&format!("{LIMITS}\"{patience}\"\n")).await;
        let operator = site.enrol("operator", &["*"]).await;
        let thief = site.enrol("thief", &["*"]).await;
        let (served, process) = site.serve_apart("memory::a_server_of_its_own").await;
        let stage = Self {
            site,
            served,
            process,
            operator,
            thief,
        };
        // What is made once is made before anything is measured.
        let all = (0..CROWD).map(|_| stage.serves_others());
        futures_util::future::join_all(all).await;
        stage
    }

    async fn serves_others(&self) {
        let mut web = Web::http1(&self.site, &self.served, &self.thief).await;
        let answer = web.ask("tools/call", big()).await;
        assert_eq!(answer["result"]["resultType"], "complete");
    }

    async fn raw(&self) -> RawHttp {
        RawHttp::open(&self.site, &self.served, &self.operator).await
    }

    /// The memory of the process that is no file's, bytes.
    fn resident(&self) -> u64 {
        resident(self.process)
    }

    /// Runs the attack, and what it cost at its worst.
    async fn cost<T>(&self, attack: impl Future<Output = T>) -> (T, u64) {
        let before = self.resident();
        let (worst, over) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let looking = {
            let (worst, over, process) = (Arc::clone(&worst), Arc::clone(&over), self.process);
            std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    worst.fetch_max(resident(process), Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(2));
                }
            })
        };
        let outcome = tokio::time::timeout(4 * PATIENCE, attack).await;
        over.store(true, Ordering::Relaxed);
        looking.join().unwrap();
        worst.fetch_max(self.resident(), Ordering::Relaxed);
        let cost = worst.load(Ordering::Relaxed).saturating_sub(before);
        (outcome.expect("the attack ends in time"), cost)
    }

    /// Runs the attack: it stays within the bound, and the server goes on.
    async fn withstands<T>(&self, attack: impl Future<Output = T>) -> T {
        let (outcome, cost) = self.cost(attack).await;
        println!("it cost {} KiB", cost >> 10);
        assert!(cost <= BOUND, "it cost {cost} bytes");
        self.serves_others().await;
        outcome
    }

    /// The crowd, each with its number.
    async fn crowd<T, F: Future<Output = T>>(&self, each: impl Fn(usize) -> F) -> Vec<T> {
        futures_util::future::join_all((0..CROWD).map(each)).await
    }
}

fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let text = line.unwrap().trim().trim_end_matches(" kB");
    text.parse::<u64>().unwrap() << 10
}

fn big() -> Value {
    json!({"name":"big","arguments":{"bytes":BIG}})
}

fn head(more: &str) -> String {
    format!(
        "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2026-07-28\r\n\
         Mcp-Method: tools/call\r\n{more}"
    )
}

/// A whole call as bytes.
fn post(params: Value) -> String {
    let name = params["name"].as_str().unwrap().to_owned();
    let body = modern(1, "tools/call", params).to_string();
    let more = format!("Mcp-Name: {name}\r\nContent-Length: {}\r\n\r\n", body.len());
    head(&more) + &body
}

#[tokio::test]
async fn smuggled_requests() {
    let stage = Stage::open("1s").await;
    let body = modern(
        1,
        "tools/call",
        json!({"name":"big","arguments":{"bytes":1}}),
    )
    .to_string();
    let chunk = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let hidden = post(big());
    let attack = stage.crowd(async |_| {
        for lengths in [
            "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 90000\r\n",
        ] {
            let mut raw = stage.raw().await;
            let more = format!("Mcp-Name: big\r\n{lengths}\r\n");
            raw.send(&(head(&more) + &chunk + &hidden)).await;
            let answers = raw.rest().await;
            // The chunks are the body, and what was hidden behind them is never a request.
            assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{answers}");
            assert!(answers.starts_with("HTTP/1.1 200 "), "{answers}");
        }
        for twice in ["Mcp-Name: big\r\nMcp-Name: none\r\n", "Mcp-Name: none\r\n"] {
            let mut raw = stage.raw().await;
            let more = format!("{twice}Content-Length: {}\r\n\r\n", body.len());
            raw.send(&(head(&more) + &body)).await;
            let answer = raw.head().await;
            assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        }
    });
    Box::pin(stage.withstands(attack)).await;
    stage.served.stop().await;
}

#[tokio::test]
async fn stolen_and_abandoned_sessions() {
    let stage = Stage::open("1s").await;
    let mut owner = Web::http2(&stage.site, &stage.served, &stage.operator).await;
    owner.initialize("2025-11-25", json!({})).await;
    let id = owner.session.clone();
    let attack = stage.crowd(async |_| {
        let mut thief = Web::http1(&stage.site, &stage.served, &stage.thief).await;
        for _ in 0..100 {
            thief.session.clone_from(&id);
            let request = thief.bare("ping", json!({}));
            assert_eq!(thief.whole(request).await.status, 404);
            // And one more that nobody ever uses.
            thief.initialize("2025-11-25", json!({})).await;
        }
    });
    Box::pin(stage.withstands(attack)).await;
    // The thief's own sessions have crowded out each other, and nobody else's.
    assert_eq!(owner.ask_bare("ping", json!({})).await["result"], json!({}));
    stage.served.stop().await;
}

#[tokio::test]
async fn slow_heads_and_bodies_that_drip() {
    let stage = Stage::open("1s").await;
    let attack = stage.crowd(async |number| {
        let mut raw = stage.raw().await;
        if number % 2 == 0 {
            raw.send(&head(&format!("X-Long: {}", "x".repeat(30_000))))
                .await;
            assert_eq!(raw.rest().await, "");
        } else {
            raw.send(&head("Content-Length: 260000\r\n\r\n")).await;
            raw.send(&"x".repeat(250_000)).await;
            for _ in 0..10 {
                raw.send("x").await;
            }
            let answer = raw.rest().await;
            assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        }
    });
    Box::pin(stage.withstands(attack)).await;
    stage.served.stop().await;
}

#[tokio::test]
async fn a_slow_reader_of_events() {
    let stage = Stage::open("10m").await;
    let done = || {
        let ok = |record: &&Value| record["event"] == "outcome" && record["outcome"] == "ok";
        stage.site.audit().iter().filter(ok).count()
    };
    let before = done();
    let attack = async {
        let mut readers = Vec::new();
        for number in 0..8 {
            let mut web = match number % 2 {
                0 => Web::http1(&stage.site, &stage.served, &stage.operator).await,
                _ => Web::http2(&stage.site, &stage.served, &stage.operator).await,
            };
            let params = json!({"name":"flood","_meta":{"progressToken":1}});
            let request = if number % 4 < 2 {
                web.modern("tools/call", params)
            } else {
                web.initialize("2025-11-25", json!({})).await;
                web.bare("tools/call", params)
            };
            readers.push((web.events(request).await, web));
        }
        // 200 000 notes each, which nobody reads; the calls come to their end all the same.
        while done() < before + 8 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        readers
    };
    let readers = Box::pin(stage.withstands(attack)).await;
    for (mut events, _web) in readers {
        let mut last = Value::Null;
        while let Some(event) = events.next().await {
            if event.data.as_deref().is_some_and(|data| !data.is_empty()) {
                last = event.json();
            }
        }
        assert_eq!(last["result"]["content"][0]["text"], "flooded", "{last}");
    }
    stage.served.stop().await;
}

#[tokio::test]
async fn rapid_resets() {
    let stage = Stage::open("1s").await;
    let attack = stage.crowd(async |number| {
        // A few are enough: each gives up some hundred requests before it is cut.
        if number % 4 > 0 {
            return;
        }
        let mut web = Web::http2(&stage.site, &stage.served, &stage.operator).await;
        while web.is_open() {
            let request = web.modern("tools/call", json!({"name":"wait"}));
            let mut sender = web.http2_sender();
            if sender.ready().await.is_err() {
                break;
            }
            let sending = sender.send_request(request);
            let _ = tokio::time::timeout(Duration::from_millis(1), sending).await;
        }
    });
    Box::pin(stage.withstands(attack)).await;
    stage.served.stop().await;
}

#[tokio::test]
async fn compressed_messages() {
    let stage = Stage::open("1s").await;
    let bomb = frame(0xc1, &vec![b'x'; 250_000]);
    let attack = stage.crowd(async |_| {
        let mut ws = Ws::open(&stage.site, &stage.served, &stage.operator).await;
        ws.send(&bomb).await;
        assert_eq!(ws.closed().await, 1002);
    });
    Box::pin(stage.withstands(attack)).await;
    stage.served.stop().await;
}

/// Sends as much as it can, up to 16 MiB, and reads nothing. How much that was.
async fn pour(stream: &mut (impl AsyncWriteExt + Unpin), what: &[u8]) -> usize {
    let mut sent = 0;
    while sent < 16 << 20 && stream.write_all(what).await.is_ok() && stream.flush().await.is_ok() {
        sent += what.len();
    }
    sent
}

#[tokio::test]
async fn a_websocket_that_sends_and_never_reads() {
    let stage = Stage::open("1s").await;
    let mut calls = Vec::new();
    for id in 0..200 {
        let call = modern(id, "tools/call", big()).to_string();
        calls.extend(frame(TEXT, call.as_bytes()));
    }
    let attack = stage.crowd(async |_| {
        let mut ws = Ws::open(&stage.site, &stage.served, &stage.operator).await;
        pour(&mut ws.stream, &calls).await
    });
    for sent in Box::pin(stage.withstands(attack)).await {
        assert!(sent < 16 << 20, "the server stops reading");
    }
    stage.served.stop().await;
}

#[tokio::test]
async fn a_client_of_http_1_that_sends_and_never_reads() {
    let stage = Stage::open("1s").await;
    let calls = post(big()).repeat(200);
    let attack = stage.crowd(async |_| {
        let mut raw = stage.raw().await;
        pour(&mut raw.stream, calls.as_bytes()).await
    });
    for sent in Box::pin(stage.withstands(attack)).await {
        assert!(sent < 16 << 20, "the server stops reading");
    }
    stage.served.stop().await;
}

#[tokio::test]
async fn a_client_of_http_2_that_asks_and_never_reads() {
    let stage = Stage::open("1s").await;
    let attack = async {
        let mut unread = Vec::new();
        for _ in 0..4 {
            let mut web = Web::http2(&stage.site, &stage.served, &stage.operator).await;
            assert!(web.ask("tools/list", json!({})).await["result"].is_object());
            for _ in 0..60 {
                let request = web.modern("tools/call", big());
                let mut sender = web.http2_sender();
                if sender.ready().await.is_err() {
                    break;
                }
                unread.push(tokio::spawn(sender.send_request(request)));
            }
            web.closed().await;
        }
        unread.len()
    };
    let asked = Box::pin(stage.withstands(attack)).await;
    assert!(asked > 4);
    let mut web = Web::http1(&stage.site, &stage.served, &stage.operator).await;
    let request = web.request(Method::GET, "/healthz", &[], None);
    assert_eq!(web.whole(request).await.status, 200);
    stage.served.stop().await;
}
