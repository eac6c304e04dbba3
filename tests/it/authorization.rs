//! What an identity may see and use, over every transport and in both eras: one table. Where two
//! answers must be the same, they are the same byte for byte.

use std::collections::BTreeMap;

use bytes::Bytes;
use countersign::transport::{Wire, WsWire};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::support::http::{RawHttp, Web};
use crate::support::pki::{Certified, PATIENCE};
use crate::support::served::{Lines, Served, Site, modern};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Raw,
    Http1,
    Http2,
    WebSocket,
}

const WAYS: [Way; 4] = [Way::Raw, Way::Http1, Way::Http2, Way::WebSocket];
/// None: 2026-07-28.
const ERAS: [Option<&str>; 3] = [None, Some("2025-06-18"), Some("2025-11-25")];

/// A client that says one message and hears its answer, whatever carries it.
enum Talk {
    Raw(Box<Lines>),
    Http(Box<Web>),
    WebSocket(Box<WsWire<TlsStream<TcpStream>>>),
}

impl Talk {
    async fn open(site: &Site, served: &Served, who: &Certified, way: Way) -> Self {
        match way {
            Way::Raw => Self::Raw(Box::new(site.try_connect(served, who).await.unwrap())),
            Way::Http1 => Self::Http(Box::new(Web::http1(site, served, who).await)),
            Way::Http2 => Self::Http(Box::new(Web::http2(site, served, who).await)),
            Way::WebSocket => Self::WebSocket(Box::new(websocket(site, served, who).await)),
        }
    }

    /// The answer as it came.
    async fn ask(&mut self, era: Option<&'static str>, method: &str, params: &Value) -> String {
        let message = if era.is_some() {
            json!({"jsonrpc":"2.0","id":1,"method":method,"params":params})
        } else {
            modern(1, method, params.clone())
        };
        match self {
            Self::Raw(lines) => {
                lines.send(&message).await;
                lines.line().await.unwrap().trim_end().to_owned()
            }
            Self::WebSocket(wire) => {
                wire.put(|out| out.extend_from_slice(message.to_string().as_bytes()));
                wire.flush().await.unwrap();
                String::from_utf8(heard(wire).await.to_vec()).unwrap()
            }
            Self::Http(web) => {
                let request = if era.is_some() {
                    web.post(&web.of_session(), &message)
                } else {
                    let name = params["name"].as_str().or(params["uri"].as_str());
                    let mut fields = vec![
                        ("mcp-protocol-version", "2026-07-28"),
                        ("mcp-method", method),
                    ];
                    fields.extend(name.map(|name| ("mcp-name", name)));
                    web.post(&fields, &message)
                };
                web.whole(request).await.body
            }
        }
    }

    async fn begin(&mut self, era: Option<&'static str>) {
        let Some(revision) = era else { return };
        match self {
            Self::Raw(lines) => assert_eq!(lines.initialize(revision).await, revision),
            Self::Http(web) => drop(web.initialize(revision, json!({})).await),
            Self::WebSocket(_) => {
                let params = json!({"protocolVersion":revision,"capabilities":{},
                    "clientInfo":{"name":"test","version":"1"}});
                let answer = self.ask(era, "initialize", &params).await;
                assert!(answer.contains(revision), "{answer}");
            }
        }
    }
}

async fn heard(wire: &mut WsWire<TlsStream<TcpStream>>) -> Bytes {
    let hearing = async {
        loop {
            if let Some(message) = wire.next().unwrap() {
                return message;
            }
            assert!(wire.fill().await.unwrap());
        }
    };
    tokio::time::timeout(PATIENCE, hearing)
        .await
        .expect("an answer in time")
}

/// The opening handshake of RFC 6455, with the key of its example.
async fn websocket(site: &Site, served: &Served, who: &Certified) -> WsWire<TlsStream<TcpStream>> {
    let mut raw = RawHttp::open(site, served, who).await;
    raw.send(
        "GET /mcp HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: other, mcp\r\n\r\n",
    )
    .await;
    let head = raw.head().await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(
        head.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"),
        "{head}"
    );
    assert!(head.contains("sec-websocket-protocol: mcp\r\n"), "{head}");
    WsWire::client(raw.stream, 1 << 20)
}

/// What is asked: name of the row, method, parameters.
fn rows(site: &Site) -> Vec<(&'static str, &'static str, Value)> {
    let tool = |name: &str, arguments: Value| json!({"name":name,"arguments":arguments});
    let prompt = json!({"type":"ref/prompt","name":"prompts__greet"});
    vec![
        ("tools", "tools/list", json!({})),
        ("resources", "resources/list", json!({})),
        ("templates", "resources/templates/list", json!({})),
        ("prompts", "prompts/list", json!({})),
        (
            "read tool",
            "tools/call",
            tool("files__read_file", json!({"path":"hello.txt"})),
        ),
        (
            "write tool",
            "tools/call",
            tool("files__delete_file", json!({"path":"none.txt"})),
        ),
        (
            "no tool",
            "tools/call",
            tool("files__deleted_fil", json!({"path":"none.txt"})),
        ),
        (
            "resource",
            "resources/read",
            json!({"uri":site.uri("hello.txt")}),
        ),
        (
            "deep resource",
            "resources/read",
            json!({"uri":site.uri("deep/more.txt")}),
        ),
        (
            "no resource",
            "resources/read",
            json!({"uri":site.uri("deep/none.txt")}),
        ),
        (
            "prompt",
            "prompts/get",
            json!({"name":"prompts__greet","arguments":{"who":"Ann"}}),
        ),
        (
            "no prompt",
            "prompts/get",
            json!({"name":"prompts__greeT","arguments":{"who":"Ann"}}),
        ),
        (
            "completion",
            "completion/complete",
            json!({"ref":prompt,"argument":{"name":"who","value":""}}),
        ),
        ("unknown", "no/such", json!({})),
    ]
}

/// Which rows are refused, for each identity.
const REFUSED: [(&str, &[&str]); 3] = [
    (
        "operator",
        &["no tool", "no resource", "no prompt", "unknown"],
    ),
    (
        "reader",
        &[
            "write tool",
            "no tool",
            "deep resource",
            "no resource",
            "prompt",
            "no prompt",
            "completion",
            "unknown",
        ],
    ),
    (
        "nobody",
        &[
            "read tool",
            "write tool",
            "no tool",
            "resource",
            "deep resource",
            "no resource",
            "prompt",
            "no prompt",
            "completion",
            "unknown",
        ],
    ),
];

#[tokio::test]
async fn the_same_identity_sees_and_may_do_the_same_whichever_way_it_comes() {
    let site = Site::new().await;
    let hello = format!("resources:{}", site.uri("hello.txt"));
    let operator = site.enrol("operator", &["*"]).await;
    let reader = site.enrol("reader", &["tools:files__read_*", &hello]).await;
    let nobody = site.enrol("nobody", &["tools:none"]).await;
    let served = site.serve().await;
    let rows = rows(&site);
    for ((name, refused), who) in REFUSED.into_iter().zip([&operator, &reader, &nobody]) {
        // By row and era: the answer of the first way, which all others must repeat.
        let mut known: BTreeMap<(&str, Option<&str>), String> = BTreeMap::new();
        for way in WAYS {
            for era in ERAS {
                let mut talk = Talk::open(&site, &served, who, way).await;
                talk.begin(era).await;
                for (row, method, params) in &rows {
                    let answer = talk.ask(era, method, params).await;
                    let first = known.entry((row, era)).or_insert_with(|| answer.clone());
                    assert_eq!(*first, answer, "{name} {row} {way:?} {era:?}");
                }
            }
        }
        let parsed = |row: &str, era: Option<&str>| -> Value {
            serde_json::from_str(&known[&(row, era)]).unwrap()
        };
        for era in ERAS {
            for (row, ..) in &rows {
                let answer = parsed(row, era);
                let is_refused = answer["error"].is_object();
                assert_eq!(
                    is_refused,
                    refused.contains(row),
                    "{name} {row} {era:?} {answer}"
                );
            }
            // A list holds the same in every era.
            for (row, list) in [
                ("tools", "tools"),
                ("resources", "resources"),
                ("templates", "resourceTemplates"),
                ("prompts", "prompts"),
            ] {
                let now = &parsed(row, None)["result"][list];
                assert!(now.is_array(), "{now}");
                assert_eq!(
                    *now,
                    parsed(row, era)["result"][list],
                    "{name} {row} {era:?}"
                );
            }
            // What may not be used looks like what is not there, but for the name that was asked.
            for (denied, missing) in [("write tool", "no tool"), ("deep resource", "no resource")] {
                if refused.contains(&denied) {
                    let (denied, missing) = (&known[&(denied, era)], &known[&(missing, era)]);
                    let same = |text: &str| {
                        text.replace("files__delete_file", "?")
                            .replace("files__deleted_fil", "?")
                            .replace("deep/more.txt", "?")
                            .replace("deep/none.txt", "?")
                    };
                    assert_eq!(same(denied), same(missing));
                }
            }
        }
    }
    served.stop().await;
    // Every denial is in the log with its transport, whatever was answered.
    let denied = |transport: &str| {
        let records = site.audit();
        records
            .iter()
            .filter(|record| record["allowed"] == false && record["transport"] == transport)
            .count()
    };
    assert!(denied("raw") > 0);
    assert_eq!(denied("http"), 2 * denied("raw"));
    assert_eq!(denied("websocket"), denied("raw"));
}
