//! What renews itself: the server, the bridge and the command, each with a certificate that is due;
//! and that no answer of a CA, however broken, takes the place of a working certificate.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use countersign::clock::unix_now;
use countersign::enrol::{CertFiles, Note, keep, renew};
use countersign::est::{from_body, to_body, write_certs_only};
use countersign::identity::Fingerprint;
use countersign::tls::Identity;
use http_body_util::{BodyExt as _, Full};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, CertificateSigningRequestParams, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::json;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::support::authority::{CaServer, eventually, fingerprint};
use crate::support::client::provider;
use crate::support::pki::{self, Certified, PATIENCE, at};
use crate::support::program::{PROGRAM, Process};
use crate::support::served::{Lines, modern};

/// `countersign serve` on the CA's registry, with the certificate `out/door`.
fn serve(ca: &CaServer) -> (Process, SocketAddr) {
    let reserved = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = reserved.local_addr().unwrap();
    let text = format!(
        r#"
[listen]
address = ["{address}"]

[tls]
certificate = "out/door.crt"
key = "out/door.key"

[[anchor]]
name = "own"
bundle = "pki/ca/root.crt"

[registry]
path = "pki/registry.db"

[audit]
path = "audit.jsonl"
"#
    );
    std::fs::write(ca.path("server.toml"), text).unwrap();
    drop(reserved);
    let mut command = Command::new(PROGRAM);
    command
        .args(["serve", "--config", "server.toml"])
        .current_dir(ca.folder.path());
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null());
    let process = Process(quiet.stderr(Stdio::null()).spawn().unwrap());
    eventually("the server listens", || {
        std::net::TcpStream::connect(address).is_ok()
    });
    (process, address)
}

/// A connection with these files' certificate, and the certificate that the server showed.
async fn connect(address: SocketAddr, files: &CertFiles) -> (Lines, Fingerprint) {
    let mut roots = rustls::RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(&files.ca).unwrap() {
        roots.add(root.unwrap()).unwrap();
    }
    let chain = CertificateDer::pem_file_iter(&files.cert).unwrap();
    let chain: Vec<_> = chain.map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    config.resumption = rustls::client::Resumption::disabled();
    config.alpn_protocols = vec![b"mcp".to_vec()];
    let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
    let stream = TlsConnector::from(Arc::new(config))
        .connect(ServerName::try_from("localhost").unwrap(), tcp)
        .await
        .unwrap();
    let shown = &stream.get_ref().1.peer_certificates().unwrap()[0];
    let shown = Fingerprint::of_der(shown);
    (Lines::over(stream), shown)
}

async fn works(lines: &mut Lines) {
    let answer = lines.ask("tools/list", json!({})).await;
    assert!(answer["result"]["tools"].is_array(), "{answer}");
}

#[test]
fn a_server_renews_its_own_certificate_under_its_connections() {
    let ca = CaServer::start();
    ca.run(&["ca", "issue", "agent", "--grant", "*", "--out", "agent"])
        .ok();
    let files = ca.files("agent/agent");
    ca.issue_due("door", "server");
    let first = fingerprint(&ca.path("out/door.crt"));
    let (_server, address) = serve(&ca);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (mut old, shown) = connect(address, &files).await;
        works(&mut old).await;
        // It may have been quicker than this client.
        let mut now = shown;
        let renewed = async {
            while now == first {
                let (mut lines, shown) = connect(address, &files).await;
                works(&mut lines).await;
                now = shown;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, renewed)
            .await
            .expect("renewed in time");
        works(&mut old).await;
    });
    assert_ne!(fingerprint(&ca.path("out/door.crt")), first);
    let audit = std::fs::read_to_string(ca.path("audit.jsonl")).unwrap();
    let taken_up = audit
        .lines()
        .any(|line| line.contains("\"reloaded\"") && line.contains("\"certificate\""));
    assert!(taken_up, "{audit}");
    assert!(!audit.contains("\"closed\"") || !audit.contains("\"draining\""));
}

#[test]
fn a_bridge_and_a_command_renew_what_they_present() {
    let ca = CaServer::start();
    let hosts = ["--profile", "server", "--dns", "localhost", "--out", "out"];
    ca.run(&[&["ca", "issue", "door"], &hosts[..]].concat())
        .ok();
    let (_server, address) = serve(&ca);
    let server = format!("localhost:{}", address.port());

    ca.issue_due("bridge", "agent");
    let first = fingerprint(&ca.path("out/bridge.crt"));
    let mut command = Command::new(PROGRAM);
    command.args(["connect", "--pki", "out", "--as", "bridge"]);
    command.args(["--server", &server]);
    command.current_dir(ca.folder.path());
    let quiet = command.stdin(Stdio::piped()).stderr(Stdio::null());
    let mut bridge = Process(quiet.stdout(Stdio::piped()).spawn().unwrap());
    let mut input = bridge.0.stdin.take().unwrap();
    let mut output = BufReader::new(bridge.0.stdout.take().unwrap());
    let mut ask = |id: u64| {
        writeln!(input, "{}", modern(id, "tools/list", json!({}))).unwrap();
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert!(line.contains("\"result\""), "{line}");
    };
    ask(1);
    eventually("the bridge has renewed", || {
        fingerprint(&ca.path("out/bridge.crt")) != first
    });
    ask(2);

    ca.issue_due("command", "agent");
    let first = fingerprint(&ca.path("out/command.crt"));
    let call = || {
        let words = ["call", "--pki", "out", "--as", "command"];
        let rest = ["--server", server.as_str(), "self__whoami"];
        // The server hears of a new certificate in its own time.
        eventually("the command is let in", || {
            ca.run(&[&words[..], &rest].concat()).code == 0
        });
    };
    call();
    eventually("the command has renewed", || {
        fingerprint(&ca.path("out/command.crt")) != first
    });
    call();
}

/// What the CA of a test says to a request (DER).
type Says = Box<dyn Fn(&[u8]) -> (StatusCode, Bytes) + Send>;

/// A CA's server that answers as the test says.
struct Fake {
    root: Certified,
    says: Arc<Mutex<Says>>,
    folder: tempfile::TempDir,
    address: SocketAddr,
}

fn certs(certificates: &[&[u8]]) -> Bytes {
    let der = write_certs_only(certificates.iter().copied());
    Bytes::from(to_body(&der))
}

/// As the request asks, whatever else `params` say.
fn signed(by: &Certified, mut params: CertificateParams, request: &[u8]) -> Vec<u8> {
    let request = CertificateSigningRequestParams::from_der(&request.into()).unwrap();
    params.serial_number = Some(vec![1, 2, 3].into());
    let issuer = Issuer::from_params(&by.params, &by.key);
    let der = params.signed_by(&request.public_key, &issuer).unwrap();
    der.der().to_vec()
}

impl Fake {
    async fn start() -> Self {
        let root = pki::root("root");
        let server = root.sign(pki::server());
        let key = PrivateKeyDer::try_from(server.key.serialize_der()).unwrap();
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(server.chain(), key)
            .unwrap();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let says: Says = Box::new(|_| (StatusCode::NOT_FOUND, Bytes::new()));
        let says = Arc::new(Mutex::new(says));
        let (root_der, saying) = (root.der.to_vec(), says.clone());
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, root, says) = (acceptor.clone(), root_der.clone(), saying.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(tcp).await else {
                        return;
                    };
                    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                        let (root, says) = (root.clone(), says.clone());
                        async move {
                            let wanted = request.uri().path().ends_with("simplereenroll");
                            let body = request.into_body().collect().await.unwrap().to_bytes();
                            let (status, answer) = if wanted {
                                says.lock().unwrap()(&from_body(&body).unwrap())
                            } else {
                                (StatusCode::OK, certs(&[&root]))
                            };
                            let mut response = Response::new(Full::new(answer));
                            *response.status_mut() = status;
                            Ok::<_, std::convert::Infallible>(response)
                        }
                    });
                    let served =
                        http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                    let _ = served.await;
                });
            }
        });
        let fake = Self {
            root,
            says,
            folder: tempfile::tempdir().unwrap(),
            address,
        };
        fake.hand_out(pki::client("agent"));
        fake
    }

    /// Writes a certificate with these contents where the client has its own.
    fn hand_out(&self, params: CertificateParams) {
        let files = self.files();
        let agent = self.root.sign(params);
        let (cert, key) = agent.write(self.folder.path(), "agent");
        assert_eq!(key, files.key);
        std::fs::rename(cert, &files.cert).unwrap();
        let ca = pki::pem(std::slice::from_ref(&self.root.der));
        std::fs::write(&files.ca, ca).unwrap();
        let address = self.address.to_string();
        files.write_note(&Note { address }).unwrap();
    }

    fn files(&self) -> CertFiles {
        let at = |name: &str| self.folder.path().join(name);
        CertFiles::new(&at("agent.crt"), &at("agent.key"))
    }

    fn answers(&self, says: impl Fn(&[u8]) -> (StatusCode, Bytes) + Send + 'static) {
        *self.says.lock().unwrap() = Box::new(says);
    }

    /// With a certificate that `by` signed on the request's key.
    fn answers_signed(&self, by: &Arc<Certified>, params: CertificateParams) {
        let by = by.clone();
        self.answers(move |request| {
            let leaf = signed(&by, params.clone(), request);
            (StatusCode::OK, certs(&[&leaf]))
        });
    }
}

fn content(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    let mut all: Vec<_> = entries
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, std::fs::read(entry.path()).unwrap())
        })
        .collect();
    all.sort();
    all
}

#[tokio::test]
async fn no_broken_answer_takes_the_place_of_a_working_certificate() {
    let fake = Fake::start().await;
    let files = fake.files();
    let root = Arc::new(Certified {
        der: fake.root.der.clone(),
        key: KeyPair::from_pem(&fake.root.key.serialize_pem()).unwrap(),
        params: fake.root.params.clone(),
        above: Vec::new(),
    });
    let stranger = Arc::new(pki::root("root"));
    fake.answers_signed(&root, pki::client("agent"));
    let renewed = renew(&files, true, unix_now()).await.unwrap();
    assert!(renewed.is_some(), "a whole answer is taken");

    let before = content(fake.folder.path());
    let refuse = async |what: &str, said: &str| {
        let error = renew(&files, true, unix_now()).await.expect_err(what);
        assert!(error.to_string().contains(said), "{what}: {error}");
        assert_eq!(content(fake.folder.path()), before, "{what}");
        Identity::load(&files.cert, &files.key, None).expect(what);
    };
    let by = root.clone();
    fake.answers(move |_| {
        let other = by.sign(pki::client("agent"));
        (StatusCode::OK, certs(&[&other.der]))
    });
    refuse("another key", "for another key").await;
    fake.answers_signed(&root, pki::client("mallory"));
    refuse("another name", "it is not for").await;
    fake.answers_signed(&stranger, pki::client("agent"));
    refuse("another CA", "the CA that is trusted here").await;
    let mut ended = pki::client("agent");
    (ended.not_before, ended.not_after) = (at(-7200), at(-3600));
    fake.answers_signed(&root, ended);
    refuse("one that has ended", "it ended at").await;
    let mut early = pki::client("agent");
    early.not_before = at(3600);
    fake.answers_signed(&root, early);
    refuse("one that has not begun", "it begins at").await;
    let mut authority = pki::ca("agent", 0);
    authority.subject_alt_names = pki::client("agent").subject_alt_names;
    fake.answers_signed(&root, authority);
    refuse("a CA's", "certificate of a CA").await;
    fake.answers(|_| (StatusCode::OK, Bytes::from_static(b"nonsense")));
    refuse("nonsense", "does not answer as a CA's server").await;
    let by = root.clone();
    fake.answers(move |request| {
        let leaf = signed(&by, pki::client("agent"), request);
        let der = write_certs_only([leaf.as_slice()]);
        (StatusCode::OK, Bytes::from(to_body(&der[..der.len() / 2])))
    });
    refuse("half of it", "does not answer as a CA's server").await;
    let by = root.clone();
    fake.answers(move |request| {
        let leaf = signed(&by, pki::client("agent"), request);
        (StatusCode::OK, certs(&[&leaf, &leaf]))
    });
    refuse("two of them", "several certificates").await;
    fake.answers(|_| (StatusCode::SERVICE_UNAVAILABLE, Bytes::new()));
    refuse("not now", "refused").await;
}

#[tokio::test]
async fn what_failed_is_tried_again_with_the_old_certificate_in_place() {
    let fake = Fake::start().await;
    let mut due = pki::client("agent");
    (due.not_before, due.not_after) = (at(-45), at(15));
    fake.hand_out(due);
    let (files, root) = (fake.files(), &fake.root);
    let first = fingerprint(&files.cert);
    let by = Certified {
        der: root.der.clone(),
        key: KeyPair::from_pem(&root.key.serialize_pem()).unwrap(),
        params: root.params.clone(),
        above: Vec::new(),
    };
    let asked = Mutex::new(0);
    fake.answers(move |request| {
        let mut asked = asked.lock().unwrap();
        *asked += 1;
        // The first answer is for somebody else.
        let name = if *asked == 1 { "mallory" } else { "agent" };
        (
            StatusCode::OK,
            certs(&[&signed(&by, pki::client(name), request)]),
        )
    });
    let (tell, mut told) = tokio::sync::mpsc::channel(8);
    let cert = files.cert.clone();
    let keeping = tokio::spawn(keep(files, move |outcome| {
        let outcome = outcome.map_err(ToString::to_string);
        tell.try_send((outcome, fingerprint(&cert))).expect("room");
    }));
    let mut next = async || {
        let told = tokio::time::timeout(PATIENCE, told.recv());
        told.await.expect("in time").expect("it lives")
    };
    let (outcome, held) = next().await;
    assert!(outcome.unwrap_err().contains("it is not for"));
    assert_eq!(held, first);
    let (outcome, held) = next().await;
    outcome.unwrap();
    assert_ne!(held, first);
    keeping.abort();
}

/// The CA's own server: issued by the CA at hand, taken up without a restart and without ending
/// whoever is connected.
#[test]
fn the_cas_server_renews_its_own_certificate() {
    let mut ca = CaServer::made();
    std::fs::create_dir(ca.path("profiles")).unwrap();
    let brief = "description = \"a server for a minute\"\nusage = [\"server\"]\nlifetime = \"1m\"\n\
                 longest = \"1m\"\nkey = \"p256\"\ngrants = []\n";
    std::fs::write(ca.path("profiles/server.toml"), brief).unwrap();
    ca.serve(&["--profiles", "profiles"]);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let root = ca.path("pki/ca/root.crt");
    let shown = runtime.block_on(async {
        let (mut held, first) = ask(ca.est, &root).await;
        let renewed = async {
            loop {
                let (_, now) = ask(ca.est, &root).await;
                cacerts(&mut held).await;
                if now != first {
                    return now;
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        };
        // Its life is two minutes, of which one is over when it begins.
        let patience = Duration::from_secs(60) + PATIENCE;
        let now = tokio::time::timeout(patience, renewed).await;
        now.expect("renewed in time")
    });
    assert_eq!(fingerprint(&ca.path("pki/ca/serve.crt")), shown);
    assert!(ca.known(shown).is_some());
}

type Held = hyper::client::conn::http1::SendRequest<Full<Bytes>>;

/// A connection to the CA's server that has asked once, and what that showed.
async fn ask(est: SocketAddr, root: &Path) -> (Held, Fingerprint) {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(root).unwrap())
        .unwrap();
    let config = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = tokio::net::TcpStream::connect(est).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let stream = connector.connect(name, tcp).await.unwrap();
    let shown = Fingerprint::of_der(&stream.get_ref().1.peer_certificates().unwrap()[0]);
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
    let (mut held, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    cacerts(&mut held).await;
    (held, shown)
}

async fn cacerts(held: &mut Held) {
    let request = Request::get("/.well-known/est/cacerts").header("host", "127.0.0.1");
    held.ready().await.expect("it is open");
    let answer = held.send_request(request.body(Full::default()).unwrap());
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.into_body().collect().await.unwrap();
}
