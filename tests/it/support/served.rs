//! A whole server, put together from a configuration as `countersign serve` does it, on a registry
//! and with certificates that the test made; and a client that speaks lines over TLS.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use countersign::backend::Provider;
use countersign::clock;
use countersign::config::Config;
use countersign::grant::WrittenGrants;
use countersign::identity::Name;
use countersign::registry::{
    self, Confirmation, Enrolment, EnrolmentKind, Reason, RegistryPlace, Revocation, Store,
};
use countersign::server;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::client::Client;
use super::pki::{self, Certified, PATIENCE};

/// The folder, the certificates and the registry; a server can be started on it again and again.
pub struct Site {
    pub folder: tempfile::TempDir,
    pub server_root: Certified,
    pub issuing: Certified,
    pub store: Arc<dyn Store>,
    /// Where `[registry]` says it is.
    pub place: String,
    /// What is appended to the configuration.
    pub extra: String,
    /// More lines of `[registry]`.
    pub registry: String,
}

/// A server that runs.
pub struct Served {
    pub address: SocketAddr,
    stop: oneshot::Sender<&'static str>,
    running: JoinHandle<Result<(), server::ServerError>>,
}

impl Site {
    pub async fn new() -> Self {
        Self::with("").await
    }

    /// `extra`: tables that are appended to the configuration.
    pub async fn with(extra: &str) -> Self {
        let site = Self::with_registry(|path| (path.join("registry.db").into(), String::new()));
        Self {
            extra: extra.to_owned(),
            ..site.await
        }
    }

    /// Where the registry of a site in this folder is, and what else is in its table.
    pub async fn with_registry(registry: impl FnOnce(&Path) -> (RegistryPlace, String)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = pki::root("root");
        let issuing = root.sign(pki::ca("issuing", 1));
        let server_root = pki::root("server root");
        let path = folder.path();
        std::fs::write(
            path.join("anchor.pem"),
            pki::pem(std::slice::from_ref(&root.der)),
        )
        .unwrap();
        std::fs::write(
            path.join("servers.pem"),
            pki::pem(std::slice::from_ref(&server_root.der)),
        )
        .unwrap();
        server_root.sign(pki::server()).write(path, "server");
        std::fs::create_dir_all(path.join("docs/deep")).unwrap();
        std::fs::write(path.join("docs/hello.txt"), "hello from a file\n").unwrap();
        std::fs::write(path.join("docs/deep/more.txt"), "more\n").unwrap();
        let (place, more) = registry(path);
        let store = registry::open(&place, true).await.unwrap();
        let key = if place.file().is_some() {
            "path"
        } else {
            "url"
        };
        Self {
            server_root,
            issuing,
            store,
            extra: String::new(),
            place: format!("{key} = '{place}'"),
            registry: more,
            folder,
        }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The root of the `files` provider as it stands in URIs.
    pub fn uri(&self, file: &str) -> String {
        let root = self.path().join("docs").canonicalize().unwrap();
        format!("file://{}/{file}", root.display())
    }

    /// The configuration file's text.
    pub fn config_text(&self) -> String {
        format!(
            r#"
[listen]
address = ["127.0.0.1:0"]
drain = "5s"

[tls]
certificate = "server.pem"
key = "server.key"

[[anchor]]
name = "ours"
bundle = "anchor.pem"

[registry]
{}
{}

[audit]
path = "audit.jsonl"

[[files]]
name = "files"
root = "docs"
writable = true

[[prompt]]
name = "greet"
description = "Greets somebody"
argument = [{{ name = "who", required = true }}]
message = [{{ role = "user", text = "Say hello to {{{{who}}}}" }}]

{}
"#,
            self.place, self.registry, self.extra
        )
    }

    pub fn config(&self) -> Config {
        let file = self.path().join("countersign.toml");
        std::fs::write(&file, self.config_text()).unwrap();
        Config::load(&file, std::iter::empty()).unwrap()
    }

    pub async fn serve(&self) -> Served {
        self.serve_with(Vec::new()).await
    }

    pub async fn serve_with(&self, providers: Vec<(String, Arc<dyn Provider>)>) -> Served {
        let config = self.config();
        let source = config.source.clone();
        let again: server::Again = Box::new(move || {
            Config::load(&source, std::iter::empty()).map_err(|all| {
                all.iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join("; ")
            })
        });
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = oneshot::channel();
        let running = tokio::spawn(server::serve(
            config,
            providers,
            again,
            async { stopped.await.unwrap_or("the test is over") },
            move |at| drop(ready.send(at)),
        ));
        let ready = tokio::time::timeout(PATIENCE, is_ready)
            .await
            .expect("starts in time");
        let Ok(ready) = ready else {
            panic!("{:?}", running.await)
        };
        Served {
            address: ready.addresses[0],
            stop,
            running,
        }
    }

    /// Serves in a process of its own: the test of this binary with that name, which is told the
    /// configuration's file and says `listens ADDRESS`. And the number of the process.
    pub async fn serve_apart(&self, test: &str) -> (Served, u32) {
        self.config();
        let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
        command
            .args([test, "--exact", "--ignored", "--nocapture"])
            .arg(self.path().join("countersign.toml"))
            .stdout(std::process::Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let process = child.id().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if let Some((_, address)) = line.split_once("listens ") {
                    return address.parse().unwrap();
                }
            }
            panic!("the server ended before it listened")
        };
        let address = tokio::time::timeout(PATIENCE, address)
            .await
            .expect("starts in time");
        let (stop, stopped) = oneshot::channel::<&'static str>();
        let running = tokio::spawn(async move {
            let _ = stopped.await;
            child.kill().await.unwrap();
            drop(lines);
            Ok(())
        });
        let served = Served {
            address,
            stop,
            running,
        };
        (served, process)
    }

    /// A client of this name whose certificate carries these grants, enrolled and pinned.
    pub async fn enrol(&self, name: &str, grants: &[&str]) -> Certified {
        let mut params = pki::client(name);
        params.custom_extensions = vec![pki::permissions(grants)];
        let certified = self.issuing.sign(params);
        self.record(name, &certified, None).await;
        certified
    }

    /// Enrols a certificate; `grants`: the pin's own set.
    pub async fn record(&self, name: &str, certified: &Certified, grants: Option<&[&str]>) {
        let enrolment = Enrolment {
            fingerprint: certified.fingerprint(),
            kind: EnrolmentKind::Leaf,
            name: Name::new(&pki::spiffe(name)).unwrap(),
            serial: countersign::cert::Parsed::from_der(
                &certified.der,
                countersign::cert::DEFAULT_PERMISSION_OID,
            )
            .unwrap()
            .serial,
            issuer: Some(self.issuing.fingerprint()),
            profile: "agent".into(),
            grants: grants.map(|grants| WrittenGrants::parse(grants).unwrap()),
            not_before: clock::unix_now(),
            not_after: certified.not_after(),
            pinned: true,
            revocation: None,
            created_at: clock::unix_now(),
            created_by: "test".into(),
            der: certified.der.to_vec(),
        };
        self.store.enrol(&enrolment).await.unwrap();
    }

    /// Revokes and waits until every live server has applied it.
    pub async fn revoke(&self, certified: &Certified) -> Confirmation {
        let revocation = Revocation {
            at: clock::unix_now(),
            reason: Reason::KeyCompromise,
            by: "test".into(),
        };
        let seq = self
            .store
            .revoke(certified.fingerprint(), &revocation)
            .await
            .unwrap();
        self.store.confirmed(seq, PATIENCE).await.unwrap()
    }

    /// The records of the audit log so far.
    pub fn audit(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path().join("audit.jsonl")).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// A connection of this client, once the server has heard of its certificate.
    pub async fn reach(&self, served: &Served, certified: &Certified) -> Lines {
        loop {
            if let Ok(mut lines) = self.try_connect(served, certified).await {
                // In TLS 1.3 a client hears how it was judged with the first answer.
                lines.send(&modern(0, "server/discover", json!({}))).await;
                if lines.line().await.is_some() {
                    return lines;
                }
            }
        }
    }

    pub async fn try_connect(
        &self,
        served: &Served,
        certified: &Certified,
    ) -> std::io::Result<Lines> {
        let client = Client::of(certified, &self.server_root).offering(&["mcp"]);
        Ok(Lines::over(tls(&client, served.address).await?))
    }
}

/// TCP and handshake.
pub async fn tls(client: &Client, address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    let connector = TlsConnector::from(Arc::new(client.config.clone()));
    connector
        .connect(ServerName::try_from("localhost").unwrap(), tcp)
        .await
}

impl Served {
    /// Drains and ends.
    pub async fn stop(self) {
        let _ = self.stop.send("the test is over");
        let ended = tokio::time::timeout(PATIENCE, self.running).await;
        ended.expect("the server ends in time").unwrap().unwrap();
    }
}

/// One connection, line by line.
pub struct Lines {
    stream: BufReader<TlsStream<TcpStream>>,
    next_id: u64,
}

impl Lines {
    pub fn over(stream: TlsStream<TcpStream>) -> Self {
        Self {
            stream: BufReader::new(stream),
            next_id: 0,
        }
    }

    pub fn stream_mut(&mut self) -> &mut TlsStream<TcpStream> {
        self.stream.get_mut()
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        // A server that has hung up is noticed by reading.
        let _ = self.stream.get_mut().write_all(bytes).await;
        let _ = self.stream.get_mut().flush().await;
    }

    pub async fn send(&mut self, message: &Value) {
        self.send_bytes(format!("{message}\n").as_bytes()).await;
    }

    /// The next line as it is; none at the end of the connection.
    pub async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = tokio::time::timeout(PATIENCE, self.stream.read_line(&mut line));
        match read.await.expect("an answer in time") {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(line),
        }
    }

    pub async fn receive(&mut self) -> Value {
        let line = self.line().await.expect("the connection is open");
        serde_json::from_str(&line).unwrap()
    }

    /// Ready when the server has ended the connection; lines before that are dropped.
    pub async fn ended(&mut self) {
        while self.line().await.is_some() {}
    }

    /// As [`Self::ended`]; whether TLS was closed, and not only the socket.
    pub async fn said_goodbye(&mut self) -> bool {
        loop {
            let mut line = String::new();
            let read = tokio::time::timeout(PATIENCE, self.stream.read_line(&mut line));
            match read.await.expect("an end in time") {
                Ok(0) => return true,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    }

    /// A modern request and its answer, whole; notifications in between are dropped.
    pub async fn ask(&mut self, method: &str, params: Value) -> Value {
        self.next_id += 1;
        let id = self.next_id;
        self.send(&modern(id, method, params)).await;
        self.answer(&json!(id)).await
    }

    /// The answer with this id.
    pub async fn answer(&mut self, id: &Value) -> Value {
        loop {
            let message = self.receive().await;
            if message.get("id") == Some(id) && message.get("method").is_none() {
                return message;
            }
        }
    }

    /// A request without the modern `_meta`, and its answer.
    pub async fn ask_bare(&mut self, method: &str, params: Value) -> Value {
        self.next_id += 1;
        let id = self.next_id;
        self.send(&json!({"jsonrpc":"2.0","id":id,"method":method,"params":params}))
            .await;
        self.answer(&json!(id)).await
    }

    pub async fn notify(&mut self, method: &str, params: Value) {
        self.send(&json!({"jsonrpc":"2.0","method":method,"params":params}))
            .await;
    }

    /// `initialize` and `notifications/initialized`; the revision that was agreed.
    pub async fn initialize(&mut self, revision: &str) -> String {
        let params = json!({"protocolVersion":revision,"capabilities":{},
            "clientInfo":{"name":"test","version":"1"}});
        let answer = self.ask_bare("initialize", params).await;
        self.notify("notifications/initialized", json!({})).await;
        answer["result"]["protocolVersion"]
            .as_str()
            .unwrap()
            .to_owned()
    }
}

/// A request of revision 2026-07-28.
pub fn modern(id: u64, method: &str, mut params: Value) -> Value {
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name":"test","version":"1"},
    });
    let known = params
        .as_object_mut()
        .unwrap()
        .entry("_meta")
        .or_insert_with(|| json!({}));
    for (key, value) in meta.as_object().unwrap() {
        known
            .as_object_mut()
            .unwrap()
            .entry(key)
            .or_insert(value.clone());
    }
    json!({"jsonrpc":"2.0","id":id,"method":method,"params":params})
}
