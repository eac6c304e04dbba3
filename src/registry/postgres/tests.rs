//! The suite on PostgreSQL, and what only a database at the other end of a connection can get wrong.
//! `scripts/postgres run -- COMMAND` gives them one.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use sqlx::{Connection, Executor, PgConnection};

use super::super::feed::Applied;
use super::super::outage::Way;
use super::super::record::Reason;
use super::super::store::{Store, StoreError};
use super::super::suite::{Fixture, Following, made, suite, why};
use super::super::view::Standing;
use super::PostgresStore;

/// Where the tests' database is.
#[expect(
    clippy::disallowed_methods,
    reason = "the one thing that a test must be told from outside"
)]
fn server() -> String {
    std::env::var("COUNTERSIGN_TEST_POSTGRES").expect(
        "these tests need a PostgreSQL: run them by `scripts/postgres run -- cargo nextest run`",
    )
}

/// A schema of its own in the tests' database.
struct Schema {
    name: String,
}

impl Schema {
    async fn new() -> Self {
        let mut bytes = [0; 8];
        let random = ring::rand::SystemRandom::new();
        ring::rand::SecureRandom::fill(&random, &mut bytes).expect("random bytes");
        let name = format!("test_{}", hex::encode(bytes));
        let create = sqlx::AssertSqlSafe(format!("CREATE SCHEMA {name}"));
        let mut connection = PgConnection::connect(&server()).await.expect("connected");
        connection.execute(create).await.expect("made");
        Self { name }
    }

    fn url(&self) -> String {
        format!(
            "{}?options[search_path]={name}&application_name={name}",
            server(),
            name = self.name
        )
    }

    async fn open(&self) -> PostgresStore {
        PostgresStore::open(&self.url(), None, true)
            .await
            .expect("opened")
    }

    /// Somebody else's connection.
    async fn raw(&self) -> PgConnection {
        PgConnection::connect(&self.url()).await.expect("connected")
    }

    async fn refusal(&self, create: bool) -> StoreError {
        PostgresStore::open(&self.url(), None, create)
            .await
            .expect_err("refused")
    }

    /// The store behind a way that can be cut.
    async fn behind(&self) -> (Way, PostgresStore) {
        let url = self.url();
        let (before, after) = url.split_once('@').expect("a user");
        let (address, rest) = after.split_once('/').expect("a database");
        let way = Way::to(address).await;
        let url = format!("{before}@{}/{rest}", way.address());
        let store = PostgresStore::open(&url, None, true).await.expect("opened");
        (way, store)
    }
}

/// The schema is made with the first handle: a fixture is made where nothing can be awaited.
#[derive(Default)]
struct Lazy(tokio::sync::OnceCell<Schema>);

impl Fixture for Lazy {
    async fn handle(&self) -> Arc<dyn Store> {
        Arc::new(self.0.get_or_init(Schema::new).await.open().await)
    }
}

suite!(Lazy::default());

#[tokio::test]
async fn what_was_written_is_there_for_the_next_process() {
    let schema = Schema::new().await;
    let store = schema.open().await;
    store.enrol(&made(1)).await.expect("enrolled");
    let revocation = why(Reason::Superseded);
    store
        .revoke(made(1).fingerprint, &revocation)
        .await
        .expect("revoked");
    drop(store);
    let store = PostgresStore::open(&schema.url(), None, false).await;
    let store = store.expect("it is a registry now");
    let first = store.get(made(1).fingerprint).await.expect("read");
    assert_eq!(first.expect("enrolled").revocation, Some(revocation));
    assert_eq!(store.enrol(&made(2)).await, Ok(3), "numbers go on");
}

#[tokio::test]
async fn a_registry_is_made_only_where_that_is_wanted() {
    let schema = Schema::new().await;
    assert!(matches!(
        schema.refusal(false).await,
        StoreError::Corrupt { .. }
    ));
    schema.open().await.enrol(&made(1)).await.expect("enrolled");
    PostgresStore::open(&schema.url(), None, false)
        .await
        .expect("it is one now");

    let schema = Schema::new().await;
    let mut raw = schema.raw().await;
    raw.execute("CREATE TABLE enrolments (id bigint)")
        .await
        .expect("made");
    let StoreError::Corrupt { what, .. } = schema.refusal(true).await else {
        panic!("the tables of another program")
    };
    assert!(what.contains("already exists"), "{what}");
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let schema = Schema::new().await;
    drop(schema.open().await);
    let mut raw = schema.raw().await;
    raw.execute("UPDATE countersign_registry SET version = 99")
        .await
        .expect("set");
    let newer = StoreError::NewerSchema {
        place: schema.url(),
        found: 99,
        known: 2,
    };
    assert_eq!(schema.refusal(true).await, newer);
    raw.execute("UPDATE countersign_registry SET version = 2")
        .await
        .expect("set");
    drop(schema.open().await);
}

#[tokio::test]
async fn an_older_schema_is_brought_up_to_date() {
    let schema = Schema::new().await;
    schema.open().await.enrol(&made(1)).await.expect("enrolled");
    let mut raw = schema.raw().await;
    let back = "DROP TABLE tokens; UPDATE countersign_registry SET version = 1";
    raw.execute(sqlx::raw_sql(back)).await.expect("set back");
    let store = schema.open().await;
    let digest = super::super::token::TokenDigest::of(b"none");
    assert_eq!(store.token(digest).await, Ok(None));
    assert_eq!(store.get(made(1).fingerprint).await, Ok(Some(made(1))));
}

#[tokio::test]
async fn several_may_make_it_at_once() {
    let schema = Arc::new(Schema::new().await);
    let mut opening = tokio::task::JoinSet::new();
    for number in 0..8 {
        let schema = Arc::clone(&schema);
        opening.spawn(async move { schema.open().await.enrol(&made(number)).await });
    }
    let seqs = opening.join_all().await;
    assert!(seqs.iter().all(Result::is_ok), "{seqs:?}");
    assert_eq!(schema.open().await.newest().await, Ok(8));
}

/// TLS before the tests' database, as PostgreSQL offers it (its protocol, section 54.2.12): the address, and
/// the file of the CA.
async fn secured(folder: &std::path::Path) -> (std::net::SocketAddr, std::path::PathBuf) {
    use rustls::pki_types::PrivateKeyDer;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let ca_key = rcgen::KeyPair::generate().expect("a key");
    let mut ca = rcgen::CertificateParams::default();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_der = ca.self_signed(&ca_key).expect("a CA");
    let file = folder.join("ca.pem");
    std::fs::write(&file, ca_der.pem()).expect("written");
    let key = rcgen::KeyPair::generate().expect("a key");
    let leaf = rcgen::CertificateParams::new(vec!["127.0.0.1".into()])
        .and_then(|leaf| leaf.signed_by(&key, &rcgen::Issuer::new(ca, ca_key)))
        .expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )
        .expect("a configuration");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("bound");
    let address = listener.local_addr().expect("an address");
    let server = server();
    let (_, after) = server.split_once('@').expect("a user");
    let (behind, _) = after.split_once('/').expect("a database");
    let behind = behind.to_owned();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let (acceptor, behind) = (acceptor.clone(), behind.clone());
            tokio::spawn(async move {
                let mut asks = [0; 8];
                near.read_exact(&mut asks).await?;
                assert_eq!(asks, [0, 0, 0, 8, 4, 210, 22, 47], "it asks for TLS");
                near.write_all(b"S").await?;
                let mut near = acceptor.accept(near).await?;
                let mut far = tokio::net::TcpStream::connect(behind).await?;
                tokio::io::copy_bidirectional(&mut near, &mut far).await
            });
        }
    });
    (address, file)
}

#[tokio::test]
async fn the_database_s_certificate_comes_from_the_ca_that_is_named() {
    let (schema, folder) = (Schema::new().await, tempfile::tempdir().expect("a folder"));
    let (address, ca) = secured(folder.path()).await;
    let url = schema.url();
    let (_, rest) = url.split_once("/countersign?").expect("parameters");
    let at = |host: &str, ca: &std::path::Path| {
        let port = address.port();
        format!(
            "postgres://countersign@{host}:{port}/countersign?{rest}&sslmode=verify-full&sslrootcert={}",
            ca.display()
        )
    };
    let store = PostgresStore::open(&at("127.0.0.1", &ca), None, true)
        .await
        .expect("by the CA that is named");
    assert_eq!(store.enrol(&made(1)).await, Ok(1));
    let other = tempfile::tempdir().expect("a folder");
    let (_, another) = secured(other.path()).await;
    for url in [at("127.0.0.1", &another), at("localhost", &ca)] {
        let refused = PostgresStore::open(&url, None, true).await;
        let refused = refused.expect_err("another CA, another name");
        assert!(refused.to_string().contains("certificate"), "{refused}");
    }
}

#[tokio::test]
async fn a_password_comes_from_a_file_of_its_owner_and_is_never_told() {
    let schema = Schema::new().await;
    let mut raw = schema.raw().await;
    let grant = sqlx::AssertSqlSafe(format!("GRANT ALL ON SCHEMA {} TO locked", schema.name));
    raw.execute(grant).await.expect("granted");
    let url = schema.url().replace("countersign@", "locked@");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("password");
    let write = |text: &str, mode: u32| {
        std::fs::write(&file, text).expect("written");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).expect("set");
    };
    write("right\nand a second line\n", 0o600);
    let store = PostgresStore::open(&url, Some(&file), true)
        .await
        .expect("opened");
    assert_eq!(store.enrol(&made(1)).await, Ok(1));
    assert!(!format!("{store:?}").contains("right"));

    let refused = async || {
        let error = PostgresStore::open(&url, Some(&file), false)
            .await
            .expect_err("refused");
        assert!(matches!(error, StoreError::Unreachable { .. }), "{error}");
        error.to_string()
    };
    write("secret-but-wrong", 0o600);
    let said = refused().await;
    assert!(
        said.contains("password") && !said.contains("secret-but"),
        "{said}"
    );
    write("right", 0o640);
    assert!(refused().await.contains("mode 0640"));
    std::fs::remove_file(&file).expect("removed");
    assert!(refused().await.contains("password file"));
}

#[tokio::test]
async fn a_writer_waits_for_another_process_s_transaction() {
    let schema = Schema::new().await;
    let store = Arc::new(schema.open().await);
    let mut raw = schema.raw().await;
    let mut held = raw.begin().await.expect("begun");
    held.execute("SELECT newest FROM feed FOR UPDATE")
        .await
        .expect("held");
    let writing = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.enrol(&made(1)).await }
    });
    assert_eq!(store.newest().await, Ok(0), "a reader does not wait");
    let other = schema.open().await;
    other
        .heartbeat("north", 0)
        .await
        .expect("a heartbeat does not wait");
    assert!(!writing.is_finished());
    held.rollback().await.expect("rolled back");
    assert_eq!(writing.await.expect("it ends"), Ok(1));
}

#[tokio::test]
async fn a_request_is_carried_out_although_nobody_waits_for_it() {
    let schema = Schema::new().await;
    let store = schema.open().await;
    let mut raw = schema.raw().await;
    let mut held = raw.begin().await.expect("begun");
    held.execute("SELECT newest FROM feed FOR UPDATE")
        .await
        .expect("held");
    let impatient = tokio::time::timeout(Duration::from_millis(20), store.enrol(&made(1))).await;
    assert!(impatient.is_err());
    held.rollback().await.expect("rolled back");
    assert_eq!(store.changed(0, Duration::from_secs(20)).await, Ok(1));
}

#[tokio::test]
async fn a_database_that_goes_away_is_noticed_and_served_from_memory() {
    let schema = Schema::new().await;
    let (way, ca) = schema.behind().await;
    ca.enrol(&made(1)).await.expect("enrolled");
    let ca = Arc::new(ca);
    let server = Following::start(Arc::clone(&ca) as Arc<dyn Store>, "north").await;
    way.cut();
    let error = ca.enrol(&made(2)).await.expect_err("refused at once");
    assert!(matches!(error, StoreError::Unreachable { .. }), "{error}");
    while server.view.trouble().is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let standing = server.view.standing(&made(1).fingerprint);
    assert!(matches!(standing, Standing::Pinned(_)));

    way.mend();
    assert_eq!(ca.enrol(&made(2)).await, Ok(2));
    while server.view.trouble().is_some() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_connection_that_the_database_ended_is_made_anew() {
    let schema = Schema::new().await;
    let store = schema.open().await;
    let mut server = Following::start(Arc::new(schema.open().await), "north").await;
    store.enrol(&made(1)).await.expect("enrolled");
    server.reach(1).await;
    let mut raw = schema.raw().await;
    // Those of this test by their name: others have connections of their own.
    let ended: Vec<bool> = sqlx::query_scalar(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1
         AND pid <> pg_backend_pid()",
    )
    .bind(&schema.name)
    .fetch_all(&mut raw)
    .await
    .expect("ended");
    assert!(ended.len() >= 4, "writers, a reader, a listener: {ended:?}");
    assert_eq!(store.enrol(&made(2)).await, Ok(2));
    server.reach(2).await;
}

#[tokio::test]
async fn an_older_copy_takes_pins_away_and_no_revocation() {
    let schema = Schema::new().await;
    let ca = schema.open().await;
    for number in 0..3 {
        ca.enrol(&made(number)).await.expect("enrolled");
    }
    let mut server = Following::start(Arc::new(schema.open().await), "north").await;
    let seq = ca
        .revoke(made(2).fingerprint, &why(Reason::KeyCompromise))
        .await
        .expect("revoked");
    server.reach(seq).await;
    let mut raw = schema.raw().await;
    let back = "DELETE FROM changes WHERE seq > 1; DELETE FROM certificates WHERE enrolment > 1;
                DELETE FROM enrolments WHERE id > 1; UPDATE feed SET newest = 1";
    raw.execute(sqlx::raw_sql(back)).await.expect("set back");
    let batch = server.applied.recv().await.expect("the feed runs");
    let expected = Applied {
        changes: Vec::new(),
        upto: 1,
        reloaded: true,
    };
    assert_eq!(batch, expected);
    let standing = |number| server.view.standing(&made(number).fingerprint);
    assert!(matches!(standing(0), Standing::Pinned(_)));
    assert_eq!(standing(1), Standing::Unknown);
    assert_eq!(standing(2), Standing::Revoked);
}

#[tokio::test]
async fn a_row_that_nobody_of_us_wrote_is_an_error_and_no_guess() {
    let schema = Schema::new().await;
    let store = schema.open().await;
    store.enrol(&made(1)).await.expect("enrolled");
    assert!(store.get(made(1).fingerprint).await.is_ok());
    let mut raw = schema.raw().await;
    raw.execute("UPDATE enrolments SET kind = 7")
        .await
        .expect("spoilt");
    let error = store.get(made(1).fingerprint).await.expect_err("a kind");
    let StoreError::Corrupt { what, .. } = error else {
        panic!("it is the store's fault")
    };
    assert_eq!(what, "`7` is not a kind of enrolment");
    let page = store.page(0, 10, made(1).not_before).await;
    assert!(matches!(page, Err(StoreError::Corrupt { .. })), "{page:?}");
}

#[tokio::test]
async fn a_notification_wakes_long_before_the_poll_and_heartbeats_wake_nobody() {
    let schema = Schema::new().await;
    let (waiting, other) = (schema.open().await, schema.open().await);
    let mut rings = waiting.ear.listen();
    waiting.ear.watch();
    rings.changed().await.expect("it listens");
    rings.mark_unchanged();
    other.heartbeat("north", 1).await.expect("heard");
    other.farewell("north").await.expect("heard");
    other.enrol(&made(1)).await.expect("enrolled");
    tokio::time::timeout(Duration::from_secs(20), rings.changed())
        .await
        .expect("a ring")
        .expect("it listens");
    // Notifications come in the order of their commits: one of a heartbeat would have come first.
    rings.mark_unchanged();
    other.enrol(&made(2)).await.expect("enrolled");
    tokio::time::timeout(Duration::from_secs(20), rings.changed())
        .await
        .expect("a ring")
        .expect("it listens");
}
