//! The program itself, as a process: a folder with certificates, files and a configuration, and
//! `countersign serve` on it.
#![allow(clippy::panic, reason = "a test fails by panicking")]

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, BufReader};
use tokio::net::{TcpStream, UnixListener};
use tokio::process::{Child, Command};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::client::Client;
use super::pki::{self, Certified, PATIENCE};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_countersign");

/// A process that is killed when dropped.
pub struct Process(pub std::process::Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Somebody who may come in, as certificate and as files.
pub struct Person {
    pub certified: Certified,
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// A running server. Killed when dropped.
pub struct Program {
    pub folder: tempfile::TempDir,
    pub root: Certified,
    pub bundle: PathBuf,
    pub address: SocketAddr,
    pub child: Child,
    command: Command,
}

impl Program {
    /// Serves the folder `docs` with an anchor of mode `issued` and one prompt. `fill` puts the
    /// files there.
    pub async fn start(fill: impl FnOnce(&Path)) -> Self {
        let mut command = Command::new(PROGRAM);
        command.args(["serve", "--config"]);
        Self::start_as(command, fill).await
    }

    /// One of the programs in `examples`, with the configuration as its only argument.
    pub async fn start_example(name: &str) -> Self {
        let program = Path::new(PROGRAM).with_file_name("examples").join(name);
        assert!(program.exists(), "`cargo build --examples` builds {name}");
        Self::start_as(Command::new(program), |_| ()).await
    }

    async fn start_as(mut command: Command, fill: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let root = pki::root("root");
        let bundle = at("root.pem");
        std::fs::write(&bundle, pki::pem(std::slice::from_ref(&root.der))).unwrap();
        root.sign(pki::server()).write(folder.path(), "server");
        std::fs::create_dir(at("docs")).unwrap();
        fill(&at("docs"));

        let reserved = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = reserved.local_addr().unwrap();
        let text = format!(
            r#"
[listen]
address = ["{address}"]

[tls]
certificate = "server.pem"
key = "server.key"

[[anchor]]
name = "issued"
bundle = "root.pem"
mode = "issued"

[registry]
path = "registry.sqlite"

[audit]
path = "audit.jsonl"

[[files]]
name = "files"
root = "docs"
writable = true

[[prompt]]
name = "greet"

[[prompt.argument]]
name = "who"
required = true

[[prompt.message]]
text = "Say hello to {{{{who}}}}."
"#
        );
        std::fs::write(at("countersign.toml"), text).unwrap();
        drop(reserved);
        command.arg(folder.path().join("countersign.toml"));
        let child = spawn(&mut command);
        let mut program = Self {
            folder,
            root,
            bundle,
            address,
            child,
            command,
        };
        tokio::time::timeout(PATIENCE, program.listening())
            .await
            .expect("the server listens in time");
        program
    }

    /// Kills the server and starts it again at the same place.
    pub async fn restart(&mut self) {
        self.child.kill().await.unwrap();
        self.child = spawn(&mut self.command);
        let listening = tokio::time::timeout(PATIENCE, self.listening()).await;
        listening.expect("the server listens in time");
    }

    async fn listening(&mut self) {
        while TcpStream::connect(self.address).await.is_err() {
            if let Some(status) = self.child.try_wait().unwrap() {
                let mut said = String::new();
                let errors = self.child.stderr.take().unwrap();
                BufReader::new(errors)
                    .read_to_string(&mut said)
                    .await
                    .unwrap();
                panic!("the server ended with {status}: {said}");
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    /// A client whose certificate carries these grants.
    pub fn person(&self, name: &str, grants: &[&str]) -> Person {
        let mut params = pki::client(name);
        params.custom_extensions = vec![pki::permissions(grants)];
        let certified = self.root.sign(params);
        let (cert, key) = certified.write(self.folder.path(), name);
        Person {
            certified,
            cert,
            key,
        }
    }

    /// TLS as this person, offering `mcp`.
    pub async fn stream(&self, person: &Person) -> TlsStream<TcpStream> {
        self.door(person, "mcp").stream().await
    }

    /// How this person comes in for this protocol.
    pub fn door(&self, person: &Person, alpn: &str) -> Door {
        let client = Client::of(&person.certified, &self.root).offering(&[alpn]);
        Door {
            config: Arc::new(client.config),
            address: self.address,
        }
    }

    /// A client command of the program as this person.
    pub fn command(&self, person: &Person, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(arguments);
        command
            .arg("--server")
            .arg(format!("localhost:{}", self.address.port()));
        command
            .arg("--cert")
            .arg(&person.cert)
            .arg("--key")
            .arg(&person.key);
        command.arg("--ca").arg(&self.bundle);
        command.kill_on_drop(true);
        command
    }

    /// Every record of the audit log so far; none while the server is only about to begin it.
    pub fn audit(&self) -> Vec<serde_json::Value> {
        let file = self.folder.path().join("audit.jsonl");
        let text = std::fs::read_to_string(file).unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Waits until so many records fit.
    pub async fn recorded_times(&self, times: usize, fits: impl Fn(&serde_json::Value) -> bool) {
        let wait = async {
            while self.audit().iter().filter(|record| fits(record)).count() < times {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait)
            .await
            .expect("the records are written in time");
    }

    /// Waits until a record fits.
    pub async fn recorded(&self, fits: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let wait = async {
            loop {
                if let Some(record) = self.audit().into_iter().find(|record| fits(record)) {
                    return record;
                }
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait)
            .await
            .expect("the record is written in time")
    }
}

/// Connections to one server as one person.
#[derive(Clone)]
pub struct Door {
    config: Arc<rustls::ClientConfig>,
    address: SocketAddr,
}

impl Door {
    pub async fn stream(&self) -> TlsStream<TcpStream> {
        let tcp = TcpStream::connect(self.address).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        TlsConnector::from(self.config.clone())
            .connect(name, tcp)
            .await
            .unwrap()
    }

    /// Carries the bytes of every connection to this socket, for clients that know no certificates.
    pub fn behind(self, socket: &Path) {
        let listener = UnixListener::bind(socket).unwrap();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let door = self.clone();
                tokio::spawn(async move {
                    let mut far = door.stream().await;
                    // However it ends, it ends.
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
    }
}

fn spawn(command: &mut Command) -> Child {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}
