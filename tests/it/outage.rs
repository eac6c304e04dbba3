//! A registry that is out of reach: what is known is served from memory for `registry.max_staleness`
//! and no longer, nothing is issued meanwhile, and all of it is said. With both stores. And that a
//! command reaches servers through the database that they share.

use std::net::SocketAddr;
use std::time::Duration;

use countersign::registry::{self, Reason, RegistryPlace, Revocation, StoreError};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::support::pki::Certified;
use crate::support::program::PROGRAM;
use crate::support::served::{Lines, Served, Site, modern};

/// Short enough for a test, and more than a heartbeat's two seconds.
const STALENESS: &str = "3s";

/// Takes a registry away and gives it back.
trait Outage {
    fn begin(&self);
    fn end(&self);
}

/// The file of a SQLite registry is moved away.
struct Moved(std::path::PathBuf);

impl Outage for Moved {
    fn begin(&self) {
        std::fs::rename(&self.0, self.0.with_extension("away")).unwrap();
    }

    fn end(&self) {
        std::fs::rename(self.0.with_extension("away"), &self.0).unwrap();
    }
}

/// The way to a database is cut: connections end, and new ones end at once.
struct Cut(watch::Sender<bool>);

impl Outage for Cut {
    fn begin(&self) {
        self.0.send_replace(false);
    }

    fn end(&self) {
        self.0.send_replace(true);
    }
}

async fn way_to(server: String) -> (SocketAddr, Cut) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let whole = watch::Sender::new(true);
    let watched = whole.subscribe();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let (server, mut whole) = (server.clone(), watched.clone());
            tokio::spawn(async move {
                if !*whole.borrow() {
                    return;
                }
                let Ok(mut far) = TcpStream::connect(&server).await else {
                    return;
                };
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    _ = whole.wait_for(|whole| !whole) => {}
                }
            });
        }
    });
    (address, Cut(whole))
}

async fn call(lines: &mut Lines) -> Value {
    let params = json!({"name": "self__whoami", "arguments": {}});
    lines.ask("tools/call", params).await
}

/// Calls until it is refused because of the registry; everything before is answered well.
async fn until_refused(lines: &mut Lines) {
    loop {
        let answer = call(lines).await;
        if answer["error"]["code"] == 4503 {
            let said = answer["error"]["message"].as_str().unwrap();
            assert!(said.contains("registry"), "{said}");
            return;
        }
        assert!(answer["error"].is_null(), "{answer}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What a new connection of this client comes to.
async fn knock(site: &Site, served: &Served, certified: &Certified) -> bool {
    let Ok(mut lines) = site.try_connect(served, certified).await else {
        return false;
    };
    lines.send(&modern(0, "server/discover", json!({}))).await;
    lines.line().await.is_some()
}

async fn an_outage_is_borne_for_so_long_and_no_longer(site: Site, outage: impl Outage) {
    let one = site.enrol("one", &["tools:*"]).await;
    let two = site.enrol("two", &["tools:*"]).await;
    let served = site.serve().await;
    let mut lines = site.reach(&served, &one).await;
    assert!(call(&mut lines).await["error"].is_null());

    outage.begin();
    // What needs the registry itself is refused at once.
    let revocation = Revocation {
        at: countersign::clock::unix_now(),
        reason: Reason::KeyCompromise,
        by: "test".into(),
    };
    let error = site
        .store
        .revoke(two.fingerprint(), &revocation)
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains(site.store.place()), "{error}");
    // Serving goes on, for those who are in and for those who come.
    assert!(call(&mut lines).await["error"].is_null());
    assert!(knock(&site, &served, &two).await);
    // And then it ends, for both; nobody is thrown out.
    until_refused(&mut lines).await;
    assert!(!knock(&site, &served, &two).await);
    let told = |record: &Value| {
        let reason = record["reason"].as_str().unwrap_or_default();
        record["event"] == "refused" && reason.contains("the registry was last heard of")
    };
    while !site.audit().iter().any(told) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    outage.end();
    while !knock(&site, &served, &two).await {}
    assert!(call(&mut lines).await["error"].is_null());
    served.stop().await;
}

#[tokio::test]
async fn a_sqlite_file_that_is_moved_away() {
    let site = Site::with_registry(|path| {
        (
            path.join("registry.db").into(),
            format!("max_staleness = '{STALENESS}'"),
        )
    });
    let site = site.await;
    let moved = Moved(site.path().join("registry.db"));
    an_outage_is_borne_for_so_long_and_no_longer(site, moved).await;
}

#[tokio::test]
async fn a_postgresql_that_goes_away() {
    let server = postgres();
    let (before, after) = server.split_once('@').unwrap();
    let (address, database) = after.split_once('/').unwrap();
    let (way, cut) = way_to(address.to_owned()).await;
    let schema = create_schema(&server, "outage").await;
    let url = format!("{before}@{way}/{database}?options[search_path]={schema}");
    let place: RegistryPlace = url.parse().unwrap();
    let site = Site::with_registry(|_| (place, format!("max_staleness = '{STALENESS}'"))).await;
    an_outage_is_borne_for_so_long_and_no_longer(site, cut).await;
}

#[tokio::test]
async fn a_command_on_another_machine_revokes_through_postgresql() {
    let server = postgres();
    let schema = create_schema(&server, "fleet").await;
    let url = format!("{server}?options[search_path]={schema}");
    let place: RegistryPlace = url.parse().unwrap();
    let site = Site::with_registry(|_| (place, String::new())).await;
    let (one, two) = (
        site.enrol("one", &["tools:*"]).await,
        site.enrol("two", &["tools:*"]).await,
    );
    let north = site.serve().await;
    let (mut gone, mut bystander) = (
        site.reach(&north, &one).await,
        site.reach(&north, &two).await,
    );

    let folder = tempfile::tempdir().unwrap();
    let run = async |arguments: &[&str]| {
        let mut command = tokio::process::Command::new(PROGRAM);
        command.args(arguments).args(["--registry", &url]);
        command
            .env_clear()
            .current_dir(folder.path())
            .kill_on_drop(true);
        let done = command.output().await.unwrap();
        let said = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
        assert!(done.status.success(), "{arguments:?}: {said}");
        said
    };
    let listed = run(&["pin", "list"]).await;
    assert!(listed.contains("one") && listed.contains("two"), "{listed}");
    run(&["pin", "remove", "two"]).await;
    bystander.ended().await;
    run(&["ca", "revoke", "one"]).await;
    gone.ended().await;
    assert!(!knock(&site, &north, &one).await);
    north.stop().await;
}

fn postgres() -> String {
    std::env::var("COUNTERSIGN_TEST_POSTGRES").expect(
        "this test needs a PostgreSQL: run it by `scripts/postgres run -- cargo nextest run`",
    )
}

/// A schema of this test alone; its name.
async fn create_schema(server: &str, test: &str) -> String {
    use sqlx::{Connection, Executor};
    let schema = format!("{test}_{}", std::process::id());
    let mut connection = sqlx::PgConnection::connect(server).await.unwrap();
    let create = format!("DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}");
    let create = sqlx::raw_sql(sqlx::AssertSqlSafe(create));
    connection.execute(create).await.unwrap();
    schema
}

/// The URL of a schema of this test alone, for tests that are not asynchronous themselves.
pub fn postgres_of(test: &str) -> String {
    let server = postgres();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let schema = runtime.unwrap().block_on(create_schema(&server, test));
    format!("{server}?options[search_path]={schema}")
}

#[tokio::test]
async fn a_server_does_not_start_without_its_registry() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = listener.local_addr().unwrap();
    drop(listener);
    let place: RegistryPlace = format!("postgres://nobody@{nobody}/registry")
        .parse()
        .unwrap();
    let error = registry::open(&place, true)
        .await
        .err()
        .expect("nobody is there");
    assert!(matches!(error, StoreError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains(&nobody.to_string()), "{error}");
}
