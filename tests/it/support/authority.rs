//! `countersign ca serve` as a process, and everybody who comes to it: the program's own commands,
//! `curl` and `openssl`. All of it blocking: a test here waits for processes.
#![allow(clippy::panic, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use countersign::ca::{
    Authority, CaFiles, Profiles, Request, Rules, Signer, issue, prepare_output, write_out,
};
use countersign::clock::{UnixTime, unix_now};
use countersign::enrol::{CertFiles, Note};
use countersign::grant::{Roles, WrittenGrants};
use countersign::identity::Fingerprint;
use countersign::registry::{Enrolment, SqliteStore, Store as _};
use countersign::secret::Secret;
use serde_json::Value;

use super::pki::PATIENCE;
use super::program::PROGRAM;

/// A CA in a folder, and its server while it runs.
pub struct CaServer {
    pub folder: tempfile::TempDir,
    pub est: SocketAddr,
    pub crl: SocketAddr,
    /// Where it is, if it is not the folder's own file.
    registry: Option<String>,
    child: Option<Child>,
}

/// How a process ended.
pub struct Ended {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ended {
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self.out
    }

    pub fn json(self) -> Value {
        serde_json::from_str(&self.ok()).unwrap()
    }
}

/// An answer of HTTP.
pub struct Answer {
    pub status: u16,
    pub headers: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// The word of a refusal.
    pub fn reason(&self) -> String {
        let problem: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        problem["reason"].as_str().unwrap_or_default().to_owned()
    }
}

impl CaServer {
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// `arguments`: further ones of `ca serve`.
    pub fn with(arguments: &[&str]) -> Self {
        let mut ca = Self::made();
        ca.serve(arguments);
        ca
    }

    /// A CA that is not served yet.
    pub fn made() -> Self {
        Self::made_in(None)
    }

    /// With the registry in a database.
    pub fn made_on(registry: &str) -> Self {
        Self::made_in(Some(registry.to_owned()))
    }

    /// The same CA in another folder, on the same registry: as on another machine.
    pub fn copied(&self) -> Self {
        let other = Self::empty(self.registry.clone());
        for name in ["pki", "passphrase"] {
            let copied = Command::new("cp")
                .arg("-a")
                .args([self.path(name), other.path(name)])
                .status();
            assert!(copied.unwrap().success());
        }
        other
    }

    fn empty(registry: Option<String>) -> Self {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
        Self {
            folder: tempfile::tempdir().unwrap(),
            est: nowhere,
            crl: nowhere,
            registry,
            child: None,
        }
    }

    fn made_in(registry: Option<String>) -> Self {
        let ca = Self::empty(registry);
        std::fs::create_dir(ca.path("pki")).unwrap();
        std::fs::write(ca.path("passphrase"), "secret\n").unwrap();
        let mode = Command::new("chmod")
            .arg("600")
            .arg(ca.path("passphrase"))
            .status();
        assert!(mode.unwrap().success());
        ca.run(&["ca", "init", "--trust-domain", "example.org"])
            .ok();
        ca
    }

    /// Starts the server on it.
    pub fn serve(&mut self, arguments: &[&str]) {
        let listen = [
            "ca",
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--crl-listen",
            "127.0.0.1:0",
        ];
        let mut child = self
            .program(&[&listen, arguments].concat())
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        while !said.contains("issuing.crl and") {
            let before = said.len();
            lines.read_line(&mut said).unwrap();
            assert!(said.len() > before, "it does not start: {said}");
        }
        // Somebody has to read what it logs, or it stops when the pipe is full.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        let address = |before: &str| {
            let rest = said.split(before).nth(1).unwrap();
            let end = rest.find([' ', '/']).unwrap();
            rest[..end].parse().unwrap()
        };
        self.est = address("enrolling on ");
        self.crl = address("CRLs on http://");
        self.child = Some(child);
    }

    /// The server's process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// As a power cut.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .current_dir(self.folder.path())
            .env("HOME", self.folder.path())
            .env("COUNTERSIGN_CA_PASSPHRASE", "secret")
            .stdin(Stdio::null());
        for name in ["COUNTERSIGN_HOME", "COUNTERSIGN_AS", "COUNTERSIGN_SERVER"] {
            command.env_remove(name);
        }
        command
    }

    fn program(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(&[&[PROGRAM], arguments].concat());
        if let (Some(registry), Some(&"ca" | &"pin")) = (&self.registry, arguments.first()) {
            command.args(["--registry", registry]);
        }
        command
    }

    /// A command of the program.
    pub fn run(&self, arguments: &[&str]) -> Ended {
        ended(self.program(arguments), b"")
    }

    /// `openssl` in the folder.
    pub fn openssl(&self, arguments: &[&str]) -> String {
        ended(self.command(&[&["openssl"], arguments].concat()), b"").ok()
    }

    /// `openssl` with something on stdin.
    pub fn openssl_of(&self, input: &[u8], arguments: &[&str]) -> String {
        let mut command = self.command(&[&["openssl"], arguments].concat());
        command.stdin(Stdio::piped());
        ended(command, input).ok()
    }

    /// The token of an invitation.
    pub fn invite(&self, name: &str, arguments: &[&str]) -> String {
        let words = [&["ca", "invite", name, "--json"], arguments].concat();
        self.run(&words).json()["token"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// `curl` on a path of EST, trusting the root and nothing else.
    pub fn est(&self, operation: &str, arguments: &[&str]) -> Answer {
        let url = format!("https://{}/.well-known/est/{operation}", self.est);
        self.curl(&[&["--cacert", "pki/ca/root.crt", url.as_str()], arguments].concat())
    }

    /// Posts a request file, with whatever the arguments show.
    pub fn enrol(&self, operation: &str, request: &str, arguments: &[&str]) -> Answer {
        let body = format!("@{request}");
        let post = [
            "-H",
            "Content-Type: application/pkcs10",
            "--data-binary",
            &body,
        ];
        self.est(operation, &[&post, arguments].concat())
    }

    /// `curl` as it is.
    pub fn curl(&self, arguments: &[&str]) -> Answer {
        let body = tempfile::NamedTempFile::new().unwrap();
        let place = body.path().to_str().unwrap();
        let words = ["curl", "-sS", "--noproxy", "*", "-D", "-", "-o", place];
        let headers = ended(self.command(&[&words, arguments].concat()), b"").ok();
        let last = headers.split("HTTP/1.1 ").last().unwrap().to_owned();
        Answer {
            status: last[..3].parse().unwrap(),
            headers: last.to_lowercase(),
            body: std::fs::read(place).unwrap(),
        }
    }

    /// A key `NAME.key` and a request `NAME.b64` for it, by `openssl req`.
    pub fn request(&self, name: &str, common_name: &str) -> String {
        let (key, der, b64) = (
            format!("{name}.key"),
            format!("{name}.der"),
            format!("{name}.b64"),
        );
        let subject = format!("/CN={common_name}");
        let curve = [
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ];
        let words = [
            "-keyout", &key, "-subj", &subject, "-outform", "DER", "-out", &der,
        ];
        self.openssl(&[&["req", "-new"], &curve[..], &words].concat());
        self.openssl(&["base64", "-in", &der, "-out", &b64]);
        b64
    }

    /// The certificate of an answer, as `NAME.crt` with the issuing CA behind it.
    pub fn keep(&self, answer: &Answer, name: &str) -> Fingerprint {
        assert_eq!(
            answer.status,
            200,
            "{}",
            String::from_utf8_lossy(&answer.body)
        );
        let der = self.path(&format!("{name}.p7"));
        std::fs::write(self.path("answer.b64"), &answer.body).unwrap();
        let der_name = format!("{name}.p7");
        self.openssl(&["base64", "-d", "-in", "answer.b64", "-out", &der_name]);
        let pem = self.openssl(&["pkcs7", "-inform", "DER", "-in", &der_name, "-print_certs"]);
        assert!(der.exists() && pem.matches("BEGIN").count() == 1, "{pem}");
        let issuing = std::fs::read_to_string(self.path("pki/ca/issuing.crt")).unwrap();
        let file = self.path(&format!("{name}.crt"));
        std::fs::write(&file, format!("{pem}{issuing}")).unwrap();
        fingerprint(&file)
    }

    /// What the registry knows of a certificate.
    pub fn known(&self, fingerprint: Fingerprint) -> Option<Enrolment> {
        self.with_store(async |store| store.get(fingerprint).await.unwrap())
    }

    /// Something done with the registry itself.
    pub fn with_store<T>(&self, work: impl AsyncFnOnce(&SqliteStore) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(async {
            let store = SqliteStore::open(&self.path("pki/registry.db"), false)
                .await
                .unwrap();
            work(&store).await
        })
    }

    /// The files of an identity: `out/agent` for `out/agent.crt` and its key.
    pub fn files(&self, base: &str) -> CertFiles {
        let [cert, key] = ["crt", "key"].map(|kind| self.path(&format!("{base}.{kind}")));
        CertFiles::new(&cert, &key)
    }

    /// `out/NAME.crt` with a minute's life, most of it over: on record like any other, for
    /// `localhost`, with the note that says where it is renewed.
    pub fn issue_due(&self, name: &str, profile: &str) {
        std::fs::create_dir_all(self.path("out")).unwrap();
        let made = UnixTime(unix_now().0 - 50);
        let ca_files = CaFiles::new(&self.path("pki/ca"));
        let unlock = |_: &Path| Ok(Secret::from(String::from("secret")));
        let oid = countersign::cert::DEFAULT_PERMISSION_OID;
        let authority = Authority::issuing(&ca_files, &unlock, oid).unwrap();
        let profiles = Profiles::embedded().unwrap();
        let (signer, key) = Signer::generate(countersign::cert::KeyKind::P256).unwrap();
        let server = profile == "server";
        let grants: &[&str] = if server { &[] } else { &["tools:*"] };
        let request = Request {
            name: format!("spiffe://example.org/{name}").parse().unwrap(),
            subject_key: &signer.public_key(),
            grants: WrittenGrants::parse(grants).unwrap(),
            profile: profiles.get(profile).unwrap(),
            ttl: Some(Duration::from_secs(60)),
            dns: if server {
                vec!["localhost".into()]
            } else {
                Vec::new()
            },
            ips: Vec::new(),
        };
        let roles = Roles::default();
        let rules = Rules {
            permission_oid: oid,
            roles: &roles,
        };
        self.with_store(async |store| {
            let signed = authority.sign(&request, rules, made).unwrap();
            let issued = issue(store, signed, "test", made).await.unwrap();
            let output = prepare_output(&self.path("out"), name, authority.root_der(), true);
            write_out(store, &output.unwrap(), &issued, &key, made)
                .await
                .unwrap();
        });
        let address = self.est.to_string();
        let files = self.files(&format!("out/{name}"));
        files.write_note(&Note { address }).unwrap();
        // Its time says when a renewal was last begun.
        let note = std::fs::File::options()
            .append(true)
            .open(files.note_path())
            .unwrap();
        let then = std::time::SystemTime::now() - Duration::from_secs(3600);
        note.set_modified(then).unwrap();
    }

    /// The records of the server's audit log.
    pub fn audit(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path("pki/ca/audit.jsonl")).unwrap();
        // The last line may be on its way.
        text.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }
}

impl Drop for CaServer {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}

/// Of the first certificate of a PEM file.
pub fn fingerprint(file: &Path) -> Fingerprint {
    Fingerprint::of_der(&countersign::cert::load_chain(file).unwrap()[0])
}

/// Waits until something is so.
#[track_caller]
pub fn eventually(what: &str, so: impl Fn() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < PATIENCE, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn ended(mut command: Command, input: &[u8]) -> Ended {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input).unwrap();
    }
    let output = child.wait_with_output().unwrap();
    Ended {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
