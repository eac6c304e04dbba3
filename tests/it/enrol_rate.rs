//! How many certificates a second, each on disk before its answer. Not a test but a measurement:
//! `cargo test --release --test it -- --ignored --nocapture issuances_a_second`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use countersign::clock::unix_now;
use countersign::est::to_body;
use countersign::grant::WrittenGrants;
use countersign::identity::Name;
use countersign::registry::{Store as _, Token, TokenDigest};
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::authority::CaServer;

const ALL: usize = 4000;
const AT_ONCE: usize = 32;

#[test]
#[ignore = "a measurement: it takes a release build and both cores"]
fn issuances_a_second() {
    let ca = CaServer::with(&["--per-source", "1000000"]);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    for fresh in [true, false] {
        put_tokens(&ca, fresh);
        let config = client_config(&ca);
        let began = Instant::now();
        runtime.block_on(async {
            let next = Arc::new(AtomicUsize::new(0));
            let mut clients = tokio::task::JoinSet::new();
            for _ in 0..AT_ONCE {
                clients.spawn(enrol_all(ca.est, config.clone(), next.clone(), fresh));
            }
            while let Some(done) = clients.join_next().await {
                done.unwrap();
            }
        });
        let rate = ALL as f64 / began.elapsed().as_secs_f64();
        let kind = if fresh {
            "a connection each"
        } else {
            "connections kept"
        };
        println!("{rate:.0} issuances a second, {kind}, {AT_ONCE} clients on the same cores");
    }
}

fn secret(number: usize, fresh: bool) -> [u8; 32] {
    let mut secret = [u8::from(fresh); 32];
    secret[..8].copy_from_slice(&number.to_be_bytes());
    secret
}

fn put_tokens(ca: &CaServer, fresh: bool) {
    ca.with_store(async |store| {
        let tokens: Vec<Token> = (0..ALL)
            .map(|number| Token {
                digest: TokenDigest::of(&secret(number, fresh)),
                name: Name::new(&format!("spiffe://example.org/{fresh}/agent-{number}")).unwrap(),
                grants: WrittenGrants::parse(&["tools:files__*"]).unwrap(),
                profile: "agent".into(),
                hosts: Vec::new(),
                lifetime: None,
                expires_at: unix_now().plus(std::time::Duration::from_secs(900)),
                created_at: unix_now(),
                created_by: "measurement".into(),
                used_at: None,
            })
            .collect();
        for some in tokens.chunks(200) {
            futures_util::future::join_all(some.iter().map(|token| store.put_token(token)))
                .await
                .into_iter()
                .for_each(|kept| kept.unwrap());
        }
    });
}

fn client_config(ca: &CaServer) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    let root = countersign::cert::load_chain(&ca.path("pki/ca/root.crt"))
        .unwrap()
        .remove(0);
    roots.add(root.into()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

type Sender = SendRequest<Full<Bytes>>;

async fn connect(est: std::net::SocketAddr, config: &Arc<rustls::ClientConfig>) -> Sender {
    let tcp = TcpStream::connect(est).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
    let tls = TlsConnector::from(config.clone())
        .connect(name, tcp)
        .await
        .unwrap();
    let (sender, connection) = handshake(TokioIo::new(tls)).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn enrol_all(
    est: std::net::SocketAddr,
    config: Arc<rustls::ClientConfig>,
    next: Arc<AtomicUsize>,
    fresh: bool,
) {
    // One key for all: making keys is not what is measured.
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let body = Bytes::from(to_body(params.serialize_request(&key).unwrap().der()));
    let mut sender = connect(est, &config).await;
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= ALL {
            return;
        }
        if fresh {
            sender = connect(est, &config).await;
        }
        use base64::Engine as _;
        let password = base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let request = Request::post("/.well-known/est/simpleenroll")
            .header("host", est.to_string())
            .header("content-type", "application/pkcs10")
            .header(
                "authorization",
                format!("Bearer {}", password.encode(secret(number, fresh))),
            )
            .body(Full::new(body.clone()))
            .unwrap();
        sender.ready().await.unwrap();
        let answer = sender.send_request(request).await.unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    }
}
