//! Countersign under measurement: its own CA, its own configuration, its own commands.

use std::error::Error;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt as _;

use crate::load::{self, Expect, Line};
use crate::pki::{Pki, write_private};
use crate::process::Server;

/// A CA with clients, and a configuration to serve with.
#[derive(Debug)]
pub(crate) struct Ours {
    program: PathBuf,
    dir: PathBuf,
    pub(crate) pki: Pki,
}

impl Ours {
    /// A CA in `dir`, a server certificate, and as many clients as asked, all by the command line.
    pub(crate) fn set_up(
        program: &Path,
        dir: &Path,
        clients: usize,
    ) -> Result<Self, Box<dyn Error>> {
        let path = |name: &str| dir.join(name);
        let ca = path("ca");
        let mut ours = Self {
            program: program.to_owned(),
            dir: dir.to_owned(),
            pki: Pki {
                root: ca.join("root.crt"),
                server_cert: path("clients/server.crt"),
                server_key: path("clients/server.key"),
                crls: vec![ca.join("root.crl"), ca.join("issuing.crl")],
                clients: Vec::new(),
            },
        };
        write_private(&path("passphrase"), "for a measurement\n")?;
        ours.ca(&["init"])?;
        ours.ca(&[
            "issue",
            "server",
            "--profile",
            "server",
            "--dns",
            "localhost",
            "--ip",
            "127.0.0.1",
        ])?;
        for n in 0..clients {
            ours.issue(&format!("bench-{n:02}"))?;
        }
        Ok(ours)
    }

    fn ca(&self, arguments: &[&str]) -> Result<(), Box<dyn Error>> {
        let mut command = self.ca_command("ca", arguments);
        if arguments[0] == "issue" {
            command.arg("--out").arg(self.dir.join("clients"));
        }
        Self::done(command)
    }

    /// A command of the CA in this folder.
    fn ca_command(&self, folder: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("ca").args(arguments);
        command.arg("--ca").arg(self.dir.join(folder));
        command.arg("--registry").arg(self.registry());
        command
            .arg("--passphrase-file")
            .arg(self.dir.join("passphrase"));
        command
    }

    fn done(mut command: Command) -> Result<(), Box<dyn Error>> {
        let done = command.stdin(Stdio::null()).output()?;
        if !done.status.success() {
            return Err(format!("{command:?}: {}", String::from_utf8_lossy(&done.stderr)).into());
        }
        Ok(())
    }

    pub(crate) fn registry(&self) -> PathBuf {
        self.dir.join("registry.sqlite")
    }

    fn issue(&mut self, name: &str) -> Result<(), Box<dyn Error>> {
        self.ca(&["issue", name, "--profile", "agent", "--grant", "*"])?;
        let file = |end: &str| self.dir.join("clients").join(format!("{name}.{end}"));
        self.pki.clients.push((file("crt"), file("key")));
        Ok(())
    }

    /// A delegate of this name, and so many certificates that it signed.
    pub(crate) fn delegate(&self, name: &str, members: usize) -> Result<Pki, Box<dyn Error>> {
        let ttl = ["--grant", "*", "--ttl", "12h"];
        let mut command = self.ca_command("ca", &["delegate", name]);
        command.args(ttl).arg("--out").arg(self.dir.join(name));
        command
            .arg("--key-passphrase-file")
            .arg(self.dir.join("passphrase"));
        Self::done(command)?;
        let out = self.dir.join(format!("{name}-members"));
        let mut pki = Pki {
            clients: Vec::new(),
            ..self.pki.clone()
        };
        for n in 0..members {
            let member = format!("{name}-{n:02}");
            let mut command = self.ca_command(name, &["issue", &member, "--offline"]);
            command.args(["--grant", "*"]).arg("--out").arg(&out);
            Self::done(command)?;
            let file = |end: &str| out.join(format!("{member}.{end}"));
            pki.clients.push((file("crt"), file("key")));
        }
        Ok(pki)
    }

    /// The CA's own server, for whoever comes as often as they like.
    pub(crate) fn serve_ca(&self) -> Result<Server, Box<dyn Error>> {
        let address = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let listen = address.to_string();
        let free = ["--no-crl", "--per-source", "1000000"];
        let mut command = self.ca_command("ca", &["serve", "--listen", &listen]);
        command.args(free);
        Server::start_at(&mut command, address)
    }

    fn config(&self) -> Result<(PathBuf, SocketAddr), Box<dyn Error>> {
        let address = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let file = self
            .dir
            .join(format!("countersign-{}.toml", address.port()));
        let show = |path: &Path| format!("{:?}", path.display().to_string());
        let text = format!(
            r#"
[listen]
address = ["{address}"]
connections_per_identity = 16384
backlog = 4096

[tls]
certificate = {cert}
key = {key}

[[anchor]]
name = "bench"
bundle = {root}

[registry]
path = {registry}

[audit]
path = {audit}
"#,
            cert = show(&self.pki.server_cert),
            key = show(&self.pki.server_key),
            root = show(&self.pki.root),
            registry = show(&self.registry()),
            audit = show(&self.dir.join(format!("audit-{}.jsonl", address.port()))),
        );
        fs::write(&file, text)?;
        Ok((file, address))
    }

    /// The program as it is, with authorization and the audit log on.
    pub(crate) fn serve(&self) -> Result<Server, Box<dyn Error>> {
        let (config, address) = self.config()?;
        let mut command = Command::new(&self.program);
        command.arg("serve").arg("--config").arg(config);
        Server::start_at(&mut command, address)
    }

    /// The same as a library, with the tool `bench__move`.
    pub(crate) fn serve_moving(&self) -> Result<Server, Box<dyn Error>> {
        let (config, address) = self.config()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("served").arg("--config").arg(config);
        Server::start_at(&mut command, address)
    }

    /// For each a new client: connected, called, then revoked; from the start of the command to the
    /// end of the connection.
    pub(crate) fn revocations(
        &self,
        runtime: &tokio::runtime::Runtime,
        server: &Server,
        line: &Line,
        times: usize,
    ) -> Result<Vec<Duration>, Box<dyn Error>> {
        static GONE: AtomicUsize = AtomicUsize::new(0);
        let mut took = Vec::with_capacity(times);
        for _ in 0..times {
            let name = format!("gone-{:04}", GONE.fetch_add(1, Ordering::Relaxed));
            let mut one = Self {
                program: self.program.clone(),
                dir: self.dir.clone(),
                pki: Pki {
                    clients: Vec::new(),
                    ..self.pki.clone()
                },
            };
            one.issue(&name)?;
            let config = one.pki.client(0, false)?;
            let mut stream = runtime.block_on(async {
                let mut last = String::new();
                // The pin is in the registry; the server hears of it from the change feed.
                for _ in 0..100 {
                    let tried = async {
                        let mut stream = load::connect(server.address, &config).await?;
                        load::once(&mut stream, line, 1, Expect::Result).await?;
                        load::Outcome::Ok(stream)
                    };
                    match tried.await {
                        Ok(stream) => return Ok(stream),
                        Err(error) => last = error.to_string(),
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(last)
            })?;
            let closed = runtime.spawn(async move {
                let mut rest = [0u8; 256];
                while matches!(stream.read(&mut rest).await, Ok(n) if n > 0) {}
                Instant::now()
            });
            let start = Instant::now();
            self.ca(&["revoke", &name])?;
            let closed = runtime
                .block_on(async { tokio::time::timeout(Duration::from_secs(10), closed).await });
            took.push(
                closed
                    .map_err(|_| "a revoked connection was still open after 10 s")??
                    .duration_since(start),
            );
        }
        Ok(took)
    }

    /// Every log that servers of this setup wrote.
    pub(crate) fn verify_audit(&self) -> Result<(), Box<dyn Error>> {
        let mut command = Command::new(&self.program);
        command.args(["audit", "verify"]);
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            if name.starts_with("audit-") && name.contains(".jsonl") && !name.contains("lock") {
                command.arg(path);
            }
        }
        let done = command.output()?;
        if !done.status.success() {
            return Err(format!("{command:?}: {}", String::from_utf8_lossy(&done.stderr)).into());
        }
        Ok(())
    }

    fn client(&self, server: &Server, arguments: &[&str]) -> Command {
        let (cert, key) = &self.pki.clients[0];
        let mut command = Command::new(&self.program);
        command.args(arguments);
        command
            .arg("--server")
            .arg(format!("localhost:{}", server.address.port()));
        command
            .arg("--cert")
            .arg(cert)
            .arg("--key")
            .arg(key)
            .arg("--ca")
            .arg(&self.pki.root);
        command
    }

    pub(crate) fn commands(
        &self,
        server: &Server,
        times: usize,
    ) -> Result<Vec<Duration>, Box<dyn Error>> {
        let mut took = Vec::with_capacity(times);
        for _ in 0..times {
            let mut command = self.client(server, &["call", "self__whoami"]);
            let start = Instant::now();
            let done = command.stdin(Stdio::null()).output()?;
            took.push(start.elapsed());
            if !done.status.success() {
                return Err(
                    format!("{command:?}: {}", String::from_utf8_lossy(&done.stderr)).into(),
                );
            }
        }
        Ok(took)
    }

    pub(crate) fn bridges(
        &self,
        server: &Server,
        line: &Line,
        times: usize,
    ) -> Result<Vec<Duration>, Box<dyn Error>> {
        let mut took = Vec::with_capacity(times);
        for _ in 0..times {
            let mut command = self.client(server, &["connect"]);
            let start = Instant::now();
            let mut child = command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            let mut input = child.stdin.take().expect("stdin is piped");
            input.write_all(&line.bytes(1))?;
            let mut answer = String::new();
            BufReader::new(child.stdout.take().expect("stdout is piped")).read_line(&mut answer)?;
            took.push(start.elapsed());
            drop(input);
            let status = child.wait()?;
            if !answer.contains(r#""result""#) || !status.success() {
                return Err(
                    format!("{command:?} answered `{answer}` and ended with {status}").into(),
                );
            }
        }
        Ok(took)
    }
}
