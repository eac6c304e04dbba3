//! The operating system refuses.

use super::super::super::chain::FIRST;
use super::super::super::files::appending;
use super::super::super::fixture::Disk;
use super::super::super::gather::KEPT_MAX;
use super::super::super::writer::LogFile;
use super::*;

/// A log on a disk in memory that tries again at once, so that a test need not wait.
fn over(disk: &Disk, rotate_bytes: u64) -> AuditLog {
    pausing(disk, rotate_bytes, Duration::ZERO)
}

fn pausing(disk: &Disk, rotate_bytes: u64, retry_after: Duration) -> AuditLog {
    let options = AuditOptions::new("audit.jsonl");
    let gather = Gather::new(0, FIRST, 0, rotate_bytes);
    AuditLog::over(
        Box::new(disk.clone()),
        gather,
        0,
        &options,
        None,
        retry_after,
    )
}

fn kinds(records: &[serde_json::Value]) -> Vec<&str> {
    records
        .iter()
        .map(|r| r["event"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn a_full_disk_refuses_calls_keeps_outcomes_and_ends_by_itself() {
    let disk = Disk::default();
    let log = over(&disk, 0);
    let facts = facts(1);
    let running = call(&log, &facts, 1).await.unwrap();
    for room in [0, 1, 700, 1100] {
        disk.state().room = Some(room);
        log.outcome(&facts, running, Outcome::Ok, None);
        let error = call(&log, &facts, 2).await.unwrap_err();
        assert!(matches!(error, AuditError::Unwritable { .. }), "{error}");
        assert!(!log.healthy());
        assert_eq!(disk.intact().len(), 2, "half a group stands at {room}");
    }
    let denied = log.denied(&facts, &deny("later", 3));
    assert!(log.commit(denied).await.is_err());
    let admitted = Event::Admitted {
        facts: &facts,
        agreed: agreed(),
    };
    assert!(log.event(admitted).await.is_err());
    assert!(log.close().is_err());
    disk.state().room = None;
    let ticket = call(&log, &facts, 4).await.unwrap();
    log.outcome(&facts, ticket, Outcome::Ok, None);
    log.close().unwrap();
    assert!(log.healthy());
    let all = disk.intact();
    assert_eq!(
        kinds(&all),
        [
            "log_started",
            "decision",
            "outcome",
            "outcome",
            "outcome",
            "outcome",
            "decision",
            "decision",
            "log_recovered",
            "outcome"
        ]
    );
    assert_eq!(all[6]["target"], "later");
    assert_eq!(all[7]["request"], 4);
    assert_eq!(all[8]["refused_calls"], 4);
    assert_eq!(all[8]["lost_records"], 0);
    assert_eq!(all[9]["decision"], all[7]["seq"]);
}

#[tokio::test]
async fn kept_outcomes_go_out_without_another_call() {
    let disk = Disk::default();
    let log = over(&disk, 0);
    let facts = facts(1);
    let running = call(&log, &facts, 1).await.unwrap();
    disk.state().room = Some(10);
    log.outcome(&facts, running, Outcome::Ok, None);
    let waits = async {
        while log.healthy() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waits)
        .await
        .unwrap();
    disk.state().room = None;
    until_written(&log, 4).await;
    assert_eq!(
        kinds(&disk.intact()),
        ["log_started", "decision", "outcome", "log_recovered"]
    );
    assert!(log.healthy());
}

#[tokio::test]
async fn a_withdrawn_record_is_never_proven_by_a_later_write() {
    let disk = Disk::default();
    let log = over(&disk, 0);
    let facts = facts(1);
    let first = log.permitted(&facts, permit_tool(1));
    let before = log.commit(first.ticket()).await.unwrap();
    let withdrawn = log.permitted(&facts, permit_tool(2));
    disk.state().room = Some(0);
    assert!(log.commit(withdrawn.ticket()).await.is_err());
    disk.state().room = None;
    // The record that is written now has the number that the withdrawn one had.
    let next = log.permitted(&facts, permit_tool(3));
    assert_eq!(next.ticket().seq(), withdrawn.ticket().seq());
    let written = log.commit(next.ticket()).await.unwrap();
    assert!(log.commit(withdrawn.ticket()).await.is_err());
    assert_eq!(
        log.recorded(withdrawn, &written).unwrap_err(),
        AuditError::NotWritten
    );
    log.recorded(next, &written).unwrap();
    // What was written before the outage is proven by either.
    log.recorded(first, &written).unwrap();
    assert!(log.commit(before.upto()).await.is_ok());
}

#[tokio::test]
async fn what_cannot_be_cut_off_breaks_the_log_until_it_can() {
    let disk = Disk::default();
    let log = over(&disk, 0);
    let facts = facts(1);
    call(&log, &facts, 1).await.unwrap();
    disk.state().room = Some(50);
    disk.state().cut_fails = true;
    assert!(matches!(
        call(&log, &facts, 2).await,
        Err(AuditError::Broken { .. })
    ));
    disk.state().room = None;
    let attempts = disk.state().attempts;
    assert!(matches!(
        call(&log, &facts, 3).await,
        Err(AuditError::Broken { .. })
    ));
    assert_eq!(
        disk.state().attempts,
        attempts,
        "something was written behind a torn record"
    );
    disk.state().cut_fails = false;
    call(&log, &facts, 4).await.unwrap();
    assert_eq!(
        kinds(&disk.intact()),
        ["log_started", "decision", "decision"]
    );
}

#[tokio::test]
async fn a_rotation_that_fails_refuses_one_group_and_is_tried_again_later() {
    let disk = Disk::default();
    let log = over(&disk, 1500);
    let facts = facts(1);
    for id in 0..3 {
        call(&log, &facts, id).await.unwrap();
    }
    disk.state().rotate_fails = true;
    assert!(disk.state().rotated.is_empty());
    let mut refused = 0;
    for id in 3..10 {
        refused += u32::from(call(&log, &facts, id).await.is_err());
    }
    assert_eq!(refused, 1);
    assert!(log.healthy());
    disk.state().rotate_fails = false;
    for id in 10..3000 {
        call(&log, &facts, id).await.unwrap();
    }
    assert!(disk.state().rotated.len() > 1);
    disk.intact();
}

#[tokio::test]
async fn a_new_file_that_takes_nothing_still_begins_with_its_first_line() {
    let disk = Disk::default();
    let log = over(&disk, 1500);
    let facts = facts(1);
    for id in 0..3 {
        call(&log, &facts, id).await.unwrap();
    }
    // The old file is full, the new one is begun, and then the disk is.
    disk.state().room = Some(0);
    let kept = log.denied(&facts, &deny("kept", 3));
    assert!(log.commit(kept).await.is_err());
    assert!(call(&log, &facts, 4).await.is_err());
    assert_eq!(disk.state().rotated.len(), 1);
    assert_eq!(disk.state().file.len(), 0);
    disk.state().room = None;
    call(&log, &facts, 5).await.unwrap();
    let all = disk.intact();
    assert_eq!(kinds(&all)[4..], ["log_continued", "decision", "decision"]);
}

#[tokio::test]
async fn an_outage_has_bounded_memory_and_counts_what_does_not_fit() {
    let disk = Disk::default();
    let log = over(&disk, 0);
    let facts = facts(1);
    let running = call(&log, &facts, 1).await.unwrap();
    disk.state().room = Some(0);
    let long = "x".repeat(4000);
    for id in 0..3000 {
        log.denied(&facts, &deny(&long, id));
    }
    // Denials cannot displace how a call that ran has ended.
    log.outcome(&facts, running, Outcome::Ok, None);
    assert!(log.close().is_err());
    disk.state().room = None;
    log.close().unwrap();
    let all = disk.intact();
    let lost = all.last().unwrap()["lost_records"].as_u64().unwrap();
    assert_eq!(all.last().unwrap()["event"], "log_recovered");
    assert_eq!(all.len() as u64 + lost, 3000 + 4);
    assert!(lost > 0 && disk.state().file.len() < 2 * KEPT_MAX);
    assert!(all.iter().any(|r| r["event"] == "outcome"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_disk_that_comes_and_goes_loses_nothing_that_ran() {
    let disk = Disk::default();
    let log = pausing(&disk, 40_000, Duration::from_millis(1));
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..16 {
        let log = log.clone();
        tasks.spawn(async move {
            let facts = facts(task);
            let mut ran = Vec::new();
            for n in 0..200 {
                if let Ok(ticket) = call(&log, &facts, task * 1000 + n).await {
                    log.outcome(&facts, ticket, Outcome::Ok, None);
                    ran.push((task * 1000 + n, ticket.seq()));
                }
                tokio::task::yield_now().await;
            }
            ran
        });
    }
    let flaky = disk.clone();
    let storm = tokio::spawn(async move {
        for n in 0.. {
            flaky.state().room = (n % 3 == 0).then_some(n % 1777);
            tokio::task::yield_now().await;
        }
    });
    let mut ran = std::collections::BTreeMap::new();
    while let Some(done) = tasks.join_next().await {
        ran.extend(done.unwrap());
    }
    storm.abort();
    let _ = storm.await;
    disk.state().room = None;
    log.close().unwrap();
    let mut decided = std::collections::BTreeMap::new();
    let mut ended = std::collections::BTreeSet::new();
    for record in disk.intact() {
        if record["event"] == "decision" {
            let id = record["request"].as_u64().unwrap();
            assert!(
                decided
                    .insert(id, record["seq"].as_u64().unwrap())
                    .is_none()
            );
        } else if record["event"] == "outcome" {
            assert!(ended.insert(record["decision"].as_u64().unwrap()));
        }
    }
    assert_eq!(decided, ran, "what ran and what is recorded differ");
    assert_eq!(ended, ran.into_values().collect());
}

#[tokio::test]
async fn the_kernels_full_device_is_refused_too() {
    // Writing to it fails with ENOSPC, and it cannot be made shorter.
    let Ok(file) = appending().open("/dev/full") else {
        return;
    };
    let sink = LogFile::new(Path::new("/dev/full"), file, 1, 0, false);
    let options = AuditOptions::new("/dev/full");
    let gather = Gather::new(0, FIRST, 0, 0);
    let log = AuditLog::over(Box::new(sink), gather, 0, &options, None, Duration::ZERO);
    assert!(call(&log, &facts(1), 1).await.is_err());
    assert!(!log.healthy());
}
