mod crash;
mod outage;
mod rotation;

use std::path::Path;
use std::sync::atomic::Ordering;

use serde_json::json;

use super::super::fixture::{
    Call, agreed, assert_intact, deny, facts, peer, permit, permit_tool, records,
};
use super::*;
use crate::identity::Fingerprint;

fn open(path: &Path) -> AuditLog {
    AuditLog::open(AuditOptions::new(path)).unwrap().0
}

/// One call as a session makes it; the outcome is left to the caller.
async fn call(log: &AuditLog, facts: &ConnectionFacts, id: u64) -> Result<Ticket, AuditError> {
    let pending = log.permitted(facts, permit_tool(id));
    let written = log.commit(pending.ticket()).await?;
    let recorded = log.recorded(pending, &written)?;
    assert_eq!(recorded.get().call().id, id.to_string());
    Ok(recorded.into_parts().1)
}

async fn until_written(log: &AuditLog, seq: u64) {
    let waits = async {
        while log.written() < seq {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waits)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_call_is_in_the_file_before_it_runs_and_its_outcome_after() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let log = open(&path);
    let facts = facts(7);
    let ticket = call(&log, &facts, 41).await.unwrap();
    let decision = records(&path).pop().unwrap();
    assert_eq!(decision["event"], "decision");
    let long = Duration::from_micros(1234);
    let since = clock::monotonic().checked_sub(long).unwrap();
    let end = log.outcome(&facts, ticket, Outcome::ProtocolError(-32602), Some(since));
    let took = end.duration_since(since);
    assert!(took >= long && end <= clock::monotonic());
    until_written(&log, 3).await;
    let all = records(&path);
    assert_eq!(all.len(), 3);
    assert_eq!(all[0]["event"], "log_started");
    assert_eq!(all[0]["prev"], "0".repeat(64));
    let digest = hex::encode(ring::digest::digest(
        &ring::digest::SHA256,
        b"{\"path\":\"a\"}",
    ));
    let mut expected = json!({
        "seq": 2, "event": "decision", "identity": "spiffe://countersign.internal/reader",
        "fingerprint": Fingerprint::of_der(b"reader").to_string(), "connection": 7,
        "source": "127.0.0.1:4433", "transport": "raw", "method": "tools/call",
        "target": "files__read_file", "allowed": true, "revision": "2026-07-28", "request": 41,
        "arguments_sha256": digest,
    });
    expected["prev"] = all[1]["prev"].clone();
    expected["time"] = all[1]["time"].clone();
    assert_eq!(all[1], expected);
    let mut expected = json!({
        "seq": 3, "event": "outcome", "decision": 2, "connection": 7,
        "outcome": "protocol_error", "code": -32602, "duration_us": u64::try_from(took.as_micros()).unwrap(),
    });
    expected["prev"] = all[2]["prev"].clone();
    expected["time"] = all[2]["time"].clone();
    assert_eq!(all[2], expected);
    assert_intact(&[&path]);
    assert!(log.healthy());
}

#[tokio::test]
async fn a_denial_says_by_what_and_which_grant_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let log = open(&path);
    let denied = deny("summary", 1);
    let ticket = log.denied(&facts(1), &denied);
    log.commit(ticket).await.unwrap();
    let record = records(&path).pop().unwrap();
    assert_eq!(record["allowed"], false);
    assert_eq!(record["by"], denied.by);
    assert_eq!(record["missing"], "prompts:summary");
}

#[tokio::test]
async fn every_event_is_one_whole_record() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let log = open(&path);
    let facts = facts(1);
    let print = Fingerprint::of_der(b"x");
    let address = "[::1]:1".parse().unwrap();
    let lasted = Duration::from_secs(1);
    for event in [
        Event::ServerStarted {
            version: "1",
            listen: "127.0.0.1:8443",
        },
        Event::Admitted {
            facts: &facts,
            agreed: agreed(),
        },
        Event::Refused {
            address,
            reason: "expired",
            class: "expired",
            name: Some("a\nb"),
            fingerprint: Some(print),
        },
        Event::Refused {
            address,
            reason: "no certificate",
            class: "none",
            name: None,
            fingerprint: None,
        },
        Event::Closed {
            facts: &facts,
            reason: "revoked",
            lasted,
        },
        Event::RegistryChanged {
            seq: 4,
            kind: "revoked",
            fingerprint: print,
            revocation: Some(crate::audit::Revoked {
                name: "spiffe://example.org/a",
                by: "ops@host",
                reason: "key_compromise",
                at: clock::UnixTime(1),
            }),
        },
        Event::Reloaded {
            what: "configuration",
            error: Some("line 3"),
        },
        Event::Reloaded {
            what: "crl",
            error: None,
        },
        Event::ServerStopped { reason: "signal" },
    ] {
        log.event(event).await.unwrap();
    }
    let events: Vec<String> = records(&path)
        .iter()
        .map(|r| r["event"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        events[1..],
        [
            "server_started",
            "admitted",
            "refused",
            "refused",
            "closed",
            "registry_changed",
            "reloaded",
            "reloaded",
            "server_stopped"
        ]
    );
    assert_eq!(records(&path)[2]["anchor"], "own");
    assert_eq!(records(&path)[3]["claimed_identity"], "a\nb");
    assert_intact(&[&path]);
}

#[tokio::test]
async fn what_a_peer_sends_cannot_forge_a_record() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let mut options = AuditOptions::new(&path);
    options.arguments = true;
    let (log, _) = AuditLog::open(options).unwrap();
    let targets = [
        "a\",\"allowed\":false,\"x\":\"",
        "a\nb\r\n",
        "\u{2028}\u{2029}\u{85}\u{1b}[2J",
        "\\",
        "\\\"",
        "\0\u{1f}\u{7f}",
        "\u{202e}txt",
        "😀ä",
        &"x".repeat(100_000),
    ];
    let ids = [
        "1",
        "\"a\"",
        "\"\\u0000\\\"\"",
        "-0.5e10",
        "1}\n{",
        "\"\u{2028}\"",
    ];
    let arguments = [
        &b"{\n \"a\": [1,\r\n2]}"[..],
        b"{}",
        b"{\"a\":",
        b"\xff\xfe",
        b"{}\n{\"seq\":1}",
    ];
    let facts = facts(1);
    for (n, target) in targets.iter().enumerate() {
        let mut asked = Call::tool(target, 0);
        asked.id = ids[n % ids.len()].to_owned();
        asked.arguments = Some(arguments[n % arguments.len()].to_vec());
        let pending = log.permitted(&facts, permit(asked));
        log.commit(pending.ticket()).await.unwrap();
    }
    let all = records(&path);
    assert_eq!(all.len(), targets.len() + 1);
    for (record, target) in all[1..].iter().zip(targets) {
        let shown = record["target"].as_str().unwrap();
        assert!(
            target.starts_with(shown)
                && (shown == target || record["target_length"] == target.len())
        );
        assert_eq!(record["allowed"], true);
    }
    assert_eq!(all[1]["arguments"], json!({"a": [1, 2]}));
    let line = std::fs::read_to_string(&path).unwrap();
    assert!(line.bytes().all(|b| b >= 0x20 || b == b'\n'));
    assert_intact(&[&path]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_that_come_together_are_written_together_and_each_once() {
    const TASKS: u64 = 64;
    const CALLS: u64 = 100;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let log = open(&path);
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let log = log.clone();
        tasks.spawn(async move {
            let facts = facts(task);
            for n in 0..CALLS {
                let ticket = call(&log, &facts, task * CALLS + n).await.unwrap();
                log.outcome(&facts, ticket, Outcome::Ok, None);
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    log.close().unwrap();
    let report = assert_intact(&[&path]);
    assert_eq!(report.records, 2 * TASKS * CALLS + 1);
    assert!(log.writes() < TASKS * CALLS / 2, "{} writes", log.writes());
    let mut asked = std::collections::BTreeMap::new();
    let mut ended = std::collections::BTreeSet::new();
    for record in records(&path) {
        match record["event"].as_str().unwrap() {
            "decision" => {
                let (id, seq) = (
                    record["request"].as_u64().unwrap(),
                    record["seq"].as_u64().unwrap(),
                );
                assert_eq!(record["connection"].as_u64().unwrap(), id / CALLS);
                assert!(asked.insert(id, seq).is_none());
            }
            "outcome" => assert!(ended.insert(record["decision"].as_u64().unwrap())),
            _ => {}
        }
    }
    assert_eq!(asked.len() as u64, TASKS * CALLS);
    assert_eq!(ended, asked.into_values().collect());
}

#[tokio::test]
async fn many_calls_of_one_connection_need_one_commit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let log = open(&path);
    let facts = facts(1);
    let pending: Vec<_> = (0..50)
        .map(|id| log.permitted(&facts, permit_tool(id)))
        .collect();
    let early = log.commit(pending[0].ticket()).await.unwrap();
    let last = pending.iter().map(Pending::ticket).max().unwrap();
    let written = log.commit(last).await.unwrap();
    assert_eq!(written.upto(), last);
    assert_eq!(log.writes(), 1);
    for pending in pending {
        log.recorded(pending, &written).unwrap();
    }
    // The proof of an earlier place says nothing of a later one.
    let later = log.permitted(&facts, permit_tool(99));
    assert_eq!(
        log.recorded(later, &early).unwrap_err(),
        AuditError::NotWritten
    );
}

#[tokio::test]
async fn a_proof_of_another_log_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (open(&dir.path().join("1")), open(&dir.path().join("2")));
    let facts = facts(1);
    for id in 0..10 {
        call(&two, &facts, id).await.unwrap();
    }
    let pending = two.permitted(&facts, permit_tool(1));
    let written = two.commit(pending.ticket()).await.unwrap();
    two.recorded(pending, &written).unwrap();
    let pending = one.permitted(&facts, permit_tool(1));
    assert_eq!(
        one.recorded(pending, &written).unwrap_err(),
        AuditError::NotWritten
    );
}

#[test]
fn without_a_runtime_close_and_the_last_clone_write() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let log = open(&path);
    let facts = facts(1);
    log.denied(&facts, &deny("a", 1));
    log.close().unwrap();
    assert_eq!(records(&path).len(), 2);
    log.denied(&facts, &deny("b", 2));
    let clone = log.clone();
    drop(log);
    assert_eq!(records(&path).len(), 2);
    drop(clone);
    assert_eq!(records(&path).len(), 3);
    assert_intact(&[&path]);
}

#[test]
fn a_large_group_does_not_wait() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let log = open(&path);
    let facts = facts(1);
    for id in 0..5000 {
        log.denied(&facts, &deny("a", id));
    }
    assert!(log.writes() >= 1);
    assert!(std::fs::metadata(&path).unwrap().len() > 1 << 20);
}

#[test]
fn a_runtime_that_ends_does_not_take_the_records_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let log = open(&path);
    let facts = facts(1);
    for id in 0..3 {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async { log.denied(&facts, &deny("a", id)) });
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        log.denied(&facts, &deny("a", 4));
        until_written(&log, 5).await;
    });
    assert_eq!(records(&path).len(), 5);
}

#[tokio::test]
async fn the_disk_gets_it_within_a_second_when_asked_to() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = AuditOptions::new(dir.path().join("audit.jsonl"));
    options.sync = SyncMode::EverySecond;
    let (log, _) = AuditLog::open(options).unwrap();
    call(&log, &facts(1), 1).await.unwrap();
    assert!(log.0.sync_due.load(Ordering::Relaxed));
    let waits = async {
        while log.0.sync_due.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waits)
        .await
        .unwrap();
    assert!(log.healthy());
    log.0.synced(Err(String::from("input/output error")));
    assert!(!log.healthy());
    log.0.synced(Ok(()));
    assert!(log.healthy());
}

#[test]
fn files_are_for_the_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let log = open(&path);
    log.denied(&facts(1), &deny("a", 1));
    log.close().unwrap();
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let _ = peer();
}
