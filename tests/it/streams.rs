//! Answers that are streams, in both eras: when an answer becomes one, what ends it, who may come
//! back to it, and questions to the client on it.

use std::sync::Arc;

use countersign::backend::{Happening, Provider};
use hyper::Method;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::support::fixture::Fixture;
use crate::support::http::{Events, Web};
use crate::support::pki::{Certified, PATIENCE};
use crate::support::served::{Served, Site};

struct Stage {
    site: Site,
    served: Served,
    operator: Certified,
    other: Certified,
    fixture: Arc<Fixture>,
    hears: mpsc::UnboundedReceiver<String>,
}

impl Stage {
    async fn open(extra: &str) -> Self {
        let site = Site::with(extra).await;
        let operator = site.enrol("operator", &["*"]).await;
        let other = site
            .enrol("other", &["tools:*", "resources:test:open/*"])
            .await;
        let (fixture, hears) = Fixture::new();
        let provider = Arc::clone(&fixture) as Arc<dyn Provider>;
        let served = site.serve_with(vec![(String::new(), provider)]).await;
        Self {
            site,
            served,
            operator,
            other,
            fixture,
            hears,
        }
    }

    async fn web(&self, two: bool) -> Web {
        if two {
            Web::http2(&self.site, &self.served, &self.operator).await
        } else {
            Web::http1(&self.site, &self.served, &self.operator).await
        }
    }

    async fn hear(&mut self, what: &str) {
        let heard = tokio::time::timeout(PATIENCE, self.hears.recv()).await;
        assert_eq!(heard.expect("in time").as_deref(), Some(what));
    }
}

fn call(name: &str, token: Option<&str>) -> Value {
    match token {
        Some(token) => json!({"name":name,"_meta":{"progressToken":token}}),
        None => json!({"name":name}),
    }
}

fn is_stream(events: &Events) -> bool {
    events
        .headers
        .get("content-type")
        .is_some_and(|kind| kind == "text/event-stream")
}

#[tokio::test]
async fn an_answer_with_notes_is_a_stream_and_one_without_is_json() {
    let stage = Stage::open("").await;
    for two in [false, true] {
        let mut web = stage.web(two).await;
        stage.fixture.go.add_permits(3);
        let request = web.modern("tools/call", call("steps", None));
        let answer = web.whole(request).await;
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.json()["result"]["content"][0]["text"], "three steps");
        let request = web.modern("tools/call", call("steps", Some("t")));
        let mut events = web.events(request).await;
        assert!(is_stream(&events) && events.status == 200);
        assert_eq!(events.headers["x-accel-buffering"], "no");
        for step in 1..=3 {
            let note = events.json().await;
            assert_eq!(note["method"], "notifications/progress");
            assert_eq!(
                note["params"],
                json!({"progressToken":"t","progress":step,"total":3})
            );
            stage.fixture.go.add_permits(1);
        }
        let event = events.next().await.unwrap();
        assert_eq!(event.id, None);
        assert_eq!(event.json()["result"]["resultType"], "complete");
        assert_eq!(events.next().await, None);
    }
    stage.served.stop().await;
}

/// Sessions over HTTP and the streams that they keep, as the server counts them.
async fn kept(web: &mut Web) -> (u64, u64) {
    let answer = web
        .ask("tools/call", json!({"name":"self__server_status"}))
        .await;
    let http = &answer["result"]["structuredContent"]["http"];
    let number = |name: &str| http[name].as_u64().unwrap();
    (number("sessions"), number("event_stores"))
}

#[tokio::test]
async fn calls_are_counted_by_what_came_of_them() {
    let mut stage = Stage::open("").await;
    let admin = stage.site.enrol("admin", &["tools:*", "admin:*"]).await;
    stage.site.reach(&stage.served, &admin).await;
    let mut watcher = Web::http1(&stage.site, &stage.served, &admin).await;
    let mut calls = async || {
        let status = json!({"name":"self__server_status"});
        let answer = watcher.ask("tools/call", status).await;
        let calls = &answer["result"]["structuredContent"]["calls"];
        ["in_flight", "allowed", "denied", "failed"].map(|name| calls[name].as_u64().unwrap())
    };
    // The look itself is a call that was allowed.
    let [_, allowed, denied, failed] = calls().await;
    assert_eq!(calls().await, [0, allowed + 1, denied, failed]);
    let mut web = stage.web(true).await;
    web.ask("tools/call", json!({"name":"self__whoami"})).await;
    assert_eq!(calls().await, [0, allowed + 3, denied, failed]);
    // Not granted to this client, and then one that there is not.
    web.ask("tools/call", json!({"name":"self__server_status"}))
        .await;
    assert_eq!(calls().await, [0, allowed + 4, denied + 1, failed]);
    web.ask("tools/call", json!({"name":"nothing"})).await;
    assert_eq!(calls().await, [0, allowed + 6, denied + 1, failed + 1]);
    // One that runs, and is given up.
    let request = web.modern("tools/call", call("wait", None));
    let waiting = tokio::spawn(web.http2_sender().send_request(request));
    stage.hear("wait begun").await;
    assert_eq!(calls().await, [1, allowed + 8, denied + 1, failed + 1]);
    waiting.abort();
    stage.hear("wait dropped").await;
    let over = async {
        while calls().await[0] > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, over).await.unwrap();
    let [in_flight, _, denied_now, failed_now] = calls().await;
    assert_eq!(
        [in_flight, denied_now, failed_now],
        [0, denied + 1, failed + 2]
    );
    stage.served.stop().await;
}

#[tokio::test]
async fn a_modern_call_opens_no_session_and_keeps_no_events() {
    let stage = Stage::open("").await;
    let admin = stage.site.enrol("admin", &["*", "admin:*"]).await;
    stage.site.reach(&stage.served, &admin).await;
    let mut watcher = Web::http1(&stage.site, &stage.served, &admin).await;
    for two in [false, true] {
        let mut web = stage.web(two).await;
        // An answer at once, a stream with notes, a denial, and a stream that stays open.
        stage.fixture.go.add_permits(3);
        for params in [
            json!({"name":"self__whoami"}),
            call("steps", Some("t")),
            json!({"name":"nothing"}),
        ] {
            let request = web.modern("tools/call", params);
            let mut events = web.events(request).await;
            assert!(!events.headers.contains_key("mcp-session-id"));
            while events.next().await.is_some() {}
        }
        let filter = json!({"toolsListChanged":true});
        let request = web.modern("subscriptions/listen", json!({"notifications":filter}));
        let mut news = web.events(request).await;
        assert!(news.next().await.is_some());
        assert_eq!(kept(&mut watcher).await, (0, 0));
    }
    // The same with a session: the count sees it, and the stream that is kept.
    let mut web = stage.web(false).await;
    web.initialize("2025-11-25", json!({})).await;
    assert_eq!(kept(&mut watcher).await, (1, 0));
    stage.fixture.go.add_permits(3);
    let message =
        json!({"jsonrpc":"2.0","id":1,"method":"tools/call","params":call("steps", Some("t"))});
    let request = web.post(&web.of_session(), &message);
    let mut events = web.events(request).await;
    // The call is over at once; its notes go first all the same, and the answer behind them.
    let mut said = Vec::new();
    while let Some(event) = events.next().await {
        said.push(event);
    }
    let last = said.last().unwrap().json();
    assert_eq!(last["result"]["content"][0]["text"], "three steps");
    assert_eq!(said.len(), 5, "{said:?}");
    assert_eq!(kept(&mut watcher).await, (1, 1));
    stage.served.stop().await;
}

#[tokio::test]
async fn who_closes_a_modern_stream_cancels_the_call() {
    let mut stage = Stage::open("").await;
    for two in [false, true] {
        let mut web = stage.web(two).await;
        // Before anything was answered, and within the stream.
        let request = web.modern("tools/call", call("wait", None));
        {
            let mut sending = Box::pin(web.send(request));
            tokio::select! {
                _ = &mut sending => panic!("nothing was answered yet"),
                heard = stage.hears.recv() => assert_eq!(heard.as_deref(), Some("wait begun")),
            }
        }
        if !two {
            drop(web);
            stage.hear("wait dropped").await;
            web = stage.web(two).await;
        } else {
            stage.hear("wait dropped").await;
        }
        let request = web.modern("tools/call", call("steps", Some("t")));
        let mut events = web.events(request).await;
        stage.hear("steps begun").await;
        assert_eq!(events.json().await["params"]["progress"], 1);
        drop(events);
        if !two {
            drop(web);
        }
        stage.hear("steps dropped").await;
    }
    let cancelled = |records: &[Value]| {
        records
            .iter()
            .filter(|record| record["outcome"] == "cancelled")
            .count()
    };
    stage.served.stop().await;
    assert_eq!(cancelled(&stage.site.audit()), 4);
}

#[tokio::test]
async fn a_legacy_call_goes_on_without_its_connection_and_is_come_back_to() {
    let mut stage = Stage::open("").await;
    for revision in ["2025-06-18", "2025-11-25"] {
        let mut web = stage.web(false).await;
        web.initialize(revision, json!({})).await;
        let request = web.bare("tools/call", call("steps", Some("t")));
        let mut events = web.events(request).await;
        stage.hear("steps begun").await;
        let mut first = events.next().await.unwrap();
        if revision == "2025-11-25" {
            assert_eq!(
                (first.retry.as_deref(), first.data.as_deref()),
                (Some("1000"), Some(""))
            );
            first = events.next().await.unwrap();
        }
        assert_eq!(first.json()["params"]["progress"], 1);
        let id = first.id.unwrap();
        let mut again = stage.web(true).await;
        again.session.clone_from(&web.session);
        again.revision = revision;
        drop(events);
        drop(web);
        stage.fixture.go.add_permits(3);
        stage.hear("steps done").await;
        let mut rest = again.listen(Some(&id)).await;
        assert!(is_stream(&rest) && rest.status == 200);
        assert_eq!(rest.json().await["params"]["progress"], 2);
        assert_eq!(rest.json().await["params"]["progress"], 3);
        let last = rest.next().await.unwrap();
        assert_eq!(last.json()["result"]["content"][0]["text"], "three steps");
        assert_eq!(rest.next().await, None);
        // Again from the same place, and from one that never was.
        let mut rest = again.listen(Some(&id)).await;
        assert_eq!(rest.json().await["params"]["progress"], 2);
        for unknown in ["77-1", "nonsense"] {
            assert_eq!(again.listen(Some(unknown)).await.status, 400);
        }
    }
    stage.served.stop().await;
}

#[tokio::test]
async fn a_call_lets_its_stream_go() {
    let stage = Stage::open("").await;
    let mut web = stage.web(false).await;
    web.initialize("2025-11-25", json!({})).await;
    let request = web.bare("tools/call", call("leave", None));
    let mut events = web.events(request).await;
    let priming = events.next().await.unwrap();
    assert_eq!(priming.data.as_deref(), Some(""));
    assert_eq!(events.next().await, None);
    stage.fixture.go.add_permits(1);
    let mut rest = web.listen(priming.id.as_deref()).await;
    assert_eq!(
        rest.json().await["result"]["content"][0]["text"],
        "welcome back"
    );
    assert_eq!(rest.next().await, None);
    stage.served.stop().await;
}

#[tokio::test]
async fn a_legacy_call_is_cancelled_by_a_notification() {
    let mut stage = Stage::open("").await;
    let mut web = stage.web(true).await;
    web.initialize("2025-06-18", json!({})).await;
    let session = web.session.clone();
    let message =
        json!({"jsonrpc":"2.0","id":"long","method":"tools/call","params":{"name":"wait"}});
    let request = web.post(&web.of_session(), &message);
    let again = web.post(&web.of_session(), &message);
    let mut sender = web.http2_sender();
    let waiting = tokio::spawn(async move { sender.send_request(request).await.map(drop) });
    stage.hear("wait begun").await;
    // The id is taken while the call runs.
    let answer = web.whole(again).await;
    assert_eq!(
        (answer.status, &answer.json()["error"]["code"]),
        (400, &json!(-32600))
    );
    // Another session of the same identity cannot touch it.
    web.initialize("2025-06-18", json!({})).await;
    assert_eq!(
        web.tell("notifications/cancelled", json!({"requestId":"long"}))
            .await
            .status,
        202
    );
    web.session = session;
    assert_eq!(
        web.tell("notifications/cancelled", json!({"requestId":"long"}))
            .await
            .status,
        202
    );
    stage.hear("wait dropped").await;
    waiting.await.unwrap().unwrap();
    stage.served.stop().await;
}

#[tokio::test]
async fn a_session_has_a_stream_for_what_happens() {
    let stage = Stage::open("").await;
    let mut web = Web::http2(&stage.site, &stage.served, &stage.other).await;
    web.initialize("2025-11-25", json!({})).await;
    let mut stream = web.listen(None).await;
    assert!(is_stream(&stream) && stream.status == 200);
    assert_eq!(stream.next().await.unwrap().data.as_deref(), Some(""));
    let subscribed = web
        .ask_bare("resources/subscribe", json!({"uri":"test:open/a"}))
        .await;
    assert_eq!(subscribed["result"], json!({}), "{subscribed}");
    let denied = web
        .ask_bare("resources/subscribe", json!({"uri":"test:closed"}))
        .await;
    assert_eq!(denied["error"]["code"], -32002);
    let updated = |uri: &str| Happening::ResourceUpdated(uri.into());
    stage.fixture.happened(updated("test:closed"));
    stage.fixture.happened(updated("test:open/b"));
    stage.fixture.happened(updated("test:open/a/deep"));
    stage.fixture.happened(Happening::ToolsChanged);
    let first = stream.next().await.unwrap();
    assert_eq!(first.json()["params"], json!({"uri":"test:open/a/deep"}));
    let second = stream.json().await;
    assert_eq!(second["method"], "notifications/tools/list_changed");
    // Away, and back: what was sent and not received, and what happened meanwhile.
    drop(stream);
    stage.fixture.happened(Happening::PromptsChanged);
    let mut stream = web.listen(first.id.as_deref()).await;
    assert_eq!(
        stream.json().await["method"],
        "notifications/tools/list_changed"
    );
    assert_eq!(
        stream.json().await["method"],
        "notifications/prompts/list_changed"
    );
    // A second stream takes over.
    let mut newer = web.listen(None).await;
    assert_eq!(stream.next().await, None);
    assert_eq!(newer.next().await.unwrap().data.as_deref(), Some(""));
    stage.fixture.happened(Happening::ToolsChanged);
    assert_eq!(
        newer.json().await["method"],
        "notifications/tools/list_changed"
    );
    let request = web.request(Method::DELETE, "/mcp", &web.of_session(), None);
    assert_eq!(web.whole(request).await.status, 204);
    assert_eq!(newer.next().await, None);
    stage.served.stop().await;
}

#[tokio::test]
async fn a_listen_begins_with_its_acknowledgement_and_ends_with_its_result() {
    let stage = Stage::open("").await;
    let mut web = Web::http1(&stage.site, &stage.served, &stage.other).await;
    let filter = json!({"toolsListChanged":true,
        "resourceSubscriptions":["test:open/a","test:closed"]});
    let request = web.modern("subscriptions/listen", json!({"notifications":filter}));
    let mut stream = web.events(request).await;
    assert!(is_stream(&stream) && stream.status == 200);
    let first = stream.json().await;
    assert_eq!(first["method"], "notifications/subscriptions/acknowledged");
    assert_eq!(
        first["params"]["notifications"],
        json!({"toolsListChanged":true,"resourceSubscriptions":["test:open/a"]})
    );
    let id = json!({"io.modelcontextprotocol/subscriptionId":1});
    stage.fixture.happened(Happening::PromptsChanged);
    stage
        .fixture
        .happened(Happening::ResourceUpdated("test:closed".into()));
    stage
        .fixture
        .happened(Happening::ResourceUpdated("test:open/a".into()));
    stage.fixture.happened(Happening::ToolsChanged);
    assert_eq!(
        stream.json().await["params"],
        json!({"uri":"test:open/a","_meta":id})
    );
    assert_eq!(
        stream.json().await["method"],
        "notifications/tools/list_changed"
    );
    let (last, ()) = tokio::join!(stream.json(), stage.served.stop());
    assert_eq!(
        last,
        json!({"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","_meta":id}})
    );
    assert_eq!(stream.next().await, None);
}

#[tokio::test]
async fn a_quiet_answer_becomes_a_stream_that_is_kept_open() {
    let mut stage = Stage::open("[http]\nkeep_alive = \"50ms\"\n").await;
    let mut web = stage.web(false).await;
    let request = web.modern("tools/call", call("wait", None));
    let response = web.send(request).await.unwrap();
    stage.hear("wait begun").await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let (_, mut body) = response.into_parts();
    for _ in 0..2 {
        let frame = std::future::poll_fn(|cx| {
            hyper::body::Body::poll_frame(std::pin::Pin::new(&mut body), cx)
        });
        let data = frame.await.unwrap().unwrap().into_data().unwrap();
        assert!(data.starts_with(b": "), "{data:?}");
    }
    stage.fixture.go.add_permits(1);
    stage.hear("wait done").await;
    stage.served.stop().await;
}

/// What a modern client sends again with a person's answer.
fn retry(topic: &str, state: &Value) -> Value {
    json!({"name":"ask","arguments":{"topic":topic},"requestState":state,
        "inputResponses":{"name":{"action":"accept","content":{"name":"Ann"}},"more":1}})
}

#[tokio::test]
async fn a_question_is_an_answer_whose_state_nobody_else_can_use() {
    let stage = Stage::open("").await;
    let mut web = stage.web(false).await;
    let can = json!({"io.modelcontextprotocol/clientCapabilities":{"elicitation":{}}});
    let question = json!({"name":"ask","arguments":{"topic":"tea"},"_meta":can});
    let answer = web.ask("tools/call", question).await;
    let result = &answer["result"];
    assert_eq!(result["resultType"], "input_required", "{answer}");
    assert_eq!(
        result["inputRequests"]["name"]["method"],
        "elicitation/create"
    );
    assert!(result["ttlMs"].is_null());
    let state = &result["requestState"];
    assert!(!state.as_str().unwrap().contains("tea"));
    let done = web.ask("tools/call", retry("tea", state)).await;
    assert_eq!(
        done["result"]["content"][0]["text"], "Ann, about \"tea\"",
        "{done}"
    );
    let tampered = json!(format!("{}x", state.as_str().unwrap()));
    for bad in [
        retry("tea", &tampered),
        retry("coffee", state),
        retry("tea", &json!("made up")),
    ] {
        let refused = web.ask("tools/call", bad).await;
        assert_eq!(refused["error"]["code"], -32602, "{refused}");
    }
    let mut other = Web::http1(&stage.site, &stage.served, &stage.other).await;
    assert_eq!(
        other.ask("tools/call", retry("tea", state)).await["error"]["code"],
        -32602
    );
    // Without the capability there is no question.
    let request = web.modern("tools/call", json!({"name":"ask"}));
    let refused = web.whole(request).await;
    assert_eq!(
        (refused.status, &refused.json()["error"]["code"]),
        (400, &json!(-32021))
    );
    let needed = &refused.json()["error"]["data"]["requiredCapabilities"];
    assert!(needed["elicitation"].is_object());
    stage.served.stop().await;
}

#[tokio::test]
async fn a_legacy_client_is_asked_on_the_stream_of_its_call() {
    let stage = Stage::open("").await;
    let mut web = stage.web(true).await;
    web.initialize("2025-11-25", json!({"elicitation":{}}))
        .await;
    let request = web.bare(
        "tools/call",
        json!({"name":"ask","arguments":{"topic":"tea"}}),
    );
    let mut events = web.events(request).await;
    assert!(is_stream(&events));
    assert_eq!(events.next().await.unwrap().data.as_deref(), Some(""));
    let asked = events.json().await;
    assert_eq!(asked["method"], "elicitation/create", "{asked}");
    assert!(asked["id"].is_string());
    // The answer of another session is nobody's.
    let answer = json!({"jsonrpc":"2.0","id":asked["id"],
        "result":{"action":"accept","content":{"name":"Ann"}}});
    let mut thief = Web::http1(&stage.site, &stage.served, &stage.other).await;
    thief
        .initialize("2025-11-25", json!({"elicitation":{}}))
        .await;
    let request = thief.post(&thief.of_session(), &answer);
    assert_eq!(thief.whole(request).await.status, 202);
    let request = web.post(&web.of_session(), &answer);
    let told = web.whole(request).await;
    assert_eq!((told.status, told.body.as_str()), (202, ""));
    let last = events.json().await;
    assert_eq!(
        last["result"]["content"][0]["text"], "Ann, about \"tea\"",
        "{last}"
    );
    assert_eq!(events.next().await, None);
    // Who declared nothing is asked nothing.
    web.initialize("2025-11-25", json!({})).await;
    let refused = web.ask_bare("tools/call", json!({"name":"ask"})).await;
    assert_eq!(refused["error"]["code"], -32021, "{refused}");
    stage.served.stop().await;
}

#[tokio::test]
async fn a_legacy_client_is_asked_on_the_raw_stream() {
    let stage = Stage::open("").await;
    let mut lines = stage
        .site
        .try_connect(&stage.served, &stage.operator)
        .await
        .unwrap();
    let params = json!({"protocolVersion":"2025-11-25","capabilities":{"elicitation":{}},
        "clientInfo":{"name":"test","version":"1"}});
    assert!(lines.ask_bare("initialize", params).await["result"].is_object());
    let call = json!({"jsonrpc":"2.0","id":"c","method":"tools/call",
        "params":{"name":"ask","arguments":{"topic":"tea"}}});
    lines.send(&call).await;
    let asked = lines.receive().await;
    assert_eq!(asked["method"], "elicitation/create", "{asked}");
    let error = json!({"jsonrpc":"2.0","id":asked["id"],"error":{"code":-1,"message":"not now"}});
    lines.send(&error).await;
    let refused = lines.answer(&json!("c")).await;
    assert_eq!(refused["result"]["isError"], true, "{refused}");
    lines.send(&call).await;
    let asked = lines.receive().await;
    lines
        .send(&json!({"jsonrpc":"2.0","id":asked["id"],
            "result":{"action":"accept","content":{"name":"Ann"}}}))
        .await;
    let done = lines.answer(&json!("c")).await;
    assert_eq!(
        done["result"]["content"][0]["text"], "Ann, about \"tea\"",
        "{done}"
    );
    stage.served.stop().await;
}

#[tokio::test]
async fn a_revoked_peer_loses_its_streams() {
    let mut stage = Stage::open("").await;
    for two in [false, true] {
        let name = if two { "second" } else { "first" };
        let leaver = stage.site.enrol(name, &["*"]).await;
        let mut web = loop {
            // The server applies the enrolment in its own time.
            let stream = Web::stream(&stage.site, &stage.served, &leaver, "http/1.1").await;
            let mut raw = crate::support::http::RawHttp { stream };
            if raw
                .try_send("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
                .await
            {
                break if two {
                    Web::http2(&stage.site, &stage.served, &leaver).await
                } else {
                    Web::http1(&stage.site, &stage.served, &leaver).await
                };
            }
        };
        web.initialize("2025-11-25", json!({})).await;
        let request = web.bare("tools/call", call("steps", Some("t")));
        let mut events = web.events(request).await;
        stage.hear("steps begun").await;
        assert_eq!(events.next().await.unwrap().data.as_deref(), Some(""));
        stage.site.revoke(&leaver).await;
        while events.next().await.is_some() {}
        web.closed().await;
        // The call goes with its caller, although it would outlive a connection that broke.
        stage.hear("steps dropped").await;
    }
    stage.served.stop().await;
}
