//! What every store promises, as tests that run on each of them (see `suite!`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::feed::{Applied, Feed};
use super::record::{
    Change, ChangeKind, Enrolment, EnrolmentKind, Reason, Revocation, RevokedSerial,
};
use super::store::{Store, StoreError};
use super::token::{Token, TokenDigest, TokenRefusal};
use super::view::{Standing, View};
use crate::clock::{self, UnixTime};
use crate::grant::WrittenGrants;
use crate::identity::{Fingerprint, Name};

/// A registry of its own for each test.
pub(super) trait Fixture {
    /// Another handle on the same registry, as another process would have.
    async fn handle(&self) -> Arc<dyn Store>;
}

/// The time at which these tests play: certificates of [`made`] are valid then.
pub(super) const NOW: UnixTime = UnixTime(2_000_000_000);
const SOON: Duration = Duration::from_secs(20);

pub(super) fn made(number: u32) -> Enrolment {
    let der = format!("certificate {number}").into_bytes();
    Enrolment {
        fingerprint: Fingerprint::of_der(&der),
        kind: EnrolmentKind::Leaf,
        name: Name::new(&format!("spiffe://example.org/team/agent-{number}")).expect("a name"),
        serial: format!("{:08x}", 0xa000_0000_u32 | number),
        issuer: Some(Fingerprint::of_der(b"issuer")),
        profile: "agent".to_owned(),
        grants: None,
        not_before: UnixTime(NOW.0 - 3600),
        not_after: UnixTime(NOW.0 + 3600),
        pinned: true,
        revocation: None,
        created_at: UnixTime(NOW.0 - 3600),
        created_by: "operator@host".to_owned(),
        der,
    }
}

pub(super) fn named(number: u32, name: &str) -> Enrolment {
    Enrolment {
        name: Name::new(name).expect("a name"),
        ..made(number)
    }
}

pub(super) fn why(reason: Reason) -> Revocation {
    Revocation {
        at: NOW,
        reason,
        by: "operator@host".to_owned(),
    }
}

pub(super) fn grants(entries: &[&str]) -> WrittenGrants {
    WrittenGrants::parse(entries).expect("grants")
}

/// A feed that runs, and what it reports.
pub(super) struct Following {
    pub view: Arc<View>,
    pub applied: mpsc::Receiver<Applied>,
    task: tokio::task::JoinHandle<()>,
}

impl Following {
    pub async fn start(store: Arc<dyn Store>, server: &str) -> Self {
        let (feed, view) = Feed::load(store, server.to_owned())
            .await
            .expect("the view loads");
        let (tell, applied) = mpsc::channel(1000);
        let task = tokio::spawn(feed.run(move |batch: &Applied| {
            tell.try_send(batch.clone())
                .expect("room for every batch of a test");
        }));
        Self {
            view,
            applied,
            task,
        }
    }

    /// Waits until the view has taken in `seq`.
    pub async fn reach(&mut self, seq: u64) {
        loop {
            let batch = tokio::time::timeout(SOON, self.applied.recv()).await;
            if batch.expect("in time").expect("the feed runs").upto >= seq {
                return;
            }
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(super) async fn what_is_enrolled_is_read_back_whole(fixture: &impl Fixture) {
    let store = fixture.handle().await;
    let leaf = Enrolment {
        grants: Some(grants(&["tools:files__*", "role:reader"])),
        ..made(1)
    };
    let authority = Enrolment {
        kind: EnrolmentKind::Authority,
        pinned: false,
        issuer: None,
        ..made(2)
    };
    let external = Enrolment {
        kind: EnrolmentKind::External,
        profile: String::new(),
        revocation: Some(why(Reason::KeyCompromise)),
        grants: Some(WrittenGrants::default()),
        ..named(3, "CN with a \\ and a \" and é")
    };
    for (seq, enrolment) in (1..).zip([&leaf, &authority, &external]) {
        assert_eq!(store.enrol(enrolment).await, Ok(seq));
    }
    let another = fixture.handle().await;
    for enrolment in [&leaf, &authority, &external] {
        assert_eq!(
            another.get(enrolment.fingerprint).await,
            Ok(Some(enrolment.clone()))
        );
    }
    let page = another.page(0, 10, NOW).await.expect("a page");
    assert_eq!(
        page.outlines,
        [leaf.outline(), authority.outline(), external.outline()]
    );
    assert_eq!(page.next, None);
    assert_eq!(store.get(made(4).fingerprint).await, Ok(None));
    assert_eq!(
        store.enrol(&leaf).await,
        Err(StoreError::Exists(leaf.fingerprint))
    );
    assert_eq!(
        store.newest().await,
        Ok(3),
        "a refused request is no change"
    );
}

pub(super) async fn a_revocation_is_final(fixture: &impl Fixture) {
    let store = fixture.handle().await;
    let (one, unknown) = (made(1), made(2).fingerprint);
    store.enrol(&one).await.expect("enrolled");
    assert_eq!(store.set_pinned(one.fingerprint, false).await, Ok(2));
    assert_eq!(store.set_pinned(one.fingerprint, true).await, Ok(3));
    assert_eq!(
        store
            .set_grants(one.fingerprint, Some(&grants(&["*"])))
            .await,
        Ok(4)
    );
    assert_eq!(
        store
            .revoke(one.fingerprint, &why(Reason::KeyCompromise))
            .await,
        Ok(5)
    );

    let again = Revocation {
        at: UnixTime(NOW.0 + 1),
        ..why(Reason::Superseded)
    };
    assert_eq!(
        store.revoke(one.fingerprint, &again).await,
        Ok(5),
        "the first stays"
    );
    let present = store
        .get(one.fingerprint)
        .await
        .expect("read")
        .expect("enrolled");
    assert_eq!(present.revocation, Some(why(Reason::KeyCompromise)));
    assert_eq!(
        store.set_pinned(one.fingerprint, true).await,
        Err(StoreError::Revoked(one.fingerprint))
    );
    assert_eq!(
        store.set_grants(one.fingerprint, None).await,
        Err(StoreError::Revoked(one.fingerprint))
    );
    assert_eq!(
        store.set_pinned(one.fingerprint, false).await,
        Ok(6),
        "unpinning takes, not gives"
    );
    assert_eq!(
        store.revoke(unknown, &why(Reason::Unspecified)).await,
        Err(StoreError::NotFound(unknown.to_string()))
    );
    assert_eq!(store.newest().await, Ok(6));
}

pub(super) async fn an_end_comes_only_nearer(fixture: &impl Fixture) {
    let store = fixture.handle().await;
    let one = made(1);
    store.enrol(&one).await.expect("enrolled");
    let mut server = Following::start(fixture.handle().await, "north").await;
    let end = UnixTime(NOW.0 + 60);
    let seq = store.set_end(one.fingerprint, end).await.expect("set");
    assert_eq!(seq, 2);
    server.reach(seq).await;
    let Standing::Pinned(pin) = server.view.standing(&one.fingerprint) else {
        panic!("it is pinned as before")
    };
    assert_eq!(pin.not_after, end);
    let later = store.set_end(one.fingerprint, one.not_after).await;
    assert_eq!(later, Ok(seq), "a later end is no change");
    let record = store
        .get(one.fingerprint)
        .await
        .expect("read")
        .expect("known");
    assert_eq!((record.not_after, record.der), (end, one.der.clone()));
    let changes = store.changes(1, 10).await.expect("read");
    assert_eq!(changes[0].kind, ChangeKind::Shortened);
    store
        .revoke(one.fingerprint, &why(Reason::Superseded))
        .await
        .expect("revoked");
    let revoked = store.set_end(one.fingerprint, NOW).await;
    assert_eq!(revoked, Err(StoreError::Revoked(one.fingerprint)));
    let unknown = store.set_end(made(2).fingerprint, NOW).await;
    assert!(matches!(unknown, Err(StoreError::NotFound(_))));
}

pub(super) async fn every_change_is_told_once(fixture: &impl Fixture) {
    let store = fixture.handle().await;
    let (one, set) = (made(1).fingerprint, grants(&["prompts:*"]));
    store.enrol(&made(1)).await.expect("enrolled");
    assert_eq!(store.set_pinned(one, true).await, Ok(1), "it is so already");
    assert_eq!(store.set_pinned(one, false).await, Ok(2));
    assert_eq!(store.set_pinned(one, false).await, Ok(2));
    assert_eq!(store.set_pinned(one, true).await, Ok(3));
    assert_eq!(store.set_grants(one, Some(&set)).await, Ok(4));
    assert_eq!(store.set_grants(one, Some(&set)).await, Ok(4));
    assert_eq!(store.set_grants(one, None).await, Ok(5));
    assert_eq!(store.revoke(one, &why(Reason::Unspecified)).await, Ok(6));
    let kinds = [
        ChangeKind::Enrolled,
        ChangeKind::Unpinned,
        ChangeKind::Pinned,
        ChangeKind::Regranted,
        ChangeKind::Regranted,
        ChangeKind::Revoked,
    ];
    let told: Vec<Change> = (1..)
        .zip(kinds)
        .map(|(seq, kind)| Change {
            seq,
            kind,
            fingerprint: one,
        })
        .collect();
    assert_eq!(store.changes(0, 100).await.as_deref(), Ok(&told[..]));
    assert_eq!(store.changes(2, 2).await.as_deref(), Ok(&told[2..4]));
    assert_eq!(store.changes(6, 100).await, Ok(Vec::new()));
    let touched = store.touched(1, 6).await.expect("read");
    assert_eq!(touched.len(), 1, "each once, in its present state");
    assert!(touched[0].revoked && touched[0].pinned);
    assert_eq!(store.touched(6, 9).await, Ok(Vec::new()));
}

pub(super) async fn a_certificate_is_found_by_all_its_keys(fixture: &impl Fixture) {
    let store = fixture.handle().await;
    let one = Enrolment {
        serial: "00a1b2c3d4e5f60718".to_owned(),
        ..made(1)
    };
    store.enrol(&one).await.expect("enrolled");
    store.enrol(&made(2)).await.expect("enrolled");
    let print = one.fingerprint.to_string();
    let colons: Vec<&str> = (0..32).map(|i| &print[2 * i..2 * i + 2]).collect();
    let keys = [
        "spiffe://example.org/team/agent-1",
        "agent-1",
        &print,
        &colons.join(":").to_uppercase(),
        &print[..8],
        &colons[..5].join(":"),
        "00a1b2c3d4e5f60718",
        "A1:B2:C3:D4:E5:F6:07:18",
    ];
    for key in keys {
        let found = store.find(key, NOW).await;
        assert_eq!(
            found.map(|found| found.fingerprint),
            Ok(one.fingerprint),
            "{key}"
        );
    }
    for key in [
        "agent",
        "spiffe://other.org/team/agent-1",
        &print[..7],
        "",
        "a1b2c3d4e5f607",
    ] {
        let found = store.find(key, NOW).await;
        assert_eq!(
            found.err(),
            Some(StoreError::NotFound(key.to_owned())),
            "{key}"
        );
    }
}

pub(super) async fn a_name_means_the_live_certificate(fixture: &impl Fixture) {
    let store = fixture.handle().await;
    let old = Enrolment {
        not_after: UnixTime(NOW.0 - 1),
        ..named(1, "spiffe://example.org/a/build")
    };
    let mut new = named(2, "spiffe://example.org/a/build");
    new.not_after = NOW;
    store.enrol(&old).await.expect("enrolled");
    let found = async |key| store.find(key, NOW).await.map(|found| found.fingerprint);
    assert_eq!(
        found("build").await,
        Ok(old.fingerprint),
        "no other is there"
    );
    store.enrol(&new).await.expect("enrolled");
    assert_eq!(
        found("build").await,
        Ok(new.fingerprint),
        "valid to the very second"
    );

    let other = named(3, "spiffe://example.org/b/build");
    store.enrol(&other).await.expect("enrolled");
    let ambiguous = Err(StoreError::Ambiguous("build".to_owned()));
    assert_eq!(found("build").await, ambiguous, "two live ones");
    assert_eq!(
        found("spiffe://example.org/a/build").await,
        Ok(new.fingerprint)
    );
    let prints = |found: Vec<Enrolment>| found.iter().map(|e| e.fingerprint).collect::<Vec<_>>();
    let live = store.named("build", NOW).await.map(prints);
    assert_eq!(live, Ok(vec![other.fingerprint, new.fingerprint]));

    store
        .revoke(new.fingerprint, &why(Reason::Superseded))
        .await
        .expect("revoked");
    assert_eq!(found("build").await, Ok(other.fingerprint));
    assert_eq!(
        found("spiffe://example.org/a/build").await,
        Ok(new.fingerprint),
        "the newest"
    );
    store
        .revoke(other.fingerprint, &why(Reason::Superseded))
        .await
        .expect("revoked");
    assert_eq!(
        found("build").await,
        ambiguous,
        "two names, and none is live"
    );
    assert_eq!(store.named("build", NOW).await, Ok(Vec::new()));

    // A name that looks like the beginning of another's fingerprint must not hide it.
    let victim = old.fingerprint.to_string()[..8].to_owned();
    assert_eq!(found(&victim).await, Ok(old.fingerprint));
    store.enrol(&named(4, &victim)).await.expect("enrolled");
    assert_eq!(
        found(&victim).await,
        Err(StoreError::Ambiguous(victim.clone()))
    );
}

pub(super) async fn lists_go_page_by_page(fixture: &impl Fixture) {
    let store = fixture.handle().await;
    for number in 0..10 {
        store.enrol(&made(number)).await.expect("enrolled");
    }
    let mut all = Vec::new();
    loop {
        let page = store.list(all.last().copied(), 4).await.expect("a page");
        assert!(page.iter().all(|enrolment| enrolment.der.is_empty()));
        if page.is_empty() {
            break;
        }
        all.extend(page.iter().map(|enrolment| enrolment.fingerprint));
    }
    let newest_first: Vec<_> = (0..10)
        .rev()
        .map(|number| made(number).fingerprint)
        .collect();
    assert_eq!(all, newest_first);
    let unknown = made(99).fingerprint;
    let error = StoreError::NotFound(unknown.to_string());
    assert_eq!(store.list(Some(unknown), 4).await, Err(error));
}

pub(super) async fn a_view_is_loaded_without_what_expired(fixture: &impl Fixture) {
    let store = fixture.handle().await;
    let ended = |number| Enrolment {
        not_after: UnixTime(NOW.0 - 1),
        ..made(number)
    };
    for enrolment in [made(0), ended(1), ended(2), made(3), made(4)] {
        store.enrol(&enrolment).await.expect("enrolled");
    }
    store
        .revoke(made(2).fingerprint, &why(Reason::KeyCompromise))
        .await
        .expect("revoked");
    let (mut from, mut seen) = (Some(0), Vec::new());
    while let Some(start) = from {
        let page = store.page(start, 2, NOW).await.expect("a page");
        assert!(page.outlines.len() <= 2);
        seen.extend(page.outlines.into_iter().map(|outline| outline.fingerprint));
        from = page.next;
    }
    assert_eq!(seen, [0, 2, 3, 4].map(|number| made(number).fingerprint));
}

pub(super) async fn an_issuer_s_revocations_are_known(fixture: &impl Fixture) {
    let store = fixture.handle().await;
    let issuer = made(0).issuer.expect("an issuer");
    let elsewhere = Enrolment {
        issuer: Some(Fingerprint::of_der(b"other")),
        ..made(2)
    };
    let ended = Enrolment {
        not_after: UnixTime(NOW.0 - 1),
        ..made(3)
    };
    for enrolment in [&made(0), &made(1), &elsewhere, &ended] {
        store.enrol(enrolment).await.expect("enrolled");
    }
    for number in 1..4 {
        let revocation = why(Reason::CessationOfOperation);
        store
            .revoke(made(number).fingerprint, &revocation)
            .await
            .expect("revoked");
    }
    let line = RevokedSerial {
        serial: made(1).serial,
        not_after: made(1).not_after,
        revocation: why(Reason::CessationOfOperation),
    };
    assert_eq!(store.revoked(issuer, NOW).await, Ok(vec![line]));
    assert_eq!(
        store
            .revoked(issuer, UnixTime(0))
            .await
            .map(|lines| lines.len()),
        Ok(2)
    );
}

pub(super) async fn a_change_reaches_the_servers(fixture: &impl Fixture) {
    let (ca, one) = (fixture.handle().await, made(1));
    ca.enrol(&one).await.expect("enrolled");
    let mut servers = Vec::new();
    for name in ["north", "south"] {
        servers.push(Following::start(fixture.handle().await, name).await);
    }
    for server in &servers {
        let Standing::Pinned(pin) = server.view.standing(&one.fingerprint) else {
            panic!("enrolled before the server started")
        };
        assert_eq!((pin.name, pin.delegate), (one.name.clone(), false));
    }
    let before = servers[0].view.generation();
    let seq = ca
        .revoke(one.fingerprint, &why(Reason::KeyCompromise))
        .await
        .expect("revoked");
    let confirmation = ca.confirmed(seq, SOON).await.expect("asked");
    assert_eq!(confirmation.confirmed, ["north", "south"]);
    assert!(confirmation.is_complete());
    for server in &mut servers {
        // Both before the confirmation: what the view says, and what was reported.
        assert_eq!(server.view.standing(&one.fingerprint), Standing::Revoked);
        let batch = server
            .applied
            .try_recv()
            .expect("reported before it was confirmed");
        let change = Change {
            seq,
            kind: ChangeKind::Revoked,
            fingerprint: one.fingerprint,
        };
        assert_eq!(
            batch,
            Applied {
                changes: vec![change],
                upto: seq,
                reloaded: false
            }
        );
    }
    assert_ne!(servers[0].view.generation(), before);
    assert_eq!(servers[0].view.trouble(), None);
}

pub(super) async fn many_changes_reach_a_server_in_batches(fixture: &impl Fixture) {
    let ca = fixture.handle().await;
    let mut server = Following::start(fixture.handle().await, "north").await;
    assert!(server.view.is_empty());
    let set = grants(&["tools:*"]);
    let enrolments: Vec<Enrolment> = (0..1500).map(made).collect();
    futures_util::future::try_join_all(enrolments.iter().map(|e| ca.enrol(e)))
        .await
        .expect("enrolled");
    ca.set_grants(enrolments[7].fingerprint, Some(&set))
        .await
        .expect("granted");
    let seq = ca
        .set_pinned(enrolments[8].fingerprint, false)
        .await
        .expect("unpinned");
    server.reach(seq).await;
    assert_eq!(server.view.len(), 1500);
    let Standing::Pinned(pin) = server.view.standing(&enrolments[7].fingerprint) else {
        panic!("it is pinned")
    };
    assert_eq!(pin.grants.as_deref(), Some(&set));
    assert_eq!(
        server.view.standing(&enrolments[8].fingerprint),
        Standing::Unpinned
    );
    assert_eq!(
        server.view.standing(&made(5000).fingerprint),
        Standing::Unknown
    );
}

pub(super) async fn only_live_servers_are_waited_for(fixture: &impl Fixture) {
    let store = fixture.handle().await;
    let patience = Duration::from_millis(20);
    let seq = store.enrol(&made(1)).await.expect("enrolled");
    let alone = store.confirmed(seq, SOON).await.expect("asked");
    assert!(alone.is_complete() && alone.live.is_empty());

    store.heartbeat("behind", seq - 1).await.expect("heard");
    store.heartbeat("ahead", seq + 1).await.expect("heard");
    let partly = store.confirmed(seq, patience).await.expect("asked");
    assert_eq!(partly.live, ["ahead", "behind"]);
    assert_eq!(partly.confirmed, ["ahead"]);
    assert!(!partly.is_complete() && partly.took >= patience);

    store.farewell("behind").await.expect("heard");
    let without = store.confirmed(seq, SOON).await.expect("asked");
    assert_eq!(
        (without.live, without.confirmed),
        (vec!["ahead".into()], vec!["ahead".into()])
    );
    assert_eq!(store.newest().await, Ok(seq), "servers are no changes");
}

pub(super) async fn a_server_that_stops_says_so(fixture: &impl Fixture) {
    let ca = fixture.handle().await;
    let (feed, view) = Feed::load(fixture.handle().await, "north".to_owned())
        .await
        .expect("loaded");
    let live = ca.confirmed(0, SOON).await.expect("asked").live;
    assert_eq!(live, ["north"], "it is waited for from its loading on");
    assert!(view.staleness() < SOON && view.last_contact() <= clock::unix_now());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(feed.run_until(async { drop(stopped.await) }, |_| ()));
    stop.send(()).expect("it runs");
    running.await.expect("it ends");
    assert!(ca.confirmed(0, SOON).await.expect("asked").live.is_empty());
}

pub(super) async fn writers_do_not_get_in_each_others_way(fixture: &impl Fixture) {
    let handles = [fixture.handle().await, fixture.handle().await];
    let mut writing = tokio::task::JoinSet::new();
    for number in 0..60 {
        let store = Arc::clone(&handles[number as usize % 2]);
        writing.spawn(async move {
            let enrolled = store.enrol(&made(number)).await.expect("enrolled");
            let twice = store.enrol(&made(number)).await;
            assert_eq!(twice, Err(StoreError::Exists(made(number).fingerprint)));
            enrolled
        });
    }
    let seqs: BTreeSet<u64> = writing.join_all().await.into_iter().collect();
    assert_eq!(
        seqs,
        (1..=60).collect(),
        "each change has a number of its own, and none is left out"
    );
    assert_eq!(
        handles[0].list(None, 100).await.map(|list| list.len()),
        Ok(60)
    );
}

pub(super) async fn waiting_for_a_change_ends_with_it_or_with_patience(fixture: &impl Fixture) {
    let (waiting, writing) = (fixture.handle().await, fixture.handle().await);
    assert_eq!(waiting.changed(0, Duration::from_millis(10)).await, Ok(0));
    let waits = tokio::spawn({
        let waiting = Arc::clone(&waiting);
        async move { waiting.changed(0, SOON).await }
    });
    writing.enrol(&made(1)).await.expect("enrolled");
    assert_eq!(waits.await.expect("it ends"), Ok(1));
    assert_eq!(
        waiting.changed(0, SOON).await,
        Ok(1),
        "what was missed is told at once"
    );
    assert_eq!(
        waiting.changed(7, SOON).await,
        Ok(1),
        "also that the store went back"
    );
}

pub(super) async fn old_changes_are_pruned_once_every_server_has_them(fixture: &impl Fixture) {
    let store = fixture.handle().await;
    let later = UnixTime(clock::unix_now().0 + 60);
    for number in 1..=5 {
        store.enrol(&made(number)).await.expect("enrolled");
    }
    let first = async || store.changes(0, 1).await.map(|changes| changes[0].seq);
    assert_eq!(store.prune(UnixTime(0)).await, Ok(0), "none is so old");
    store.heartbeat("north", 3).await.expect("heard");
    assert_eq!(store.prune(later).await, Ok(3), "one server has no more");
    assert_eq!(first().await, Ok(4));
    store.heartbeat("north", 5).await.expect("heard");
    assert_eq!(store.prune(later).await, Ok(1), "the newest stays");
    assert_eq!((first().await, store.newest().await), (Ok(5), Ok(5)));
    assert_eq!(store.prune(later).await, Ok(0));

    // What is asked of a change that is gone is answered so that no server is waited for in vain.
    let one = made(1).fingerprint;
    assert_eq!(store.set_pinned(one, true).await, Ok(4));
    assert_eq!(store.revoke(one, &why(Reason::Superseded)).await, Ok(6));
    store.farewell("north").await.expect("heard");
    store.enrol(&made(6)).await.expect("enrolled");
    assert_eq!(store.prune(later).await, Ok(2));
    assert_eq!(store.revoke(one, &why(Reason::Superseded)).await, Ok(6));
    assert_eq!(
        store.page(0, 10, NOW).await.expect("a page").outlines.len(),
        6
    );
}

pub(super) async fn a_server_that_missed_pruned_changes_loads_anew(fixture: &impl Fixture) {
    let ca = fixture.handle().await;
    ca.enrol(&made(1)).await.expect("enrolled");
    let (feed, view) = Feed::load(fixture.handle().await, "north".to_owned())
        .await
        .expect("loaded");
    // Forgotten, as after a day without a word of it.
    ca.farewell("north").await.expect("heard");
    ca.enrol(&made(2)).await.expect("enrolled");
    ca.revoke(made(1).fingerprint, &why(Reason::KeyCompromise))
        .await
        .expect("revoked");
    let newest = ca.enrol(&made(3)).await.expect("enrolled");
    let later = UnixTime(clock::unix_now().0 + 60);
    assert_eq!(ca.prune(later).await, Ok(3));
    let (tell, mut applied) = mpsc::channel(10);
    let running = tokio::spawn(feed.run(move |batch: &Applied| {
        tell.try_send(batch.clone()).expect("room");
    }));
    let batch = tokio::time::timeout(SOON, applied.recv()).await;
    let expected = Applied {
        changes: Vec::new(),
        upto: newest,
        reloaded: true,
    };
    assert_eq!(batch.expect("in time"), Some(expected));
    assert_eq!(view.standing(&made(1).fingerprint), Standing::Revoked);
    for number in [2, 3] {
        let standing = view.standing(&made(number).fingerprint);
        assert!(matches!(standing, Standing::Pinned(_)), "{number}");
    }
    running.abort();
}

/// Follows the feed by hand while others write, and sees every number once and in order: a number
/// that became visible before a smaller one would be passed by.
pub(super) async fn changes_are_numbered_in_the_order_of_their_commits(fixture: &impl Fixture) {
    const WRITERS: u32 = 4;
    const EACH: u32 = 25;
    let reader = fixture.handle().await;
    let mut writing = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let store = fixture.handle().await;
        writing.spawn(async move {
            for number in 0..EACH {
                let enrolment = made(writer * EACH + number);
                store.enrol(&enrolment).await.expect("enrolled");
            }
        });
    }
    let all = u64::from(WRITERS * EACH);
    let mut seen = 0;
    while seen < all {
        for change in reader.changes(seen, 1000).await.expect("read") {
            assert_eq!(change.seq, seen + 1, "a smaller number was not there yet");
            seen = change.seq;
        }
    }
    writing.join_all().await;
    assert_eq!(reader.newest().await, Ok(all));
}

fn token(secret: &[u8]) -> Token {
    Token {
        digest: TokenDigest::of(secret),
        name: Name::new("spiffe://example.org/team/agent-1").expect("a name"),
        grants: grants(&["tools:files__*", "role:reader"]),
        profile: "agent".to_owned(),
        hosts: vec!["localhost".to_owned(), "::1".to_owned()],
        lifetime: Some(Duration::from_secs(600)),
        expires_at: UnixTime(NOW.0 + 900),
        created_at: NOW,
        created_by: "operator@host".to_owned(),
        used_at: None,
    }
}

pub(super) async fn a_token_is_good_for_one_certificate(fixture: &impl Fixture) {
    let (store, other) = (fixture.handle().await, fixture.handle().await);
    let fresh = token(b"one");
    store.put_token(&fresh).await.expect("kept");
    assert_eq!(other.token(fresh.digest).await, Ok(Some(fresh.clone())));
    assert_eq!(other.token(TokenDigest::of(b"two")).await, Ok(None));
    let unknown = other
        .take_token(TokenDigest::of(b"two"), &made(1), NOW)
        .await;
    assert_eq!(unknown, Err(TokenRefusal::Unknown.into()));

    // A certificate that is enrolled already takes no token with it.
    store.enrol(&made(2)).await.expect("enrolled");
    let exists = other.take_token(fresh.digest, &made(2), NOW).await;
    assert_eq!(exists, Err(StoreError::Exists(made(2).fingerprint)));
    assert_eq!(store.newest().await, Ok(1), "a token is no change");

    assert_eq!(other.take_token(fresh.digest, &made(1), NOW).await, Ok(2));
    assert_eq!(store.get(made(1).fingerprint).await, Ok(Some(made(1))));
    let used = store.take_token(fresh.digest, &made(3), NOW).await;
    assert_eq!(used, Err(TokenRefusal::Used.into()));
    assert_eq!(store.get(made(3).fingerprint).await, Ok(None));
    let kept = store.token(fresh.digest).await.expect("a token");
    assert_eq!(kept.expect("kept").used_at, Some(NOW));
}

pub(super) async fn a_token_expires_and_is_forgotten(fixture: &impl Fixture) {
    let store = fixture.handle().await;
    let (early, late) = (token(b"early"), token(b"late"));
    let late = Token {
        expires_at: UnixTime(NOW.0 + 2000),
        lifetime: None,
        hosts: Vec::new(),
        ..late
    };
    for token in [&early, &late] {
        store.put_token(token).await.expect("kept");
    }
    let after = UnixTime(early.expires_at.0 + 1);
    let too_late = store.take_token(early.digest, &made(1), after).await;
    assert_eq!(too_late, Err(TokenRefusal::Expired.into()));
    let last = store
        .take_token(early.digest, &made(1), early.expires_at)
        .await;
    assert_eq!(last, Ok(1), "the last second counts");
    assert_eq!(store.take_token(late.digest, &made(2), after).await, Ok(2));
    store.purge_tokens(after).await.expect("purged");
    assert_eq!(store.token(early.digest).await, Ok(None));
    let kept = store.token(late.digest).await.expect("a token");
    assert_eq!(kept.map(|token| token.used_at), Some(Some(after)));
}

pub(super) async fn of_many_at_once_one_gets_the_token(fixture: &impl Fixture) {
    let fresh = token(b"one");
    fixture
        .handle()
        .await
        .put_token(&fresh)
        .await
        .expect("kept");
    let mut taking = tokio::task::JoinSet::new();
    for number in 0..8 {
        let store = fixture.handle().await;
        taking.spawn(async move { store.take_token(fresh.digest, &made(number), NOW).await });
    }
    let answers = taking.join_all().await;
    let taken = answers.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!(taken, 1, "{answers:?}");
    let refused = |answer: &&Result<u64, StoreError>| **answer == Err(TokenRefusal::Used.into());
    assert_eq!(answers.iter().filter(refused).count(), 7, "{answers:?}");
}

/// Runs the whole suite on a fixture: `suite!(expression that makes one)`.
macro_rules! suite {
    ($fixture:expr) => {
        suite!(@ $fixture;
            what_is_enrolled_is_read_back_whole a_revocation_is_final an_end_comes_only_nearer every_change_is_told_once
            a_certificate_is_found_by_all_its_keys a_name_means_the_live_certificate
            lists_go_page_by_page a_view_is_loaded_without_what_expired
            an_issuer_s_revocations_are_known a_change_reaches_the_servers
            many_changes_reach_a_server_in_batches only_live_servers_are_waited_for
            a_server_that_stops_says_so writers_do_not_get_in_each_others_way
            waiting_for_a_change_ends_with_it_or_with_patience a_token_is_good_for_one_certificate
            a_token_expires_and_is_forgotten of_many_at_once_one_gets_the_token
            old_changes_are_pruned_once_every_server_has_them
            a_server_that_missed_pruned_changes_loads_anew
            changes_are_numbered_in_the_order_of_their_commits);
    };
    (@ $fixture:expr; $($name:ident)+) => {
        $(
            #[tokio::test]
            async fn $name() {
                crate::registry::suite::$name(&$fixture).await;
            }
        )+
    };
}
pub(super) use suite;
