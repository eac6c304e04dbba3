//! A token of SoftHSM in a folder, the program with its keys in it, and the token behind a process
//! that can be stopped and killed like a device that hangs or is pulled out (p11-kit).
#![allow(clippy::panic, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::authority::Ended;
use super::program::PROGRAM;

/// Of no other meaning in anything that is written.
pub const PIN: &str = "8642097531";

/// A folder with a token.
pub struct Hsm {
    pub folder: tempfile::TempDir,
    module: PathBuf,
    socket: Option<PathBuf>,
}

/// A process that is killed when dropped, and all that it says.
pub struct Running {
    pub child: Child,
    said: Option<std::thread::JoinHandle<String>>,
}

impl Running {
    /// Kills it; everything that it said on stderr.
    pub fn end(mut self) -> String {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.said.take().unwrap().join().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn first_that_exists(paths: &[&str]) -> Option<PathBuf> {
    paths.iter().map(PathBuf::from).find(|path| path.exists())
}

impl Hsm {
    /// With one token `ca`; `None` where SoftHSM is not installed (`scripts/check` installs it).
    pub fn new() -> Option<Self> {
        let module = first_that_exists(&[
            "/usr/lib/softhsm/libsofthsm2.so",
            "/usr/lib64/softhsm/libsofthsm2.so",
            "/usr/lib64/pkcs11/libsofthsm2.so",
            "/usr/local/lib/softhsm/libsofthsm2.so",
        ]);
        let Some(module) = module else {
            eprintln!("SoftHSM is not installed: nothing was tested");
            return None;
        };
        let hsm = Self {
            folder: tempfile::tempdir().unwrap(),
            module,
            socket: None,
        };
        std::fs::create_dir(hsm.path("tokens")).unwrap();
        let configuration = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            hsm.path("tokens").display()
        );
        std::fs::write(hsm.path("softhsm2.conf"), configuration).unwrap();
        hsm.private("pin", PIN);
        hsm.private("word", "secret\n");
        let made = hsm
            .command("softhsm2-util")
            .args(["--init-token", "--free", "--label", "ca"])
            .args(["--so-pin", "12345678", "--pin", PIN])
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        Some(hsm)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file of mode 0600.
    pub fn private(&self, name: &str, content: &str) {
        countersign::cert::write_atomic(&self.path(name), content.as_bytes(), 0o600).unwrap();
    }

    /// A key of the token by the PIN in its file, through the process where there is one.
    pub fn uri(&self, object: &str) -> String {
        let module = match &self.socket {
            None => self.module.clone(),
            Some(_) => client_module().unwrap(),
        };
        format!(
            "pkcs11:token=ca;object={object}?module-path={}&pin-source={}",
            module.display(),
            self.path("pin").display()
        )
    }

    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.folder.path())
            .env("SOFTHSM2_CONF", self.path("softhsm2.conf"))
            .stdin(Stdio::null());
        if let Some(socket) = &self.socket {
            let address = format!("unix:path={}", socket.display());
            command.env("P11_KIT_SERVER_ADDRESS", address);
        }
        command
    }

    /// The program, to its end.
    pub fn run(&self, arguments: &[&str]) -> Ended {
        let output = self.command(PROGRAM).args(arguments).output().unwrap();
        Ended {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// `countersign ca` on the CA of the folder.
    pub fn ca(&self, arguments: &[&str]) -> Ended {
        let place = ["--ca", "ca", "--registry", "registry.db"];
        let word = ["--passphrase-file", "word"];
        self.run(&[&["ca"][..], arguments, &place, &word].concat())
    }

    /// `openssl`, whether it was content, and what it said.
    pub fn openssl(&self, arguments: &[&str]) -> (bool, String) {
        let output = self.command("openssl").args(arguments).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        (output.status.success(), said)
    }

    /// A key that others made, such as `EC:prime256v1` or `rsa:2048`.
    pub fn make_key(&self, object: &str, kind: &str) -> bool {
        let made = self
            .command("pkcs11-tool")
            .arg("--module")
            .arg(&self.module)
            .args(["--login", "--pin", PIN, "--token-label", "ca"])
            .args(["--keypairgen", "--usage-sign", "--key-type", kind])
            .args(["--label", object, "--id", &hex::encode(object)])
            .output();
        match made {
            Ok(made) => {
                assert!(made.status.success(), "{made:?}");
                true
            }
            Err(_) => {
                eprintln!("OpenSC is not installed: other makers' keys were not tested");
                false
            }
        }
    }

    /// The token, from now on, behind a process; `None` where p11-kit is not installed.
    pub fn behind_a_process(&mut self) -> Option<Remote> {
        client_module()?;
        let socket = self.path("token.sock");
        let remote = Remote::start(self, &socket)?;
        self.socket = Some(socket);
        Some(remote)
    }

    /// A server's certificate for this key, and `countersign serve` with it.
    pub fn serve(&self, object: &str, profile: &str) -> (Running, SocketAddr) {
        let uri = self.uri(object);
        let server = ["issue", object, "--profile", "server", "--dns", "localhost"];
        let rest = ["--key", &uri, "--out", "out", "--replace"];
        self.ca(&[&server[..], &rest].concat()).ok();
        let reserved = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = reserved.local_addr().unwrap();
        std::fs::create_dir_all(self.path("docs")).unwrap();
        std::fs::write(self.path("docs/a.txt"), "of a file\n").unwrap();
        let text = format!(
            r#"
[listen]
address = ["{address}"]
[tls]
certificate = "out/{object}.crt"
key = "{uri}"
profile = "{profile}"
[[anchor]]
name = "ours"
bundle = "ca/root.crt"
[registry]
path = "registry.db"
[audit]
path = "audit-{object}.jsonl"
[[files]]
name = "files"
root = "docs"
"#
        );
        std::fs::write(self.path("countersign.toml"), text).unwrap();
        drop(reserved);
        let serve = ["--log", "trace", "serve", "--config", "countersign.toml"];
        (self.start(&serve, "listening"), address)
    }

    /// Starts the program and waits until it says this word on stderr.
    pub fn start(&self, arguments: &[&str], word: &str) -> Running {
        let mut child = self
            .command(PROGRAM)
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        while !said.contains(word) {
            let before = said.len();
            lines.read_line(&mut said).unwrap();
            assert!(said.len() > before, "it does not start: {said}");
        }
        let rest = std::thread::spawn(move || {
            let _ = lines.read_to_string(&mut said);
            said
        });
        Running {
            child,
            said: Some(rest),
        }
    }

    /// A client command as `agent`.
    pub fn client(&self, address: SocketAddr, arguments: &[&str]) -> Ended {
        let server = format!("localhost:{}", address.port());
        let who = ["--server", &server, "--pki", "out", "--as", "agent"];
        self.run(&[arguments, &who].concat())
    }

    /// Everything in the folder that could be read by somebody who looks for a PIN.
    pub fn holds_no_pin(&self, said: &[&str]) {
        for text in said {
            assert!(!text.contains(PIN), "{text}");
        }
        let mut folders = vec![self.folder.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.is_file() && path != self.path("pin") {
                    let content = std::fs::read(&path).unwrap();
                    let found = content.windows(PIN.len()).any(|w| w == PIN.as_bytes());
                    assert!(!found, "{}", path.display());
                }
            }
        }
    }
}

fn client_module() -> Option<PathBuf> {
    let found = first_that_exists(&[
        "/usr/lib/x86_64-linux-gnu/pkcs11/p11-kit-client.so",
        "/usr/lib/aarch64-linux-gnu/pkcs11/p11-kit-client.so",
        "/usr/lib64/pkcs11/p11-kit-client.so",
    ]);
    if found.is_none() {
        eprintln!("p11-kit is not installed: nothing was tested with a token that hangs");
    }
    found
}

/// The process that holds the token.
pub struct Remote {
    child: Child,
}

impl Remote {
    fn start(hsm: &Hsm, socket: &Path) -> Option<Self> {
        let _ = std::fs::remove_file(socket);
        let mut child = hsm
            .command("p11-kit")
            .args(["server", "--foreground", "--provider"])
            .arg(&hsm.module)
            .arg("--name")
            .arg(socket)
            .arg("pkcs11:")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .ok()?;
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        assert!(line.contains("P11_KIT_SERVER_ADDRESS"), "{line}");
        // It writes more, and must find somebody who reads.
        std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
        Some(Self { child })
    }

    /// `STOP`, `CONT` or `KILL`, for it and all that it started.
    pub fn signal(&self, name: &str) {
        let group = format!("-{}", self.child.id());
        let sent = Command::new("kill")
            .args(["-s", name, "--", &group])
            .status();
        assert!(sent.unwrap().success());
    }

    /// Another one in its place.
    pub fn again(&mut self, hsm: &Hsm) {
        let _ = self.child.wait();
        *self = Self::start(hsm, hsm.socket.as_ref().unwrap()).unwrap();
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill")
            .args(["-s", "KILL", "--", &group])
            .stderr(Stdio::null())
            .status();
        let _ = self.child.wait();
    }
}
