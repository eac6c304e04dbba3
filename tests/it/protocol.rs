//! The wire contract over the raw stream: framing, eras, faults, lists, calls, limits.

use serde_json::{Value, json};

use crate::support::served::{Lines, Site, modern};

const ALL: &[&str] = &["*", "admin:*"];

async fn open(site: &Site) -> (crate::support::served::Served, Lines) {
    let served = site.serve().await;
    let operator = site.enrol("operator", ALL).await;
    let lines = site.reach(&served, &operator).await;
    (served, lines)
}

fn names(answer: &Value, list: &str, key: &str) -> Vec<String> {
    let items = answer["result"][list]
        .as_array()
        .unwrap_or_else(|| panic!("{answer}"));
    items
        .iter()
        .map(|item| item[key].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_tool_is_called_in_every_era() {
    let site = Site::new().await;
    let (served, mut lines) = open(&site).await;
    let answer = lines
        .ask("tools/call", json!({"name":"self__whoami"}))
        .await;
    let result = &answer["result"];
    assert_eq!(result["resultType"], "complete", "{answer}");
    assert!(
        result["structuredContent"]["name"]
            .as_str()
            .unwrap()
            .ends_with("/operator")
    );
    assert_eq!(
        result["_meta"]["io.modelcontextprotocol/serverInfo"]["version"],
        env!("CARGO_PKG_VERSION")
    );
    let operator = site.enrol("second", ALL).await;
    for revision in ["2024-11-05", "2025-06-18", "2025-11-25"] {
        let mut legacy = site.reach(&served, &operator).await;
        assert_eq!(legacy.initialize(revision).await, revision);
        let answer = legacy
            .ask_bare("tools/call", json!({"name":"self__whoami","arguments":{}}))
            .await;
        assert!(answer["result"]["resultType"].is_null(), "{answer}");
        assert!(answer["result"]["structuredContent"]["name"].is_string());
        assert_eq!(
            legacy.ask_bare("ping", json!({})).await["result"],
            json!({})
        );
    }
    served.stop().await;
}

#[tokio::test]
async fn discovery_names_every_revision_and_decides_nothing() {
    let site = Site::new().await;
    let (served, mut lines) = open(&site).await;
    let answer = lines.ask("server/discover", json!({})).await;
    let result = &answer["result"];
    assert_eq!(
        result["supportedVersions"],
        json!(["2026-07-28", "2025-11-25", "2025-06-18", "2024-11-05"])
    );
    assert_eq!(result["cacheScope"], "private");
    assert!(result["ttlMs"].is_u64());
    assert_eq!(lines.initialize("2025-06-18").await, "2025-06-18");
    let answer = lines.ask_bare("tools/list", json!({})).await;
    assert!(answer["result"]["tools"].is_array());
    // An enveloped request is served as a modern one all the same.
    assert!(lines.ask("tools/list", json!({})).await["result"]["resultType"].is_string());
    served.stop().await;
}

#[tokio::test]
async fn an_unserved_version_is_answered_with_those_that_are() {
    let site = Site::new().await;
    let (served, mut lines) = open(&site).await;
    let params = json!({"_meta":{"io.modelcontextprotocol/protocolVersion":"2031-01-01"}});
    let answer = lines.ask("tools/list", params).await;
    assert_eq!(answer["error"]["code"], -32022);
    assert_eq!(answer["error"]["data"]["requested"], "2031-01-01");
    assert_eq!(answer["error"]["data"]["supported"][0], "2026-07-28");
    let bare = lines.ask_bare("tools/list", json!({})).await;
    assert_eq!(bare["error"]["code"], -32602);
    for method in [
        "initialize",
        "ping",
        "logging/setLevel",
        "resources/subscribe",
        "no/such",
    ] {
        let answer = lines
            .ask(method, json!({"protocolVersion":"2025-11-25"}))
            .await;
        assert_eq!(answer["error"]["code"], -32601, "{method}");
    }
    served.stop().await;
}

#[tokio::test]
async fn faults_are_answered_and_the_connection_goes_on() {
    let site = Site::new().await;
    let (served, mut lines) = open(&site).await;
    let deep = format!(
        r#"{{"jsonrpc":"2.0","id":9,"method":"ping","params":{{"a":{}{}}}}}"#,
        "[".repeat(100),
        "]".repeat(100)
    );
    let cases: [(&str, i64, Option<Value>); 8] = [
        ("nonsense", -32700, None),
        (
            "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"",
            -32700,
            None,
        ),
        (
            r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#,
            -32600,
            None,
        ),
        (
            r#"{"jsonrpc":"1.0","id":5,"method":"ping"}"#,
            -32600,
            Some(json!(5)),
        ),
        (
            r#"{"jsonrpc":"2.0","id":6,"method":"ping","method":"tools/list"}"#,
            -32600,
            Some(json!(6)),
        ),
        (
            r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#,
            -32600,
            None,
        ),
        (
            r#"{"jsonrpc":"2.0","id":7,"method":"ping","params":[]}"#,
            -32600,
            Some(json!(7)),
        ),
        (&deep, -32600, None),
    ];
    for (line, code, id) in cases {
        lines.send_bytes(format!("{line}\n").as_bytes()).await;
        let answer = lines.receive().await;
        assert_eq!(answer["error"]["code"], code, "{line}");
        assert_eq!(answer.get("id").cloned(), id, "{line}");
    }
    let twice = r#"{"jsonrpc":"2.0","id":8,"method":"tools/call","params":{"name":"self__whoami","n\u0061me":"files__delete_file","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}"#;
    lines.send_bytes(format!("{twice}\n").as_bytes()).await;
    assert_eq!(lines.receive().await["error"]["code"], -32602);
    // Blank lines, carriage returns and a stray response are borne.
    lines
        .send_bytes(b"\r\n\n  \n{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\r\n")
        .await;
    assert!(lines.ask("tools/list", json!({})).await["result"].is_object());
    served.stop().await;
}

#[tokio::test]
async fn a_message_over_the_limit_is_answered_and_ends_the_connection() {
    let site = Site::with("[limits]\nmax_message_bytes = \"64KiB\"\n").await;
    let (served, mut lines) = open(&site).await;
    let fits = json!({"name":"self__whoami","x":"a".repeat(60_000)});
    assert!(lines.ask("tools/call", fits).await["result"].is_object());
    let long = json!({"name":"self__whoami","x":"a".repeat(70_000)});
    lines.send(&modern(99, "tools/call", long)).await;
    let answer = lines.receive().await;
    assert_eq!(
        (answer["error"]["code"].as_i64(), answer.get("id")),
        (Some(-32600), None)
    );
    lines.ended().await;
    served.stop().await;
}

#[tokio::test]
async fn one_byte_at_a_time_is_slow_and_right() {
    let site = Site::new().await;
    let (served, mut lines) = open(&site).await;
    let text = format!(
        "\u{feff}{}\r\n",
        modern(1, "tools/call", json!({"name":"self__whoami"}))
    );
    // The byte-order mark is accepted at the start of a stream only.
    let text = text.trim_start_matches('\u{feff}');
    for byte in text.as_bytes() {
        lines.send_bytes(&[*byte]).await;
    }
    assert!(lines.answer(&json!(1)).await["result"].is_object());
    served.stop().await;
}

#[tokio::test]
async fn requests_are_pipelined_and_every_one_is_answered() {
    let site = Site::new().await;
    let (served, mut lines) = open(&site).await;
    let mut text = String::new();
    for id in 1..=500 {
        let call = if id % 3 == 0 {
            modern(
                id,
                "tools/call",
                json!({"name":"files__read_file","arguments":{"path":"hello.txt"}}),
            )
        } else {
            modern(id, "tools/call", json!({"name":"self__whoami"}))
        };
        text += &format!("{call}\n");
    }
    lines.send_bytes(text.as_bytes()).await;
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 500 {
        let answer = lines.receive().await;
        assert!(answer["result"].is_object(), "{answer}");
        assert!(seen.insert(answer["id"].as_u64().unwrap()));
    }
    served.stop().await;
}

#[tokio::test]
async fn an_id_that_is_in_use_is_refused_and_free_again_afterwards() {
    let site = Site::new().await;
    let (served, mut lines) = open(&site).await;
    let one = modern(7, "tools/call", json!({"name":"self__whoami"}));
    lines.send_bytes(format!("{one}\n{one}\n").as_bytes()).await;
    let (first, second) = (lines.receive().await, lines.receive().await);
    let refused = [&first, &second]
        .into_iter()
        .filter(|a| a["error"]["code"] == -32600)
        .count();
    let served_count = [&first, &second]
        .into_iter()
        .filter(|a| a["result"].is_object())
        .count();
    assert_eq!((refused, served_count), (1, 1));
    lines.send(&one).await;
    assert!(lines.receive().await["result"].is_object());
    served.stop().await;
}

#[tokio::test]
async fn closing_the_write_side_ends_after_the_answers() {
    let site = Site::new().await;
    let (served, mut lines) = open(&site).await;
    let call = modern(
        1,
        "tools/call",
        json!({"name":"files__read_file","arguments":{"path":"hello.txt"}}),
    );
    // The last line has no end of its own.
    lines.send_bytes(call.to_string().as_bytes()).await;
    use tokio::io::AsyncWriteExt;
    lines.stream_mut().shutdown().await.unwrap();
    let answer = lines.receive().await;
    assert_eq!(answer["id"], 1);
    assert!(answer["result"].is_object(), "{answer}");
    lines.ended().await;
    served.stop().await;
}

#[tokio::test]
async fn lists_are_paged_with_cursors_of_the_callers_own() {
    let site = Site::with("[limits]\npage_size = 2\n").await;
    for n in 0..5 {
        std::fs::write(site.path().join(format!("docs/f{n}.txt")), "x").unwrap();
    }
    let (served, mut lines) = open(&site).await;
    for (method, list, key) in [
        ("tools/list", "tools", "name"),
        ("resources/list", "resources", "uri"),
    ] {
        let (mut all, mut cursor, mut pages) = (Vec::new(), None::<String>, 0);
        loop {
            let params = cursor
                .as_ref()
                .map_or(json!({}), |cursor| json!({"cursor":cursor}));
            let answer = lines.ask(method, params).await;
            let page = names(&answer, list, key);
            assert!(page.len() <= 2);
            all.extend(page);
            pages += 1;
            match answer["result"]["nextCursor"].as_str() {
                Some(next) => cursor = Some(next.to_owned()),
                None => break,
            }
        }
        assert!(pages > 2, "{method}");
        let mut unique = all.clone();
        unique.dedup();
        assert_eq!(unique.len(), all.len());
        assert_eq!(
            all.len(),
            if method == "tools/list" { 8 } else { 7 },
            "{all:?}"
        );
        let foreign = lines.ask(method, json!({"cursor":"bm9uc2Vuc2U"})).await;
        assert_eq!(foreign["error"]["code"], -32602);
    }
    served.stop().await;
}

#[tokio::test]
async fn wrong_arguments_are_a_tool_error_that_names_the_field() {
    let site = Site::new().await;
    let (served, mut lines) = open(&site).await;
    let call = |arguments: Value| json!({"name":"files__read_file","arguments":arguments});
    let good = lines
        .ask("tools/call", call(json!({"path":"hello.txt"})))
        .await;
    assert!(good["result"]["isError"].is_null(), "{good}");
    for (arguments, field) in [
        (json!({}), "path"),
        (json!({"path":7}), "path"),
        (json!({"path":"hello.txt","colour":"red"}), "colour"),
        (json!({"path":"hello.txt","offset":-1}), "offset"),
    ] {
        let answer = lines.ask("tools/call", call(arguments)).await;
        assert_eq!(answer["result"]["isError"], true, "{answer}");
        let text = answer["result"]["content"][0]["text"].as_str().unwrap();
        assert!(text.contains(field), "{text}");
    }
    served.stop().await;
}

#[tokio::test]
async fn resources_prompts_and_completions() {
    let site = Site::new().await;
    let (served, mut lines) = open(&site).await;
    let uri = site.uri("hello.txt");
    let listed = lines.ask("resources/list", json!({})).await;
    assert!(
        names(&listed, "resources", "uri").contains(&uri),
        "{listed}"
    );
    let read = lines.ask("resources/read", json!({"uri":uri})).await;
    assert_eq!(
        read["result"]["contents"][0]["text"], "hello from a file\n",
        "{read}"
    );
    assert_eq!(read["result"]["cacheScope"], "private");
    let missing = site.uri("none.txt");
    let gone = lines.ask("resources/read", json!({"uri":missing})).await;
    assert_eq!(
        (
            gone["error"]["code"].as_i64(),
            gone["error"]["data"]["uri"].as_str()
        ),
        (Some(-32602), Some(missing.as_str()))
    );
    let templates = lines.ask("resources/templates/list", json!({})).await;
    let template = templates["result"]["resourceTemplates"][0]["uriTemplate"]
        .as_str()
        .unwrap()
        .to_owned();
    let completed = lines
        .ask("completion/complete", json!({"ref":{"type":"ref/resource","uri":template},"argument":{"name":"path","value":"he"}}))
        .await;
    assert_eq!(
        completed["result"]["completion"]["values"],
        json!(["hello.txt"]),
        "{completed}"
    );
    let prompts = lines.ask("prompts/list", json!({})).await;
    assert_eq!(names(&prompts, "prompts", "name"), ["prompts__greet"]);
    let prompt = lines
        .ask(
            "prompts/get",
            json!({"name":"prompts__greet","arguments":{"who":"Ann"}}),
        )
        .await;
    assert_eq!(
        prompt["result"]["messages"][0]["content"]["text"], "Say hello to Ann",
        "{prompt}"
    );
    let lacking = lines
        .ask("prompts/get", json!({"name":"prompts__greet"}))
        .await;
    assert_eq!(lacking["error"]["code"], -32602);
    assert!(
        lacking["error"]["message"]
            .as_str()
            .unwrap()
            .contains("who")
    );
    served.stop().await;
}

#[tokio::test]
async fn limits_answer_inside_the_protocol() {
    let site = Site::with("[limits]\ncalls_per_second = 1\ncall_burst = 2\n").await;
    let (served, mut lines) = open(&site).await;
    let whoami = json!({"name":"self__whoami"});
    for _ in 0..2 {
        let answer = lines.ask("tools/call", whoami.clone()).await;
        assert!(answer["result"]["isError"].is_null(), "{answer}");
    }
    let limited = lines.ask("tools/call", whoami).await;
    assert_eq!(limited["result"]["isError"], true);
    let error = &limited["result"]["structuredContent"]["error"];
    assert_eq!(
        (&error["code"], &error["retryable"]),
        (&json!("RATE_LIMITED"), &json!(true))
    );
    assert!(error["retryAfterMs"].as_u64().unwrap() > 0);
    let reference = json!({"type":"ref/prompt","name":"prompts__greet"});
    let params = json!({"ref":reference,"argument":{"name":"who","value":""}});
    assert_eq!(
        lines.ask("completion/complete", params).await["error"]["code"],
        4429
    );
    // What is not a call is not counted.
    assert!(lines.ask("tools/list", json!({})).await["result"].is_object());
    served.stop().await;
}
