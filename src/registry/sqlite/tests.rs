//! The suite on SQLite, and what only a file can get wrong.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sqlx::{ConnectOptions, Connection, Executor, SqliteConnection};

use super::super::feed::Applied;
use super::super::record::Reason;
use super::super::store::{Store, StoreError};
use super::super::suite::{Fixture, Following, made, suite, why};
use super::super::view::Standing;
use super::SqliteStore;
use super::file::Place;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("registry.db")
    }

    fn file(&self, suffix: &str) -> PathBuf {
        self.0.path().join(format!("registry.db{suffix}"))
    }

    async fn open(&self) -> SqliteStore {
        SqliteStore::open(&self.path(), true).await.expect("opened")
    }

    /// Somebody else's connection.
    async fn raw(&self) -> SqliteConnection {
        let place = Place::prepare(&self.path(), true).expect("a file");
        place.writing().connect().await.expect("connected")
    }

    async fn refusal(&self, create: bool) -> StoreError {
        SqliteStore::open(&self.path(), create)
            .await
            .expect_err("refused")
    }
}

impl Fixture for Folder {
    async fn handle(&self) -> Arc<dyn Store> {
        Arc::new(self.open().await)
    }
}

suite!(Folder::new());

#[tokio::test]
async fn what_was_written_is_there_after_a_restart() {
    let folder = Folder::new();
    let store = folder.open().await;
    store.enrol(&made(1)).await.expect("enrolled");
    store.enrol(&made(2)).await.expect("enrolled");
    store
        .revoke(made(2).fingerprint, &why(Reason::Superseded))
        .await
        .expect("revoked");
    drop(store);
    let store = SqliteStore::open(&folder.path(), false)
        .await
        .expect("it is a registry now");
    assert_eq!(store.get(made(1).fingerprint).await, Ok(Some(made(1))));
    let second = store
        .get(made(2).fingerprint)
        .await
        .expect("read")
        .expect("enrolled");
    assert_eq!(second.revocation, Some(why(Reason::Superseded)));
    assert_eq!(store.enrol(&made(3)).await, Ok(4), "numbers go on");
}

#[tokio::test]
async fn only_the_owner_can_read_any_of_the_files() {
    let folder = Folder::new();
    let store = folder.open().await;
    store.enrol(&made(1)).await.expect("enrolled");
    for suffix in ["", "-wal", "-shm", "-bell"] {
        let meta = fs::metadata(folder.file(suffix)).expect(suffix);
        assert_eq!(meta.permissions().mode() & 0o777, 0o600, "{suffix}");
    }
}

#[tokio::test]
async fn a_file_that_everybody_can_write_is_refused() {
    let folder = Folder::new();
    drop(folder.open().await);
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o660)).expect("set");
    drop(folder.open().await);
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o606)).expect("set");
    let place = folder.path().display().to_string();
    assert_eq!(
        folder.refusal(true).await,
        StoreError::Exposed { place, mode: 0o606 }
    );
}

#[tokio::test]
async fn a_registry_is_made_only_where_that_is_wanted() {
    let folder = Folder::new();
    assert!(matches!(
        folder.refusal(false).await,
        StoreError::Unreachable { .. }
    ));
    // What a run leaves that was killed right after it made the file.
    fs::write(folder.path(), b"").expect("written");
    assert!(matches!(
        folder.refusal(false).await,
        StoreError::Corrupt { .. }
    ));
    // And one that came as far as the first page.
    let mut raw = folder.raw().await;
    raw.execute("CREATE TABLE t (i INTEGER)")
        .await
        .expect("made");
    raw.execute("DROP TABLE t").await.expect("dropped");
    raw.close().await.expect("closed");
    assert!(matches!(
        folder.refusal(false).await,
        StoreError::Corrupt { .. }
    ));
    folder.open().await.enrol(&made(1)).await.expect("enrolled");
    SqliteStore::open(&folder.path(), false)
        .await
        .expect("it is one now");
}

#[tokio::test]
async fn what_is_no_registry_is_left_alone() {
    let folder = Folder::new();
    fs::create_dir(folder.path()).expect("made");
    assert!(matches!(
        folder.refusal(true).await,
        StoreError::Unreachable { .. }
    ));

    let folder = Folder::new();
    fs::write(
        folder.path(),
        "not a database, but long enough to be one: ".repeat(100),
    )
    .expect("written");
    assert!(matches!(
        folder.refusal(true).await,
        StoreError::Corrupt { .. }
    ));

    let folder = Folder::new();
    let mut raw = folder.raw().await;
    raw.execute("CREATE TABLE accounts (id INTEGER)")
        .await
        .expect("made");
    let StoreError::Corrupt { what, .. } = folder.refusal(true).await else {
        panic!("the database of another program")
    };
    assert!(what.contains("another program"), "{what}");
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let folder = Folder::new();
    drop(folder.open().await);
    let mut raw = folder.raw().await;
    raw.execute("PRAGMA user_version = 99").await.expect("set");
    let place = folder.path().display().to_string();
    let newer = StoreError::NewerSchema {
        place,
        found: 99,
        known: 2,
    };
    assert_eq!(folder.refusal(true).await, newer);
    raw.execute("PRAGMA user_version = 2").await.expect("set");
    drop(folder.open().await);
}

#[tokio::test]
async fn several_may_make_it_at_once() {
    // Of eight that make one file, two get in each other's way in one of fifty files or so.
    for _ in 0..20 {
        let folder = Arc::new(Folder::new());
        let mut opening = tokio::task::JoinSet::new();
        for number in 0..8 {
            let folder = Arc::clone(&folder);
            opening.spawn(async move { folder.open().await.enrol(&made(number)).await });
        }
        let seqs = opening.join_all().await;
        assert!(seqs.iter().all(Result::is_ok), "{seqs:?}");
        assert_eq!(folder.open().await.newest().await, Ok(8));
    }
}

#[tokio::test]
async fn a_writer_waits_for_another_program_s_transaction() {
    let folder = Folder::new();
    let store = Arc::new(folder.open().await);
    let mut raw = folder.raw().await;
    let held = raw.begin_with("BEGIN IMMEDIATE").await.expect("begun");
    let writing = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.enrol(&made(1)).await }
    });
    assert_eq!(store.newest().await, Ok(0), "a reader does not wait");
    assert!(!writing.is_finished());
    held.rollback().await.expect("rolled back");
    assert_eq!(writing.await.expect("it ends"), Ok(1));
}

#[tokio::test]
async fn a_request_is_carried_out_although_nobody_waits_for_it() {
    let folder = Folder::new();
    let store = folder.open().await;
    let mut raw = folder.raw().await;
    let held = raw.begin_with("BEGIN IMMEDIATE").await.expect("begun");
    let impatient = tokio::time::timeout(Duration::from_millis(20), store.enrol(&made(1))).await;
    assert!(impatient.is_err());
    held.rollback().await.expect("rolled back");
    assert_eq!(store.changed(0, Duration::from_secs(20)).await, Ok(1));
}

#[tokio::test]
async fn a_database_that_is_taken_away_is_noticed_and_served_from_memory() {
    let folder = Folder::new();
    let ca = folder.open().await;
    ca.enrol(&made(1)).await.expect("enrolled");
    let server = Following::start(folder.handle().await, "north").await;
    fs::rename(folder.path(), folder.file(".away")).expect("moved");
    let error = ca.enrol(&made(2)).await.expect_err("it would be lost");
    assert!(matches!(error, StoreError::Unreachable { .. }), "{error}");
    while server.view.trouble().is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(matches!(
        server.view.standing(&made(1).fingerprint),
        Standing::Pinned(_)
    ));

    fs::rename(folder.file(".away"), folder.path()).expect("moved back");
    assert_eq!(ca.enrol(&made(2)).await, Ok(2));
    while server.view.trouble().is_some() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What it holds would be decided on by some and not by others: nobody uses it before a restart, and
/// everybody says so.
#[tokio::test]
async fn another_file_in_its_place_is_noticed_and_not_used() {
    let folder = Folder::new();
    let ca = folder.open().await;
    ca.enrol(&made(1)).await.expect("enrolled");
    let server = Following::start(folder.handle().await, "north").await;
    fs::copy(folder.path(), folder.file(".copy")).expect("copied");
    fs::rename(folder.file(".copy"), folder.path()).expect("replaced");
    let error = ca.enrol(&made(2)).await.expect_err("it would be lost");
    assert!(matches!(error, StoreError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("restart"), "{error}");
    let trouble = loop {
        match server.view.trouble() {
            Some(trouble) => break trouble,
            None => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    assert!(trouble.contains("another file took its place"), "{trouble}");
    assert!(matches!(
        server.view.standing(&made(1).fingerprint),
        Standing::Pinned(_)
    ));
}

#[tokio::test]
async fn an_older_copy_takes_pins_away_and_no_revocation() {
    let folder = Folder::new();
    let ca = folder.open().await;
    for number in 0..3 {
        ca.enrol(&made(number)).await.expect("enrolled");
    }
    let mut server = Following::start(folder.handle().await, "north").await;
    let seq = ca
        .revoke(made(2).fingerprint, &why(Reason::KeyCompromise))
        .await
        .expect("revoked");
    server.reach(seq).await;
    let mut raw = folder.raw().await;
    let back = "PRAGMA foreign_keys = OFF; DELETE FROM changes WHERE seq > 1; \
                DELETE FROM certificates WHERE enrolment > 1; DELETE FROM enrolments WHERE id > 1";
    raw.execute(sqlx::raw_sql(back)).await.expect("set back");
    let batch = server.applied.recv().await.expect("the feed runs");
    assert_eq!(
        batch,
        Applied {
            changes: Vec::new(),
            upto: 1,
            reloaded: true
        }
    );
    assert!(matches!(
        server.view.standing(&made(0).fingerprint),
        Standing::Pinned(_)
    ));
    assert_eq!(
        server.view.standing(&made(1).fingerprint),
        Standing::Unknown
    );
    assert_eq!(
        server.view.standing(&made(2).fingerprint),
        Standing::Revoked
    );
}

#[tokio::test]
async fn a_row_that_nobody_of_us_wrote_is_an_error_and_no_guess() {
    let folder = Folder::new();
    let store = folder.open().await;
    store.enrol(&made(1)).await.expect("enrolled");
    assert!(store.get(made(1).fingerprint).await.is_ok());
    let mut raw = folder.raw().await;
    raw.execute("UPDATE enrolments SET kind = 7")
        .await
        .expect("spoilt");
    let StoreError::Corrupt { what, .. } = store.get(made(1).fingerprint).await.expect_err("kind")
    else {
        panic!("it is the store's fault")
    };
    assert_eq!(what, "`7` is not a kind of enrolment");
    let page = store.page(0, 10, made(1).not_before).await;
    assert!(matches!(page, Err(StoreError::Corrupt { .. })), "{page:?}");
}

#[tokio::test]
async fn heartbeats_ring_no_bell() {
    let folder = Folder::new();
    let (one, two) = (folder.open().await, folder.open().await);
    one.enrol(&made(1)).await.expect("enrolled");
    let bell = || fs::read_to_string(folder.file("-bell")).expect("a bell");
    let after_change = bell();
    two.heartbeat("north", 1).await.expect("heard");
    two.farewell("north").await.expect("heard");
    assert_eq!(bell(), after_change);
    two.enrol(&made(2)).await.expect("enrolled");
    assert_ne!(bell(), after_change);
}
