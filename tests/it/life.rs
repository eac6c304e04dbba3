//! What lives as long as a connection: calls in flight, cancellation, progress, subscriptions, and
//! what becomes of all of them when the peer may no longer stay.

use std::sync::Arc;
use std::time::Duration;

use countersign::backend::{
    Answer, Arguments, Context, Failure, Provider, Schema, Tool, ToolResult,
};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::sync::Notify;

use crate::support::pki::PATIENCE;
use crate::support::program::Program;
use crate::support::served::{Lines, Served, Site, modern};

/// Tools that wait until the test lets them go on.
#[derive(Default)]
struct Patient {
    started: Arc<Notify>,
    go_on: Arc<Notify>,
    given_up: Arc<Notify>,
}

/// Says when the call it belongs to is dropped before it is done.
struct Dropped(Option<Arc<Notify>>);

impl Dropped {
    fn disarm(&mut self) {
        self.0 = None;
    }
}

impl Drop for Dropped {
    fn drop(&mut self) {
        if let Some(given_up) = &self.0 {
            given_up.notify_one();
        }
    }
}

impl Provider for Patient {
    fn tools(&self) -> Vec<Tool> {
        vec![Tool::new("wait", "waits", Arc::new(Schema::empty()))]
    }

    fn call_tool(&self, context: Context, _: &str, _: Arguments) -> Answer<ToolResult> {
        let (started, go_on) = (Arc::clone(&self.started), Arc::clone(&self.go_on));
        let mut dropped = Dropped(Some(Arc::clone(&self.given_up)));
        Answer::later(async move {
            context.progress(1.0, Some(2.0), Some("half way".into()));
            started.notify_one();
            go_on.notified().await;
            context.progress(2.0, Some(2.0), None);
            dropped.disarm();
            Ok::<_, Failure>(ToolResult::text("done"))
        })
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("in time")
}

/// Connects once the server has heard of the certificate.
async fn enter(site: &Site, served: &Served, name: &str, grants: &[&str]) -> Lines {
    let certified = site.enrol(name, grants).await;
    site.reach(served, &certified).await
}

async fn patient_site(extra: &str) -> (Site, Served, Arc<Patient>) {
    let site = Site::with(extra).await;
    let patient = Arc::new(Patient::default());
    let provider = Arc::clone(&patient) as Arc<dyn Provider>;
    let served = site.serve_with(vec![("slow".into(), provider)]).await;
    (site, served, patient)
}

fn wait_call(id: u64) -> Value {
    modern(
        id,
        "tools/call",
        json!({"name":"slow__wait","_meta":{"progressToken":format!("t{id}")}}),
    )
}

#[tokio::test]
async fn progress_comes_before_the_answer_and_carries_the_token() {
    let (site, served, patient) = patient_site("").await;
    let mut lines = enter(&site, &served, "operator", &["*"]).await;
    lines.send(&wait_call(100)).await;
    let half = lines.receive().await;
    assert_eq!(half["method"], "notifications/progress");
    assert_eq!(
        half["params"],
        json!({"progressToken":"t100","progress":1,"total":2,"message":"half way"})
    );
    // Another request is answered while the first one runs.
    assert!(lines.ask("tools/list", json!({})).await["result"].is_object());
    patient.go_on.notify_one();
    assert_eq!(lines.receive().await["params"]["progress"], 2);
    assert_eq!(
        lines.receive().await["result"]["content"][0]["text"],
        "done"
    );
    served.stop().await;
}

#[tokio::test]
async fn a_cancelled_call_is_dropped_and_not_answered() {
    let (site, served, patient) = patient_site("").await;
    let mut lines = enter(&site, &served, "operator", &["*"]).await;
    lines.send(&wait_call(1)).await;
    within(patient.started.notified()).await;
    lines.receive().await;
    // Somebody else's id, and one that nobody has, cancel nothing.
    lines
        .notify("notifications/cancelled", json!({"requestId":"1"}))
        .await;
    lines
        .notify("notifications/cancelled", json!({"requestId":77}))
        .await;
    lines
        .notify(
            "notifications/cancelled",
            json!({"requestId":1,"reason":"enough"}),
        )
        .await;
    within(patient.given_up.notified()).await;
    let next = lines
        .ask("tools/call", json!({"name":"self__whoami"}))
        .await;
    assert!(next["result"].is_object());
    let outcomes: Vec<_> = site
        .audit()
        .into_iter()
        .filter(|r| r["outcome"] == "cancelled")
        .collect();
    served.stop().await;
    let after = site
        .audit()
        .into_iter()
        .filter(|r| r["outcome"] == "cancelled")
        .count();
    assert!(outcomes.len() <= 1 && after == 1);
}

#[tokio::test]
async fn calls_beyond_the_limit_wait_and_can_be_cancelled_while_they_wait() {
    let (site, served, patient) =
        patient_site("[limits]\nin_flight_per_connection = 2\nin_flight_per_identity = 4\n").await;
    let mut lines = enter(&site, &served, "operator", &["*"]).await;
    for id in 1..=3 {
        lines.send(&wait_call(id)).await;
    }
    within(patient.started.notified()).await;
    lines
        .notify("notifications/cancelled", json!({"requestId":3}))
        .await;
    lines
        .notify("notifications/cancelled", json!({"requestId":1}))
        .await;
    lines
        .notify("notifications/cancelled", json!({"requestId":2}))
        .await;
    within(patient.given_up.notified()).await;
    // All three are gone: nothing of them is answered, and there is room again.
    let answer = lines
        .ask("tools/call", json!({"name":"self__whoami"}))
        .await;
    assert!(answer["result"].is_object());
    served.stop().await;
    let decided = site
        .audit()
        .iter()
        .filter(|r| r["target"] == "slow__wait")
        .count();
    assert_eq!(decided, 2, "the third was never decided on");
}

#[tokio::test]
async fn an_identity_has_so_many_calls_over_all_its_connections() {
    let (site, served, patient) =
        patient_site("[limits]\nin_flight_per_connection = 1\nin_flight_per_identity = 1\n").await;
    let certified = site.enrol("operator", &["*"]).await;
    let mut one = site.reach(&served, &certified).await;
    let mut two = site.reach(&served, &certified).await;
    one.send(&wait_call(1)).await;
    within(patient.started.notified()).await;
    let refused = two.ask("tools/call", json!({"name":"slow__wait"})).await;
    assert_eq!(
        refused["result"]["structuredContent"]["error"]["code"], "RATE_LIMITED",
        "{refused}"
    );
    patient.go_on.notify_one();
    assert!(one.answer(&json!(1)).await["result"].is_object());
    served.stop().await;
}

#[tokio::test]
async fn a_denied_thing_looks_like_one_that_does_not_exist() {
    let site = Site::new().await;
    let served = site.serve().await;
    let hello = site.uri("hello.txt");
    let grants = [
        "tools:self__whoami",
        &format!("resources:{}", site.uri("deep/*")),
    ];
    let mut lines = enter(&site, &served, "reader", &grants).await;
    let listed = lines.ask("tools/list", json!({})).await;
    let tools: Vec<_> = listed["result"]["tools"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["name"].clone())
        .collect();
    assert_eq!(tools, ["self__whoami"]);
    let cases = [
        (
            "tools/call",
            json!({"name":"files__read_file","arguments":{"path":"hello.txt"}}),
            json!({"name":"files__read_filX","arguments":{"path":"hello.txt"}}),
        ),
        (
            "resources/read",
            json!({"uri":hello}),
            json!({"uri":hello.replace("hello.txt","hellX.txt")}),
        ),
        (
            "prompts/get",
            json!({"name":"prompts__greet"}),
            json!({"name":"prompts__greeX"}),
        ),
        (
            "completion/complete",
            json!({"ref":{"type":"ref/prompt","name":"prompts__greet"},"argument":{"name":"who","value":""}}),
            json!({"ref":{"type":"ref/prompt","name":"prompts__greeX"},"argument":{"name":"who","value":""}}),
        ),
    ];
    for (method, denied, missing) in cases {
        let denied = lines.ask(method, denied).await["error"].to_string();
        let missing = lines.ask(method, missing).await["error"].to_string();
        let same = missing
            .replace("filX", "file")
            .replace("hellX", "hello")
            .replace("greeX", "greet");
        assert_eq!(denied, same, "{method}");
    }
    let allowed = lines
        .ask("resources/read", json!({"uri":site.uri("deep/more.txt")}))
        .await;
    assert!(allowed["result"].is_object(), "{allowed}");
    served.stop().await;
    let denials: Vec<_> = site
        .audit()
        .into_iter()
        .filter(|r| r["allowed"] == json!(false))
        .collect();
    assert_eq!(denials.len(), 8);
    assert!(
        denials
            .iter()
            .all(|r| r["by"].as_str().unwrap().contains("reader")),
        "{denials:?}"
    );
}

#[tokio::test]
async fn denials_are_explained_where_the_operator_says_so() {
    let site = Site::with("[policy]\ndenials = \"explain\"\n[[policy.rule]]\nname = \"no deletes\"\nwho = [\"*\"]\ndeny = [\"tools:files__delete_*\"]\n").await;
    let served = site.serve().await;
    let mut lines = enter(&site, &served, "reader", &["tools:*"]).await;
    let call = |name: &str| json!({"name":name,"arguments":{"path":"hello.txt"}});
    assert!(lines.ask("tools/call", call("files__read_file")).await["result"].is_object());
    let read = lines
        .ask("resources/read", json!({"uri":site.uri("hello.txt")}))
        .await;
    assert_eq!(read["error"]["code"], 4403);
    assert!(
        read["error"]["data"]["missing"]
            .as_str()
            .unwrap()
            .starts_with("resources:file:///")
    );
    let deleted = lines.ask("tools/call", call("files__delete_file")).await;
    assert!(deleted["error"].is_object(), "{deleted}");
    assert!(site.path().join("docs/hello.txt").exists());
    served.stop().await;
    let rule = site
        .audit()
        .into_iter()
        .find(|r| r["target"] == "files__delete_file")
        .unwrap();
    assert_eq!(
        (&rule["allowed"], &rule["by"]),
        (&json!(false), &json!("rule `no deletes`"))
    );
}

#[tokio::test]
async fn server_status_needs_a_grant_of_its_own() {
    let site = Site::new().await;
    let served = site.serve().await;
    let mut reader = enter(&site, &served, "reader", &["tools:*"]).await;
    let mut admin = enter(&site, &served, "admin", &["tools:*", "admin:status"]).await;
    let status = json!({"name":"self__server_status"});
    let answer = admin.ask("tools/call", status.clone()).await;
    assert_eq!(
        answer["result"]["structuredContent"]["connections"]["live"], 2,
        "{answer}"
    );
    assert_eq!(
        reader.ask("tools/call", status).await["error"]["code"],
        -32602
    );
    let listed = reader.ask("tools/list", json!({})).await.to_string();
    assert!(!listed.contains("server_status") && listed.contains("whoami"));
    served.stop().await;
}

#[tokio::test]
async fn a_legacy_subscription_hears_of_a_changed_file() {
    let site = Site::new().await;
    let served = site.serve().await;
    let mut lines = enter(&site, &served, "operator", &["*"]).await;
    lines.initialize("2025-11-25").await;
    let uri = site.uri("hello.txt");
    let answer = lines
        .ask_bare("resources/subscribe", json!({"uri":uri}))
        .await;
    assert_eq!(answer["result"], json!({}), "{answer}");
    std::fs::write(site.path().join("docs/hello.txt"), "changed").unwrap();
    let updated = lines.receive().await;
    assert_eq!(
        (&updated["method"], &updated["params"]),
        (
            &json!("notifications/resources/updated"),
            &json!({"uri":uri})
        )
    );
    assert_eq!(
        lines
            .ask_bare("resources/unsubscribe", json!({"uri":uri}))
            .await["result"],
        json!({})
    );
    served.stop().await;
}

#[tokio::test]
async fn a_stream_of_the_modern_era_is_acknowledged_filtered_and_ended() {
    let site = Site::new().await;
    let served = site.serve().await;
    let (mine, other) = (site.uri("hello.txt"), site.uri("deep/more.txt"));
    let grants = [format!("resources:{mine}")];
    let grants: Vec<_> = grants.iter().map(String::as_str).collect();
    let mut lines = enter(&site, &served, "reader", &grants).await;
    let wanted = json!({"toolsListChanged":true,"resourceSubscriptions":[mine, other]});
    lines
        .send(&modern(
            5,
            "subscriptions/listen",
            json!({"notifications":wanted}),
        ))
        .await;
    let acknowledged = lines.receive().await;
    let meta = json!({"io.modelcontextprotocol/subscriptionId":5});
    assert_eq!(
        acknowledged["method"],
        "notifications/subscriptions/acknowledged"
    );
    assert_eq!(
        acknowledged["params"],
        json!({"_meta":meta,"notifications":{"toolsListChanged":true,"resourceSubscriptions":[mine]}})
    );
    std::fs::write(site.path().join("docs/deep/more.txt"), "unheard").unwrap();
    std::fs::write(site.path().join("docs/hello.txt"), "heard").unwrap();
    let updated = lines.receive().await;
    assert_eq!(updated["params"], json!({"_meta":meta,"uri":mine}));
    let refused = site
        .audit()
        .into_iter()
        .find(|r| r["allowed"] == json!(false))
        .unwrap();
    assert_eq!(
        (&refused["method"], &refused["target"]),
        (&json!("subscriptions/listen"), &json!(other))
    );
    // A server that stops ends the stream with its result.
    let stopping = tokio::spawn(served.stop());
    let end = loop {
        let message = lines.receive().await;
        if message["id"] == 5 {
            break message;
        }
    };
    assert_eq!(end["result"], json!({"resultType":"complete","_meta":meta}));
    lines.ended().await;
    within(stopping).await.unwrap();
}

#[tokio::test]
async fn a_revocation_closes_its_own_connections_and_no_other() {
    let (site, served, patient) = patient_site("").await;
    let agent = site.enrol("agent", &["*"]).await;
    let mut doomed = site.reach(&served, &agent).await;
    let mut bystander = enter(&site, &served, "bystander", &["*"]).await;
    doomed.send(&wait_call(1)).await;
    within(patient.started.notified()).await;
    let confirmed = site.revoke(&agent).await;
    assert!(
        confirmed.is_complete() && confirmed.live.len() == 1,
        "{confirmed:?}"
    );
    within(doomed.ended()).await;
    within(patient.given_up.notified()).await;
    assert!(
        bystander
            .ask("tools/call", json!({"name":"self__whoami"}))
            .await["result"]
            .is_object()
    );
    // A new handshake is refused from here on.
    let again = site.try_connect(&served, &agent).await;
    if let Ok(mut lines) = again {
        lines.send(&modern(1, "server/discover", json!({}))).await;
        assert!(lines.line().await.is_none());
    }
    served.stop().await;
    let records = site.audit();
    assert!(
        records
            .iter()
            .any(|r| r["event"] == "closed" && r["reason"] == "revoked")
    );
    assert!(
        records
            .iter()
            .any(|r| r["event"] == "registry_changed" && r["kind"] == "revoked")
    );
    assert!(records.iter().any(|r| r["outcome"] == "connection_closed"));
    assert!(records.iter().any(|r| r["event"] == "refused"));
}

#[tokio::test]
async fn a_changed_pin_holds_from_the_next_request_and_lists_are_told() {
    let site = Site::new().await;
    let served = site.serve().await;
    let certified = site.issuing.sign(crate::support::pki::client("pinned"));
    site.record("pinned", &certified, Some(&["tools:self__*"]))
        .await;
    let mut lines = site.reach(&served, &certified).await;
    lines.initialize("2025-11-25").await;
    let whoami = json!({"name":"self__whoami"});
    let read = json!({"name":"files__read_file","arguments":{"path":"hello.txt"}});
    assert!(lines.ask_bare("tools/call", whoami.clone()).await["result"].is_object());
    assert!(lines.ask_bare("tools/call", read.clone()).await["error"].is_object());
    let grants = countersign::grant::WrittenGrants::parse(&["tools:files__*"]).unwrap();
    let seq = site
        .store
        .set_grants(certified.fingerprint(), Some(&grants))
        .await
        .unwrap();
    assert!(
        site.store
            .confirmed(seq, PATIENCE)
            .await
            .unwrap()
            .is_complete()
    );
    // The client is told unasked that its list is another one now.
    assert_eq!(
        lines.receive().await["method"],
        "notifications/tools/list_changed"
    );
    assert!(lines.ask_bare("tools/call", whoami).await["error"].is_object());
    assert!(lines.ask_bare("tools/call", read).await["result"].is_object());
    let seq = site
        .store
        .set_pinned(certified.fingerprint(), false)
        .await
        .unwrap();
    assert!(
        site.store
            .confirmed(seq, PATIENCE)
            .await
            .unwrap()
            .is_complete()
    );
    within(lines.ended()).await;
    served.stop().await;
}

#[tokio::test]
async fn a_connection_ends_with_its_certificate() {
    let site = Site::new().await;
    let served = site.serve().await;
    let mut params = crate::support::pki::client("brief");
    params.custom_extensions = vec![crate::support::pki::permissions(&["*"])];
    params.not_after = crate::support::pki::at(4);
    let certified = site.issuing.sign(params);
    site.record("brief", &certified, None).await;
    let mut lines = site.reach(&served, &certified).await;
    assert!(
        lines
            .ask("tools/call", json!({"name":"self__whoami"}))
            .await["result"]
            .is_object()
    );
    within(lines.ended()).await;
    served.stop().await;
    let closed = site
        .audit()
        .into_iter()
        .find(|r| r["event"] == "closed" && r["reason"] == "expired");
    assert!(closed.is_some());
}

#[tokio::test]
async fn a_server_that_stops_lets_calls_finish() {
    let (site, served, patient) = patient_site("").await;
    let mut lines = enter(&site, &served, "operator", &["*"]).await;
    lines.send(&wait_call(1)).await;
    within(patient.started.notified()).await;
    let stopping = tokio::spawn(served.stop());
    tokio::time::sleep(Duration::from_millis(50)).await;
    patient.go_on.notify_one();
    assert_eq!(
        lines.answer(&json!(1)).await["result"]["content"][0]["text"],
        "done"
    );
    lines.ended().await;
    within(stopping).await.unwrap();
}

#[tokio::test]
async fn a_reader_that_does_not_read_holds_up_nobody_and_is_gone_in_time() {
    let site = Site::with("[limits]\nwrite_timeout = \"1s\"\n").await;
    std::fs::write(site.path().join("docs/big.txt"), "x".repeat(900_000)).unwrap();
    let served = site.serve().await;
    let mut stuck = enter(&site, &served, "stuck", &["*"]).await;
    let mut other = enter(&site, &served, "other", &["*"]).await;
    let read = json!({"name":"files__read_file","arguments":{"path":"big.txt"}});
    for id in 1..=64 {
        stuck.send(&modern(id, "tools/call", read.clone())).await;
    }
    assert!(
        other
            .ask("tools/call", json!({"name":"self__whoami"}))
            .await["result"]
            .is_object()
    );
    // The server gives up on it although it never closes.
    loop {
        if site
            .audit()
            .iter()
            .any(|r| r["event"] == "closed" && r["reason"] == "answers left unread")
        {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(
        other
            .ask("tools/call", json!({"name":"self__whoami"}))
            .await["result"]
            .is_object()
    );
    served.stop().await;
}

#[tokio::test]
async fn the_policy_is_reloaded_from_the_changed_file_and_a_broken_one_is_not() {
    let mut site = Site::new().await;
    let served = site.serve().await;
    let mut lines = enter(&site, &served, "operator", &["*"]).await;
    let whoami = json!({"name":"self__whoami"});
    assert!(lines.ask("tools/call", whoami.clone()).await["result"].is_object());
    let file = site.path().join("countersign.toml");
    std::fs::write(&file, "this is no configuration").unwrap();
    wait_for(&site, |r| {
        r["event"] == "reloaded" && r["error"].is_string()
    })
    .await;
    assert!(lines.ask("tools/call", whoami.clone()).await["result"].is_object());
    site.extra =
        "[[policy.rule]]\nname = \"r\"\nwho = [\"*\"]\ndeny = [\"tools:self__*\"]\n".into();
    std::fs::write(&file, site.config_text()).unwrap();
    wait_for(&site, |r| {
        r["event"] == "reloaded" && r["what"] == "policy and limits"
    })
    .await;
    assert!(lines.ask("tools/call", whoami).await["error"].is_object());
    served.stop().await;
}

/// A change that is taken up says nothing of a restart; of those that are not, each is named. The first
/// one comes while the server is still starting, and is not missed.
#[tokio::test]
async fn what_takes_a_restart_is_told() {
    let mut program = Program::start(|_| ()).await;
    let mut said = BufReader::new(program.child.stderr.take().unwrap()).lines();
    let file = program.folder.path().join("countersign.toml");
    let before = std::fs::read_to_string(&file).unwrap();
    let rule = "\n[[policy.rule]]\nname = \"r\"\nwho = [\"*\"]\ndeny = [\"tools:self__*\"]\n";
    std::fs::write(&file, format!("{before}{rule}")).unwrap();
    let reloaded =
        |record: &Value| record["event"] == "reloaded" && record["what"] == "policy and limits";
    program.recorded_times(1, reloaded).await;
    let after = before
        .replace("[tls]", "[tls]\nprofile = \"compatible\"")
        .replace("[audit]", "[audit]\narguments = true");
    std::fs::write(&file, after).unwrap();
    program.recorded_times(2, reloaded).await;
    // The first that is said of a restart: the change before has said nothing of it.
    let told = loop {
        let line = within(said.next_line()).await.unwrap().unwrap();
        if line.contains("restart") {
            break line;
        }
    };
    assert!(told.ends_with(": tls.profile, audit"), "{told}");
}

async fn wait_for(site: &Site, found: impl Fn(&Value) -> bool) {
    within(async {
        while !site.audit().iter().any(&found) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}
