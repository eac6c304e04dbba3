//! Rows of Streamable HTTP that no other file looks at: what a body may be, arguments that stand in
//! headers, whose events an id leads back to, and limits that answer inside the protocol.

use std::sync::Arc;

use countersign::backend::Provider;
use hyper::Method;
use serde_json::{Value, json};

use crate::support::fixture::Fixture;
use crate::support::http::{Events, Web};
use crate::support::pki::Certified;
use crate::support::served::{Served, Site, modern};

const VERSION: (&str, &str) = ("mcp-protocol-version", "2026-07-28");

/// Fields, a body or arguments, and what is expected.
type Case<'a, T> = (&'a [(&'a str, &'a str)], Value, T);

/// A server with the fixture's tools, its gate open for so many steps.
async fn open(extra: &str, steps: usize) -> (Site, Served, Certified) {
    let site = Site::with(extra).await;
    let operator = site.enrol("operator", &["*"]).await;
    let (fixture, hears) = Fixture::new();
    drop(hears);
    fixture.go.add_permits(steps);
    let provider = fixture as Arc<dyn Provider>;
    let served = site.serve_with(vec![(String::new(), provider)]).await;
    (site, served, operator)
}

#[tokio::test]
async fn a_body_is_one_message_and_one_that_is_expected() {
    let (site, served, operator) = open("", 0).await;
    let mut web = Web::http2(&site, &served, &operator).await;
    web.initialize("2025-11-25", json!({})).await;
    let session = web.session.clone().unwrap();
    let legacy = ("mcp-protocol-version", "2025-11-25");
    let (mine, lost) = (
        ("mcp-session-id", session.as_str()),
        ("mcp-session-id", "0123456789abcdef0123456789abcdef"),
    );
    let unserved = ("mcp-protocol-version", "1999-01-01");
    let request = modern(1, "tools/list", json!({}));
    let note = json!({"jsonrpc":"2.0","method":"notifications/roots/list_changed"});
    let response = json!({"jsonrpc":"2.0","id":"nothing","result":{}});
    let list = ("mcp-method", "tools/list");
    let cases: [Case<'_, u16>; 13] = [
        (&[VERSION, list], request.clone(), 200),
        (&[VERSION, list], json!([request]), 400),
        // A modern server asks nothing by itself, so nothing is there to respond to.
        (&[VERSION], response.clone(), 400),
        (&[legacy, mine], response.clone(), 202),
        (&[legacy, lost], response.clone(), 404),
        (&[legacy], response, 400),
        (&[VERSION], note.clone(), 202),
        (&[legacy, mine], note.clone(), 202),
        (&[mine], note.clone(), 202),
        (&[legacy, lost], note.clone(), 404),
        (&[legacy], note.clone(), 400),
        (&[unserved, mine], note, 400),
        (&[legacy, mine], json!([]), 400),
    ];
    for (fields, body, status) in cases {
        let request = web.post(fields, &body);
        let answer = web.whole(request).await;
        assert_eq!(answer.status, status, "{fields:?} {body} {answer:?}");
        assert_eq!(answer.body.is_empty(), status == 202, "{answer:?}");
    }
    // What has no body names a revision as well.
    for (method, version, status) in [
        (Method::GET, unserved, 400),
        (Method::GET, legacy, 200),
        (Method::DELETE, unserved, 400),
        (Method::DELETE, legacy, 204),
    ] {
        let fields = [version, mine, ("accept", "text/event-stream")];
        let request = web.request(method, "/mcp", &fields, None);
        let answer = web.events(request).await;
        assert_eq!(answer.status, status, "{version:?}");
    }
    served.stop().await;
}

#[tokio::test]
async fn an_unserved_revision_is_answered_with_those_that_are() {
    let (site, served, operator) = open("", 0).await;
    let mut web = Web::http1(&site, &served, &operator).await;
    let asked = "io.modelcontextprotocol/protocolVersion";
    let message = modern(1, "server/discover", json!({"_meta":{asked:"2031-01-01"}}));
    let fields = [
        ("mcp-protocol-version", "2031-01-01"),
        ("mcp-method", "server/discover"),
    ];
    let request = web.post(&fields, &message);
    let refused = web.whole(request).await;
    let supported = refused.json()["error"]["data"]["supported"].clone();
    let discovered = web.ask("server/discover", json!({})).await;
    assert_eq!(supported, discovered["result"]["supportedVersions"]);
    for revision in ["2025-06-18", "2025-11-25", "2026-07-28"] {
        assert!(supported.as_array().unwrap().contains(&json!(revision)));
    }
    // Sessions have names that cannot be guessed, in characters that a header may have.
    let mut known = std::collections::BTreeSet::new();
    for _ in 0..8 {
        web.initialize("2025-11-25", json!({})).await;
        let id = web.session.clone().unwrap();
        assert!(id.len() >= 32 && id.bytes().all(|byte| byte.is_ascii_graphic()));
        assert!(known.insert(id));
    }
    served.stop().await;
}

#[tokio::test]
async fn who_listens_takes_events() {
    let (site, served, operator) = open("", 0).await;
    let mut web = Web::http2(&site, &served, &operator).await;
    let params = json!({"notifications":{"toolsListChanged":true}});
    let message = modern(1, "subscriptions/listen", params);
    for (accept, status) in [
        ("text/event-stream", 200),
        ("application/json, text/event-stream", 200),
        ("application/json", 406),
    ] {
        let fields = [
            VERSION,
            ("mcp-method", "subscriptions/listen"),
            ("content-type", "application/json"),
            ("accept", accept),
        ];
        let request = web.request(Method::POST, "/mcp", &fields, Some(message.to_string()));
        let mut events = web.events(request).await;
        assert_eq!(events.status, status, "{accept}");
        if status == 200 {
            let first = events.json().await;
            assert_eq!(first["method"], "notifications/subscriptions/acknowledged");
        }
    }
    served.stop().await;
}

#[tokio::test]
async fn arguments_in_headers_say_what_the_body_says() {
    let (site, served, operator) = open("", 0).await;
    let stranger = site.enrol("stranger", &["tools:wait"]).await;
    site.reach(&served, &stranger).await;
    let mut web = Web::http1(&site, &served, &operator).await;
    let mut other = Web::http1(&site, &served, &stranger).await;
    let call = |arguments: Value| {
        modern(
            1,
            "tools/call",
            json!({"name":"region","arguments":arguments}),
        )
    };
    let usual = [
        VERSION,
        ("mcp-method", "tools/call"),
        ("mcp-name", "region"),
    ];
    let eu = || json!({"region":"eu"});
    let cases: [Case<'_, bool>; 9] = [
        (&[("mcp-param-region", "eu")], eu(), true),
        (&[("Mcp-Param-Region", "eu")], eu(), true),
        (&[("mcp-param-region", "=?base64?ZXU=?=")], eu(), true),
        (&[], json!({"region":null}), true),
        (&[], json!({}), true),
        (&[], eu(), false),
        (&[("mcp-param-region", "EU")], eu(), false),
        (&[("mcp-param-region", "eu")], json!({}), false),
        (
            &[("mcp-param-region", "eu"), ("mcp-param-region", "eu")],
            eu(),
            false,
        ),
    ];
    for (more, arguments, agrees) in cases {
        let fields = [&usual[..], more].concat();
        let request = web.post(&fields, &call(arguments.clone()));
        let answer = web.whole(request).await;
        let code = answer.json()["error"]["code"].clone();
        let expected = if agrees {
            (200, Value::Null)
        } else {
            (400, json!(-32020))
        };
        assert_eq!((answer.status, code), expected, "{more:?} {arguments}");
        // Who may not use the tool learns nothing of its schema, whatever the headers say.
        let request = other.post(&fields, &call(arguments));
        let refused = other.whole(request).await;
        assert_eq!(
            (refused.status, &refused.json()["error"]["code"]),
            (200, &json!(-32602)),
            "{more:?}"
        );
    }
    served.stop().await;
}

/// The ids and the data of a stream of events, to its end.
async fn all(mut events: Events) -> Vec<(String, Value)> {
    assert_eq!(events.status, 200);
    let mut all = Vec::new();
    while let Some(event) = events.next().await {
        let data = event.data.as_deref().unwrap_or_default();
        let data = serde_json::from_str(data).unwrap_or_default();
        all.push((event.id.unwrap_or_default(), data));
    }
    all
}

#[tokio::test]
async fn an_event_id_leads_back_to_its_own_stream_alone() {
    let (site, served, operator) = open("", 6).await;
    let mut web = Web::http2(&site, &served, &operator).await;
    web.initialize("2025-11-25", json!({})).await;
    let mut streams = Vec::new();
    for token in ["one", "two"] {
        let params = json!({"name":"steps","_meta":{"progressToken":token}});
        let request = web.bare("tools/call", params);
        streams.push(web.events(request).await);
    }
    let mut ids = std::collections::BTreeSet::new();
    for (events, token) in streams.into_iter().zip(["one", "two"]) {
        let said = all(events).await;
        assert_eq!(said.len(), 5, "{said:?}");
        for (id, _) in &said {
            assert!(ids.insert(id.clone()), "{id} stands twice in the session");
        }
        // From the priming event on: the same once more, and nothing of the other call.
        let again = all(web.listen(Some(&said[0].0)).await).await;
        assert_eq!(again, said[1..]);
        let tokens = again
            .iter()
            .filter_map(|(_, data)| data["params"]["progressToken"].as_str());
        assert_eq!(tokens.collect::<Vec<_>>(), [token; 3]);
        let answers = again.iter().filter(|(_, data)| data["result"].is_object());
        assert_eq!(answers.count(), 1);
    }
    served.stop().await;
}

#[tokio::test]
async fn limits_answer_inside_the_protocol_over_http_too() {
    let limits = "[limits]\ncalls_per_second = 1\ncall_burst = 2\n";
    let (site, served, operator) = open(limits, 0).await;
    let mut web = Web::http2(&site, &served, &operator).await;
    let whoami = json!({"name":"self__whoami"});
    for _ in 0..2 {
        let answer = web.ask("tools/call", whoami.clone()).await;
        assert!(answer["result"]["isError"].is_null(), "{answer}");
    }
    let request = web.modern("tools/call", whoami);
    let limited = web.whole(request).await;
    let result = limited.json()["result"].clone();
    assert_eq!((limited.status, &result["isError"]), (200, &json!(true)));
    let code = &result["structuredContent"]["error"]["code"];
    assert_eq!(*code, "RATE_LIMITED");
    let reference = json!({"type":"ref/prompt","name":"prompts__greet"});
    let params = json!({"ref":reference,"argument":{"name":"who","value":""}});
    let request = web.modern("completion/complete", params);
    let limited = web.whole(request).await;
    assert_eq!(
        (limited.status, &limited.json()["error"]["code"]),
        (200, &json!(4429))
    );
    served.stop().await;
}
