//! Figures for people, on demand: `cargo test --release --lib registry::sqlite::measure -- --ignored
//! --nocapture`. They print and judge nothing.

use std::fs;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream;

use super::super::feed::Feed;
use super::super::record::{Enrolment, Reason};
use super::super::store::Store;
use super::super::suite::{Following, grants, made, why};
use super::SqliteStore;
use crate::clock::{self, UnixTime};

const ENROLLED: u32 = 100_000;

fn age(of: Instant) -> Duration {
    clock::monotonic().saturating_duration_since(of)
}

/// Resident bytes of this process.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap_or_default();
    line.trim()
        .trim_end_matches(" kB")
        .parse::<u64>()
        .unwrap_or_default()
        * 1024
}

fn realistic(number: u32) -> Enrolment {
    let sets = [
        &["tools:files__read_*", "resources:file:///srv/docs/*"][..],
        &["*"],
        &["role:ops"],
    ];
    Enrolment {
        not_after: UnixTime(clock::unix_now().0 + 86400),
        grants: Some(grants(sets[number as usize % sets.len()])),
        der: vec![0x30; 700],
        ..made(number)
    }
}

fn print_all(label: &str, mut took: Vec<Duration>) {
    took.sort();
    let at = |part: usize| took[(took.len() - 1) * part / 100];
    println!("{label}: median {:?}, 99th percentile {:?}", at(50), at(99));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "figures for people, minutes long"]
async fn figures() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("registry.db");
    let ca = Arc::new(SqliteStore::open(&path, true).await.expect("opened"));

    let small = revocations(&ca, ENROLLED, 100).await;
    let began = clock::monotonic();
    stream::iter(0..ENROLLED)
        .for_each_concurrent(256, async |number| {
            ca.enrol(&realistic(number)).await.expect("enrolled");
        })
        .await;
    let took = age(began);
    println!(
        "{ENROLLED} enrolled in {took:?}: {:.0}/s",
        f64::from(ENROLLED) / took.as_secs_f64()
    );
    print_all("revocation among 100", small);
    print_all(
        "revocation among all",
        revocations(&ca, ENROLLED + 100, 100).await,
    );

    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&path, false).await.expect("opened"));
    let before = resident();
    let began = clock::monotonic();
    let (feed, view) = Feed::load(store, "north".to_owned()).await.expect("loaded");
    println!("loaded {} in {:?}", view.len(), age(began));
    let bytes = resident().saturating_sub(before);
    println!(
        "resident memory: {} bytes each",
        bytes / u64::from(ENROLLED)
    );

    let prints: Vec<_> = (0..ENROLLED)
        .map(|number| made(number).fingerprint)
        .collect();
    let began = clock::monotonic();
    for print in &prints {
        black_box(view.standing(black_box(print)));
    }
    println!("lookup: {:?}", age(began) / ENROLLED);
    drop(feed);
    ca.farewell("north").await.expect("heard");

    let mut server = Following::start(
        Arc::new(SqliteStore::open(&path, false).await.expect("opened")),
        "south",
    )
    .await;
    let mut waits = (Vec::new(), Vec::new());
    for number in 0..200 {
        let began = clock::monotonic();
        let revocation = why(Reason::Superseded);
        let seq = ca
            .revoke(made(number).fingerprint, &revocation)
            .await
            .expect("revoked");
        let committed = age(began);
        server.reach(seq).await;
        waits.0.push(age(began).saturating_sub(committed));
        ca.confirmed(seq, Duration::from_secs(2))
            .await
            .expect("asked");
        waits.1.push(age(began));
    }
    print_all("commit to applied", waits.0);
    print_all("revoke to confirmed", waits.1);

    let mut opens = Vec::new();
    for number in 0..20 {
        let began = clock::monotonic();
        let store = SqliteStore::open(&path, false).await.expect("opened");
        store
            .find(&format!("agent-{}", 1000 + number), clock::unix_now())
            .await
            .expect("found");
        opens.push(age(began));
    }
    print_all("open and find", opens);
}

/// Enrols `count` more, and revokes them.
async fn revocations(store: &SqliteStore, from: u32, count: u32) -> Vec<Duration> {
    let mut took = Vec::new();
    for number in from..from + count {
        store.enrol(&realistic(number)).await.expect("enrolled");
    }
    for number in from..from + count {
        let began = clock::monotonic();
        let revocation = why(Reason::Superseded);
        store
            .revoke(made(number).fingerprint, &revocation)
            .await
            .expect("revoked");
        took.push(age(began));
    }
    took
}
