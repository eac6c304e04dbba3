//! Streamable HTTP: each status with its accepted twin, both eras, sessions, streams.

use countersign::transport::{Wire, WsWire};
use hyper::Method;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::http::{RawHttp, Web, each_is_secured};
use crate::support::pki::{self, Certified, PATIENCE};
use crate::support::served::{Served, Site};

const ALL: &[&str] = &["*", "admin:*"];

/// A server and an operator that it knows.
async fn open(site: &Site) -> (Served, Certified) {
    let operator = site.enrol("operator", ALL).await;
    (site.serve().await, operator)
}

#[tokio::test]
async fn a_tool_is_called_in_both_eras_over_both_versions() {
    let site = Site::new().await;
    let (served, operator) = open(&site).await;
    for two in [false, true] {
        let mut web = if two {
            Web::http2(&site, &served, &operator).await
        } else {
            Web::http1(&site, &served, &operator).await
        };
        let request = web.modern("tools/call", json!({"name":"self__whoami"}));
        let answer = web.whole(request).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("mcp-session-id"), None);
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("cache-control", "no-store"),
            ("referrer-policy", "no-referrer"),
        ] {
            assert_eq!(answer.header(name), Some(value));
        }
        let result = &answer.json()["result"];
        assert_eq!(result["resultType"], "complete");
        assert!(
            result["structuredContent"]["name"]
                .as_str()
                .unwrap()
                .ends_with("/operator")
        );
        for revision in ["2025-06-18", "2025-11-25"] {
            let answer = web.initialize(revision, json!({})).await;
            assert_eq!(answer.json()["result"]["protocolVersion"], revision);
            let answer = web
                .ask_bare("tools/call", json!({"name":"self__whoami"}))
                .await;
            assert!(answer["result"]["resultType"].is_null(), "{answer}");
            assert!(answer["result"]["structuredContent"]["name"].is_string());
        }
    }
    served.stop().await;
}

#[tokio::test]
async fn the_first_byte_tells_http_from_the_raw_stream() {
    let site = Site::new().await;
    let (served, operator) = open(&site).await;
    let client = crate::support::client::Client::of(&operator, &site.server_root).offering(&[]);
    let stream = crate::support::served::tls(&client, served.address)
        .await
        .unwrap();
    let mut raw = RawHttp { stream };
    raw.send("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(raw.head().await.starts_with("HTTP/1.1 200 OK\r\n"));
    let stream = crate::support::served::tls(&client, served.address)
        .await
        .unwrap();
    let mut lines = crate::support::served::Lines::over(stream);
    let answer = lines
        .ask("tools/call", json!({"name":"self__whoami"}))
        .await;
    assert_eq!(answer["result"]["resultType"], "complete");
    served.stop().await;
}

#[tokio::test]
async fn each_refusal_has_its_status() {
    let extra = "[http]\nallowed_origins = [\"https://good.example\"]\nallowed_hosts = [\"localhost\"]\n\
                 [limits]\nmax_message_bytes = \"64KiB\"\n";
    let site = Site::with(extra).await;
    let (served, operator) = open(&site).await;
    let mut web = Web::http1(&site, &served, &operator).await;
    let call = json!({"jsonrpc":"2.0","id":1,"method":"ping"});
    web.initialize("2025-11-25", json!({})).await;
    let session = web.session.clone().unwrap();
    let good = [("mcp-session-id", session.as_str())];
    let with = |more: &[(&'static str, &'static str)]| {
        let mut fields: Vec<(&str, &str)> = good.to_vec();
        fields.extend_from_slice(more);
        fields
    };
    // (fields, path, status)
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, u16);
    let cases: [Case<'_>; 8] = [
        (&[], "/mcp", 200),
        (&[], "/other", 404),
        (&[("origin", "https://good.example")], "/mcp", 200),
        (&[("origin", "https://evil.example")], "/mcp", 403),
        (&[("origin", "null")], "/mcp", 403),
        (&[("host", "localhost:99")], "/mcp", 200),
        (&[("host", "evil.example")], "/mcp", 421),
        (&[("mcp-protocol-version", "1999-01-01")], "/mcp", 400),
    ];
    for (more, path, status) in cases {
        let mut all = vec![("content-type", "application/json"), ("accept", "*/*")];
        all.extend(with(&[]));
        all.extend_from_slice(more);
        let request = web.request(Method::POST, path, &all, Some(call.to_string()));
        let answer = web.whole(request).await;
        assert_eq!(answer.status, status, "{more:?} {path} {answer:?}");
        let shared = answer.header("access-control-allow-origin").is_some();
        assert_eq!(shared, more.contains(&("origin", "https://good.example")));
    }
    // (content type, accept, body, status); those that leave the body unread end the connection.
    let long = json!({"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":"x".repeat(70_000)}});
    let cases: [(&str, &str, String, u16); 9] = [
        (
            "application/json; charset=utf-8",
            "application/json",
            call.to_string(),
            200,
        ),
        (
            "application/json",
            "text/event-stream",
            call.to_string(),
            200,
        ),
        ("text/plain", "*/*", call.to_string(), 415),
        (
            "application/json; charset=latin1",
            "*/*",
            call.to_string(),
            415,
        ),
        ("application/json", "text/html", call.to_string(), 406),
        ("application/json", "*/*", long.to_string(), 413),
        ("application/json", "*/*", "nonsense".into(), 400),
        ("application/json", "*/*", format!("[{call}]"), 400),
        (
            "application/json",
            "*/*",
            "{\"jsonrpc\":\"2.0\"}".into(),
            400,
        ),
    ];
    for (kind, accept, body, status) in cases {
        let mut web = Web::http1(&site, &served, &operator).await;
        let fields = [
            ("content-type", kind),
            ("accept", accept),
            ("mcp-session-id", session.as_str()),
        ];
        let request = web.request(Method::POST, "/mcp", &fields, Some(body));
        let answer = web.whole(request).await;
        assert_eq!(answer.status, status, "{kind} {accept} {answer:?}");
        if status != 200 {
            assert!(answer.json()["error"]["code"].is_i64());
            assert!(answer.json().get("id").is_none());
        }
    }
    for (method, allowed) in [
        (Method::PUT, 405),
        (Method::HEAD, 405),
        (Method::OPTIONS, 204),
    ] {
        let request = web.request(method, "/mcp", &[], None);
        let answer = web.whole(request).await;
        assert_eq!(answer.status, allowed);
        assert_eq!(answer.header("allow"), Some("GET, POST, DELETE, OPTIONS"));
    }
    served.stop().await;
}

#[tokio::test]
async fn modern_headers_say_what_the_body_says() {
    let site = Site::new().await;
    let (served, operator) = open(&site).await;
    let mut web = Web::http1(&site, &served, &operator).await;
    let message = crate::support::served::modern(7, "tools/call", json!({"name":"self__whoami"}));
    let version = ("mcp-protocol-version", "2026-07-28");
    let method = ("mcp-method", "tools/call");
    let name = ("mcp-name", "self__whoami");
    let past = ("last-event-id", "1-1");
    let cases: [(&[(&str, &str)], u16); 14] = [
        (&[version, method, name], 200),
        (
            &[version, method, ("mcp-name", "=?base64?c2VsZl9fd2hvYW1p?=")],
            200,
        ),
        (
            &[
                version,
                method,
                ("mcp-name", "=?base64?c2VsZl9fd2hvYW1p=?="),
            ],
            400,
        ),
        (&[version, method, ("mcp-name", "self__server_status")], 400),
        (&[version, method], 400),
        (&[version, name], 400),
        (&[version, ("mcp-method", "Tools/call"), name], 400),
        (&[method, name], 400),
        (&[("mcp-protocol-version", "2025-11-25"), method, name], 400),
        (&[version, method, name, name], 400),
        (&[version, version, method, name], 400),
        // What may stand twice does not hide what may not.
        (&[past, past, version, method, name], 200),
        (&[past, past, version, method, name, name], 400),
        (
            &[version, method, name, ("mcp-session-id", "of the past")],
            200,
        ),
    ];
    for (fields, status) in cases {
        let request = web.post(fields, &message);
        let answer = web.whole(request).await;
        assert_eq!(answer.status, status, "{fields:?} {answer:?}");
        assert_eq!(answer.json()["id"], 7);
        assert_eq!(answer.header("mcp-session-id"), None);
        if status == 400 {
            assert_eq!(answer.json()["error"]["code"], -32020, "{fields:?}");
        }
    }
    // What is in no tool's schema, and what belongs to older revisions, means nothing.
    let more = [
        version,
        method,
        name,
        ("mcp-param-unheard-of", "x"),
        ("last-event-id", "1-1"),
    ];
    let request = web.post(&more, &message);
    assert_eq!(web.whole(request).await.status, 200);
    // The name of a prompt, the URI of a resource; bytes that are no visible ASCII.
    let uri = site.uri("hello.txt");
    let about: [(&str, Value, &str); 2] = [
        (
            "prompts/get",
            json!({"name":"prompts__greet","arguments":{"who":"Ann"}}),
            "prompts__greet",
        ),
        ("resources/read", json!({"uri":uri}), &uri),
    ];
    for (method, params, target) in about {
        let message = crate::support::served::modern(7, method, params);
        let fields = [version, ("mcp-method", method)];
        for (name, status) in [
            (Some(target.as_bytes()), 200),
            (Some(b"something else".as_slice()), 400),
            (Some(b"\xe4".as_slice()), 400),
            (None, 400),
        ] {
            let mut request = web.post(&fields, &message);
            if let Some(name) = name {
                let value = hyper::header::HeaderValue::from_bytes(name).unwrap();
                request.headers_mut().insert("mcp-name", value);
            }
            let answer = web.whole(request).await;
            assert_eq!(answer.status, status, "{method} {name:?} {answer:?}");
            if status == 400 {
                assert_eq!(answer.json()["error"]["code"], -32020);
            }
        }
    }
    served.stop().await;
}

#[tokio::test]
async fn modern_errors_have_their_status() {
    let site = Site::new().await;
    let (served, operator) = open(&site).await;
    let mut web = Web::http2(&site, &served, &operator).await;
    let version = "io.modelcontextprotocol/protocolVersion";
    for method in [
        "initialize",
        "ping",
        "logging/setLevel",
        "resources/subscribe",
        "no/such",
    ] {
        let request = web.modern(method, json!({"protocolVersion":"2025-11-25"}));
        let answer = web.whole(request).await;
        assert_eq!(
            (answer.status, &answer.json()["error"]["code"]),
            (404, &json!(-32601))
        );
    }
    let unknown = json!({"_meta":{version:"2031-01-01"}});
    let fields = [
        ("mcp-protocol-version", "2031-01-01"),
        ("mcp-method", "tools/list"),
    ];
    let message = crate::support::served::modern(1, "tools/list", unknown);
    let request = web.post(&fields, &message);
    let answer = web.whole(request).await;
    assert_eq!(
        (answer.status, &answer.json()["error"]["code"]),
        (400, &json!(-32022))
    );
    assert_eq!(answer.json()["error"]["data"]["requested"], "2031-01-01");
    let fields = [
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/list"),
    ];
    let request = web.post(&fields, &message);
    assert_eq!(web.whole(request).await.json()["error"]["code"], -32020);
    // Neither `_meta` nor a part of it.
    for params in [json!({}), json!({"_meta":{version:"2026-07-28"}})] {
        let message = json!({"jsonrpc":"2.0","id":1,"method":"tools/list","params":params});
        let request = web.post(&fields, &message);
        let answer = web.whole(request).await;
        assert_eq!(
            (answer.status, &answer.json()["error"]["code"]),
            (400, &json!(-32602))
        );
    }
    // What a call itself comes to stays in the body.
    let request = web.modern("tools/call", json!({"name":"no_such"}));
    let answer = web.whole(request).await;
    assert_eq!(
        (answer.status, &answer.json()["error"]["code"]),
        (200, &json!(-32602))
    );
    for method in [Method::GET, Method::DELETE] {
        let request = web.request(
            method,
            "/mcp",
            &[("mcp-protocol-version", "2026-07-28")],
            None,
        );
        let answer = web.whole(request).await;
        assert_eq!(
            (answer.status, answer.header("allow")),
            (405, Some("POST, OPTIONS"))
        );
    }
    let note = json!({"jsonrpc":"2.0","method":"notifications/whatever"});
    let request = web.post(&[("mcp-protocol-version", "2026-07-28")], &note);
    let answer = web.whole(request).await;
    assert_eq!((answer.status, answer.body.as_str()), (202, ""));
    served.stop().await;
}

#[tokio::test]
async fn a_session_belongs_to_its_identity_and_ends() {
    let site = Site::with("[http]\nsessions_per_identity = 2\n").await;
    let thief = site.enrol("thief", ALL).await;
    let (served, operator) = open(&site).await;
    let mut web = Web::http1(&site, &served, &operator).await;
    web.initialize("2025-11-25", json!({})).await;
    let id = web.session.clone().unwrap();
    assert_eq!(
        (
            id.len(),
            web.ask_bare("ping", json!({})).await["result"].clone()
        ),
        (32, json!({}))
    );
    // The same identity from another connection, another identity, an id that never was, none.
    let mut again = Web::http2(&site, &served, &operator).await;
    again.session = Some(id.clone());
    assert_eq!(again.ask_bare("ping", json!({})).await["result"], json!({}));
    let mut other = Web::http1(&site, &served, &thief).await;
    for (session, status) in [
        (Some(id.clone()), 404),
        (Some("0".repeat(32)), 404),
        (None, 400),
    ] {
        other.session = session;
        for request in [
            other.bare("ping", json!({})),
            other.request(Method::DELETE, "/mcp", &other.of_session(), None),
        ] {
            assert_eq!(other.whole(request).await.status, status);
        }
        assert_eq!(other.listen(None).await.status, status);
    }
    // A third session ends the one that rested longest.
    let mut all = vec![id];
    for _ in 0..2 {
        web.initialize("2025-06-18", json!({})).await;
        all.push(web.session.clone().unwrap());
    }
    for (id, status) in all.into_iter().zip([404, 200, 200]) {
        web.session = Some(id);
        let request = web.bare("ping", json!({}));
        assert_eq!(web.whole(request).await.status, status);
    }
    let request = web.request(Method::DELETE, "/mcp", &web.of_session(), None);
    assert_eq!(web.whole(request).await.status, 204);
    let request = web.bare("ping", json!({}));
    assert_eq!(web.whole(request).await.status, 404);
    served.stop().await;
}

fn tools(answer: &Value) -> usize {
    answer["result"]["tools"]
        .as_array()
        .unwrap_or_else(|| panic!("{answer}"))
        .len()
}

#[tokio::test]
async fn too_many_sessions_in_use_are_told_to_wait() {
    let site = Site::with("[http]\nsessions_per_identity = 1\n").await;
    let (served, operator) = open(&site).await;
    let mut web = Web::http2(&site, &served, &operator).await;
    web.initialize("2025-11-25", json!({})).await;
    let stream = web.listen(None).await;
    assert_eq!(stream.status, 200);
    let params = json!({"protocolVersion":"2025-11-25","capabilities":{},
        "clientInfo":{"name":"test","version":"1"}});
    let one_more = json!({"jsonrpc":"2.0","id":1,"method":"initialize","params":params});
    let request = web.post(&[], &one_more);
    let answer = web.whole(request).await;
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (429, Some("60"))
    );
    assert_eq!(answer.json()["error"]["code"], 4429);
    let request = web.request(Method::DELETE, "/mcp", &web.of_session(), None);
    assert_eq!(web.whole(request).await.status, 204);
    let request = web.post(&[], &one_more);
    assert_eq!(web.whole(request).await.status, 200);
    served.stop().await;
}

/// All that is answered until the connection ends, which it does in order.
async fn last_words(
    site: &Site,
    served: &Served,
    who: &Certified,
    alpn: &[&str],
    says: &[u8],
) -> Vec<u8> {
    let client = crate::support::client::Client::of(who, &site.server_root).offering(alpn);
    let mut stream = crate::support::served::tls(&client, served.address)
        .await
        .unwrap();
    stream.write_all(says).await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    let read = read.expect("the connection ends in time");
    assert!(read.is_ok(), "{alpn:?} {says:?} {read:?}");
    answer
}

#[tokio::test]
async fn nonsense_is_refused_in_the_words_of_what_it_seems_to_be() {
    let site = Site::new().await;
    let (served, operator) = open(&site).await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nthis is no frame of HTTP/2";
    let json = |code: i32| format!("{{\"jsonrpc\":\"2.0\",\"error\":{{\"code\":{code},");
    let http = || "HTTP/1.1 400 Bad Request\r\n".to_owned();
    let cases: [(&[&str], &[u8], String); 8] = [
        (&["mcp"], b"nonsense\n", json(-32700)),
        (&["mcp"], b"GET / HTTP/1.1\r\n", json(-32700)),
        (&["mcp"], b"\x16\x03\x01\x00\n", json(-32700)),
        (&[], b"\x00\x01\xfe\xff\n", json(-32700)),
        (&[], b"7\n", json(-32600)),
        (&[], b"nonsense\r\n\r\n", http()),
        (&["http/1.1"], b"{\"jsonrpc\":\"2.0\"}\r\n\r\n", http()),
        (&["http/1.1"], b"\x16\x03\x01\x00\r\n\r\n", http()),
    ];
    for (alpn, says, expected) in cases {
        let client =
            crate::support::client::Client::of(&operator, &site.server_root).offering(alpn);
        let mut stream = crate::support::served::tls(&client, served.address)
            .await
            .unwrap();
        stream.write_all(says).await.unwrap();
        stream.flush().await.unwrap();
        let mut answer = vec![0; expected.len()];
        let read = tokio::time::timeout(PATIENCE, stream.read_exact(&mut answer)).await;
        let read = read.expect("an answer in time");
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(read.is_ok(), "{alpn:?} {says:?} {answer}");
        assert_eq!(answer, expected, "{alpn:?} {says:?}");
    }
    // HTTP/2 has a frame for it, GOAWAY, and in it the reason: the frames are none, this is not
    // HTTP/2 at all, HTTP/1.1 was agreed on.
    const FRAME_SIZE: u8 = 6;
    const PROTOCOL: u8 = 1;
    const HTTP_1_1_REQUIRED: u8 = 13;
    for (alpn, says, why) in [
        (&[][..], &preface[..], FRAME_SIZE),
        (&["h2"], preface, FRAME_SIZE),
        (&["h2"], b"GET / HTTP/1.1\r\n\r\n", PROTOCOL),
        (&["h2"], b"{\"jsonrpc\":\"2.0\"}\n", PROTOCOL),
        (&["h2"], b"\x16\x03\x01\x00", PROTOCOL),
        (&["h2"], b"PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n", PROTOCOL),
        (&["http/1.1"], preface, HTTP_1_1_REQUIRED),
    ] {
        let answer = last_words(&site, &served, &operator, alpn, says).await;
        let mut frames = Vec::new();
        let mut rest = &answer[..];
        while let [a, b, c, kind, ..] = *rest {
            let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            frames.push((kind, &rest[9..9 + length]));
            rest = &rest[9 + length..];
        }
        // A server begins with SETTINGS, whatever it has to say.
        assert_eq!(frames[0].0, 4, "{alpn:?} {says:?} {frames:?}");
        let (kind, goaway) = frames.last().unwrap();
        assert_eq!(*kind, 7, "{alpn:?} {says:?} {frames:?}");
        assert_eq!(goaway[4..8], [0, 0, 0, why], "{alpn:?} {says:?}");
    }
    // Who has spoken HTTP/1.1 before is answered in it.
    let asks = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let says = [asks.as_bytes(), preface].concat();
    let answer = last_words(&site, &served, &operator, &["http/1.1"], &says).await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let (_, second) = answer.split_once("ok\n").unwrap();
    assert!(
        second.starts_with("HTTP/1.1 400 Bad Request\r\n"),
        "{answer}"
    );
    each_is_secured(&answer);
    served.stop().await;
}

#[tokio::test]
async fn what_answers_to_nobody_is_refused() {
    let site = Site::new().await;
    let (served, operator) = open(&site).await;
    let mut web = Web::http1(&site, &served, &operator).await;
    let version = ("mcp-protocol-version", "2026-07-28");
    let note = json!({"jsonrpc":"2.0","method":"notifications/x"});
    let response = json!({"jsonrpc":"2.0","id":1,"result":{}});
    let old = ("mcp-protocol-version", "1999-01-01");
    for (message, fields, status) in [
        (&note, &[version][..], 202),
        (&note, &[old], 400),
        (&note, &[version, version], 400),
        (&note, &[], 400),
        (&response, &[version], 400),
        (&response, &[], 400),
    ] {
        let request = web.post(fields, message);
        let answer = web.whole(request).await;
        assert_eq!(answer.status, status, "{message} {fields:?} {answer:?}");
    }
    served.stop().await;
}

#[tokio::test]
async fn probes_answer_to_an_admitted_peer() {
    let site = Site::new().await;
    let (served, operator) = open(&site).await;
    assert_eq!(site.config().health, None, "off by default");
    let stranger = pki::root("elsewhere").sign(pki::client("stranger"));
    let client = crate::support::client::Client::of(&stranger, &site.server_root);
    // In TLS 1.3 a client hears how it was judged when it reads.
    let client = client.offering(&["http/1.1"]);
    if let Ok(stream) = crate::support::served::tls(&client, served.address).await {
        let mut raw = RawHttp { stream };
        assert!(
            !raw.try_send("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
                .await
        );
    }
    let mut web = Web::http2(&site, &served, &operator).await;
    for path in ["/healthz", "/readyz"] {
        let request = web.request(Method::GET, path, &[], None);
        let answer = web.whole(request).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"));
        let request = web.request(Method::POST, path, &[], None);
        assert_eq!(web.whole(request).await.status, 405);
    }
    assert!(tools(&web.ask("tools/list", json!({})).await) > 5);
    served.stop().await;
}

#[tokio::test]
async fn websockets_share_one_http_2_connection() {
    let site = Site::new().await;
    let (served, operator) = open(&site).await;
    let mut web = Web::http2(&site, &served, &operator).await;
    // The server's settings, which allow it, have come with the first answer.
    assert!(tools(&web.ask("tools/list", json!({})).await) > 5);
    let connect = |version: &str| {
        let fields = [
            ("sec-websocket-version", version),
            ("sec-websocket-protocol", "mcp"),
        ];
        let mut request = web.request(Method::CONNECT, "/mcp", &fields, None);
        request
            .extensions_mut()
            .insert(hyper::ext::Protocol::from_static("websocket"));
        request
    };
    let (old, one, two) = (connect("8"), connect("13"), connect("13"));
    assert_eq!(web.whole(old).await.status, 426);
    let mut wires = Vec::new();
    for request in [one, two] {
        let response = web.send(request).await.unwrap();
        assert_eq!(
            (
                response.status().as_u16(),
                &response.headers()["sec-websocket-protocol"]
            ),
            (200, &"mcp".parse().unwrap())
        );
        let upgraded = hyper::upgrade::on(response).await.unwrap();
        wires.push(WsWire::client(TokioIo::new(upgraded), 1 << 20));
    }
    let call = crate::support::served::modern(1, "tools/call", json!({"name":"self__whoami"}));
    for wire in &mut wires {
        wire.put(|out| out.extend_from_slice(call.to_string().as_bytes()));
        wire.flush().await.unwrap();
        let answer = loop {
            if let Some(message) = wire.next().unwrap() {
                break message;
            }
            assert!(wire.fill().await.unwrap());
        };
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer["result"]["resultType"], "complete", "{answer}");
    }
    assert!(tools(&web.ask("tools/list", json!({})).await) > 5);
    drop(wires);
    served.stop().await;
}

#[tokio::test]
async fn a_websocket_on_http_2_is_told_why_it_ends() {
    let site = Site::new().await;
    let other = site.enrol("other", &["tools:*"]).await;
    let (served, _) = open(&site).await;
    let mut web = Web::http2(&site, &served, &other).await;
    assert!(tools(&web.ask("tools/list", json!({})).await) > 0);
    let mut request = web.request(
        Method::CONNECT,
        "/mcp",
        &[("sec-websocket-version", "13")],
        None,
    );
    request
        .extensions_mut()
        .insert(hyper::ext::Protocol::from_static("websocket"));
    let response = web.send(request).await.unwrap();
    let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    site.revoke(&other).await;
    let mut heard = Vec::new();
    let hearing = stream.read_to_end(&mut heard);
    let _ = tokio::time::timeout(PATIENCE, hearing)
        .await
        .expect("it ends in time");
    assert_eq!(heard.first(), Some(&0x88), "{heard:?}");
    assert_eq!(u16::from_be_bytes([heard[2], heard[3]]), 1008);
    web.closed().await;
    served.stop().await;
}

#[tokio::test]
async fn a_websocket_handshake_is_whole_or_refused() {
    let site = Site::new().await;
    let (served, operator) = open(&site).await;
    let good = "GET /mcp HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let cases = [
        (good.to_owned(), "101"),
        (good.replace("Version: 13", "Version: 8"), "426"),
        (good.replace("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="), "400"),
        (
            good.replace("Connection: Upgrade", "Connection: keep-alive"),
            "400",
        ),
        (good.replace("/mcp", "/other"), "404"),
        (
            good.replace(
                "Host: localhost",
                "Host: localhost\r\nOrigin: https://evil.example",
            ),
            "403",
        ),
    ];
    for (request, status) in cases {
        let mut raw = RawHttp::open(&site, &served, &operator).await;
        raw.send(&request).await;
        let head = raw.head().await;
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request}\n{head}"
        );
        // Nobody asked for a subprotocol, so none is named.
        assert!(!head.contains("sec-websocket-protocol"), "{head}");
    }
    served.stop().await;
}

#[tokio::test]
async fn orchestrators_without_a_certificate_ask_on_a_loopback_address() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let site = Site::with(&format!("[health]\nlisten = \"127.0.0.1:{port}\"\n")).await;
    let (served, _) = open(&site).await;
    let asked = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    for (request, status) in [
        (asked("/healthz"), "200"),
        (asked("/readyz"), "200"),
        (asked("/mcp"), "404"),
        ("NONSENSE\r\n\r\n".to_owned(), "400"),
    ] {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port))
            .await
            .unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        each_is_secured(&answer);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
    }
    served.stop().await;
}
