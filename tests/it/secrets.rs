//! Keys and passphrases: files that others can read are refused wherever they are loaded, files are
//! private from the moment they are there, and nothing secret is in a log, an error, a core dump or
//! memory that was let go.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use countersign::cert::{KeyError, load_key};
use countersign::secret::Secret;
use countersign::tls::{Identity, IdentityError};

use crate::support::program::{PROGRAM, Process};

#[allow(dead_code, reason = "the unit tests use the rest of it")]
#[path = "../../src/secret/residue.rs"]
mod residue;
use residue::Sought;

/// Of no other meaning in anything that is written.
const WORD: &str = "correct-horse-9031";

/// A folder with a CA, the files of a server and of a client, and a configuration.
struct Place {
    folder: tempfile::TempDir,
    umask: &'static str,
}

impl Place {
    fn new(umask: &'static str) -> Self {
        let place = Self {
            folder: tempfile::tempdir().unwrap(),
            umask,
        };
        place.private("word", &format!("{WORD}\n"));
        place.ca(&["init"]).ok();
        place
            .ca(&["issue", "agent", "--grant", "*", "--out", "out"])
            .ok();
        place.issue_server(&[]);
        std::fs::write(
            place.path("countersign.toml"),
            r#"
[listen]
address = ["127.0.0.1:0"]
[tls]
certificate = "out/gateway.crt"
key = "out/gateway.key"
key_passphrase_file = "word"
[[anchor]]
name = "ours"
bundle = "ca/root.crt"
[registry]
path = "registry.db"
[audit]
path = "audit.jsonl"
"#,
        )
        .unwrap();
        place
    }

    fn issue_server(&self, more: &[&str]) {
        let server = "issue gateway --profile server --dns localhost --out out";
        let server: Vec<&str> = server.split(' ').collect();
        self.ca(&[&server[..], more].concat()).ok();
        self.seal("out/gateway.key");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn private(&self, name: &str, content: &str) {
        countersign::cert::write_atomic(&self.path(name), content.as_bytes(), 0o600).unwrap();
    }

    /// Encrypts a key where it lies.
    fn seal(&self, name: &str) {
        let key = load_key(&self.path(name), None).unwrap();
        let sealed = countersign::cert::encrypt_pkcs8(&key, &Secret::from(WORD.to_owned()));
        self.private(name, &sealed.unwrap());
    }

    fn shell(&self, line: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("umask {}; {line}", self.umask), "sh"])
            .args(arguments)
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        let all = [&[PROGRAM][..], arguments].concat();
        let output = self.shell("exec \"$@\"", &all).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        Ended {
            good: output.status.success(),
            said: String::from_utf8(said).unwrap(),
        }
    }

    fn ca(&self, arguments: &[&str]) -> Ended {
        let place = ["--ca", "ca", "--registry", "registry.db"];
        self.run(
            &[
                &["--log", "trace", "ca"],
                arguments,
                &place,
                &["--passphrase-file", "word"],
            ]
            .concat(),
        )
    }

    /// Starts the server, and ends it as soon as it listens; or it ends by itself.
    fn serve(&self) -> Ended {
        use std::io::{BufRead as _, BufReader, Read as _};
        let serve = [
            PROGRAM,
            "--log",
            "trace",
            "serve",
            "--config",
            "countersign.toml",
        ];
        let mut command = self.shell("exec \"$@\"", &serve);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        while lines.read_line(&mut said).unwrap() > 0 {
            if said.contains("listening on") {
                let _ = child.kill();
            }
        }
        let _ = lines.read_to_string(&mut said);
        let _ = child.wait();
        Ended {
            good: said.contains("listening on"),
            said,
        }
    }

    /// A server that lets its memory be looked at, and where it listens.
    fn listening(&self) -> (Process, String) {
        use std::io::{BufRead as _, BufReader};
        let serve = [PROGRAM, "serve", "--config", "countersign.toml"];
        let mut command = self.shell("exec \"$@\"", &serve);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.env("COUNTERSIGN_DEBUG", "1").spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let running = Process(child);
        let mut said = String::new();
        while !said.contains("listening on") {
            assert!(lines.read_line(&mut said).unwrap() > 0, "{said}");
        }
        let port = said.rsplit_once("127.0.0.1:").unwrap().1;
        let port: String = port.chars().take_while(char::is_ascii_digit).collect();
        // Somebody has to read what it logs.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        (running, format!("localhost:{port}"))
    }

    /// The secret number of the server's key, as either provider keeps it.
    fn number_of_the_server(&self) -> Vec<Sought> {
        let word = Secret::from(WORD.to_owned());
        let key = load_key(&self.path("out/gateway.key"), Some(&word)).unwrap();
        Sought::forms_of(key.0.expose())
    }

    fn files(&self) -> Vec<PathBuf> {
        let (mut found, mut folders) = (Vec::new(), vec![self.folder.path().to_owned()]);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    found.push(path);
                }
            }
        }
        found
    }
}

struct Ended {
    good: bool,
    said: String,
}

impl Ended {
    #[track_caller]
    fn ok(self) -> String {
        assert!(self.good, "{}", self.said);
        self.said
    }
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_key_or_passphrase_that_others_can_read_is_refused_wherever_it_is_loaded() {
    let place = Place::new("022");
    let client = [
        "doctor",
        "--pki",
        "out",
        "--as",
        "agent",
        "--server",
        "127.0.0.1:9",
    ];
    let issue = ["issue", "more", "--grant", "*", "--out", "out", "--replace"];
    let key_fits = "fits the certificate";
    for (file, other) in [
        ("word", 0o644),
        ("ca/issuing.key", 0o640),
        ("ca/issuing.key", 0o604),
    ] {
        place.ca(&issue).ok();
        mode(&place.path(file), other);
        let refused = place.ca(&issue);
        assert!(!refused.good, "{file}");
        assert!(refused.said.contains("chmod 600"), "{}", refused.said);
        mode(&place.path(file), 0o600);
    }
    for (file, other) in [
        ("word", 0o640),
        ("out/gateway.key", 0o644),
        ("out/gateway.key", 0o620),
    ] {
        place.serve().ok();
        mode(&place.path(file), other);
        let refused = place.serve();
        assert!(!refused.good, "{file}");
        assert!(refused.said.contains("chmod 600"), "{}", refused.said);
        mode(&place.path(file), 0o600);
    }
    for other in [0o644, 0o660] {
        let said = place.run(&client).said;
        assert!(said.contains(key_fits), "{said}");
        mode(&place.path("out/agent.key"), other);
        let refused = place.run(&client);
        assert!(!refused.said.contains(key_fits), "{}", refused.said);
        assert!(refused.said.contains("chmod 600"), "{}", refused.said);
        mode(&place.path("out/agent.key"), 0o600);
    }
    let load = || {
        Identity::load(
            &place.path("out/agent.crt"),
            &place.path("out/agent.key"),
            None,
        )
        .map(drop)
    };
    load().unwrap();
    mode(&place.path("out/agent.key"), 0o644);
    assert!(matches!(load(), Err(IdentityError::Key(KeyError::File(_)))));
}

/// Looks at a folder again and again while something is written into it.
#[test]
fn files_with_keys_are_private_from_the_moment_they_are_there() {
    // Whatever the user's own mask would allow.
    let place = Place::new("000");
    let secret = |path: &Path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        [".key", "p12", "json", "passphrase"]
            .iter()
            .any(|kind| name.contains(kind))
    };
    let done = std::sync::atomic::AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut seen = 0_usize;
            while !done.load(std::sync::atomic::Ordering::Acquire) {
                for folder in [
                    place.path("out"),
                    place.path("ca"),
                    place.path(".ca2.making"),
                ] {
                    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
                    for path in entries
                        .map(|entry| entry.path())
                        .filter(|path| secret(path))
                    {
                        // It may have been renamed meanwhile.
                        let Ok(about) = std::fs::symlink_metadata(&path) else {
                            continue;
                        };
                        assert_eq!(about.mode() & 0o777, 0o600, "{}", path.display());
                        seen += 1;
                    }
                }
            }
            seen
        });
        for form in ["pem", "p12", "json"] {
            let issue = [
                "issue", form, "--grant", "*", "--out", "out", "--format", form,
            ];
            let word = ["--p12-passphrase-file", "word"];
            place.ca(&[&issue[..], &word].concat()).ok();
        }
        place.ca(&["init", "--dir", "ca2"]).ok();
        place.ca(&["rotate", "issuing"]).ok();
        done.store(true, std::sync::atomic::Ordering::Release);
        watching.join().unwrap()
    });
    assert!(seen > 0);
    let secrets: Vec<_> = place
        .files()
        .into_iter()
        .filter(|path| secret(path))
        .collect();
    assert!(secrets.len() >= 9, "{secrets:?}");
    for path in secrets {
        let found = std::fs::metadata(&path).unwrap().mode() & 0o777;
        assert_eq!(found, 0o600, "{}", path.display());
    }
}

#[test]
fn no_passphrase_and_no_key_is_in_a_log_an_error_or_a_file() {
    let place = Place::new("022");
    let mut said = place.serve().ok();
    said += &place
        .ca(&["issue", "a", "--grant", "*", "--out", "out"])
        .ok();
    // Errors too: a wrong passphrase, a damaged key, a key of another certificate.
    place.private("wrong", "another-word-7714\n");
    let place_of = ["--ca", "ca", "--registry", "registry.db"];
    let wrong = [
        &["--log", "trace", "ca", "crl"][..],
        &place_of,
        &["--passphrase-file", "wrong"],
    ];
    let refused = place.run(&wrong.concat());
    assert!(
        refused.said.contains("the passphrase is wrong"),
        "{}",
        refused.said
    );
    said += &refused.said;
    let key = std::fs::read_to_string(place.path("out/agent.key")).unwrap();
    for (damaged, name) in [
        (key.replace("PRIVATE", "PRIVAT"), "damaged"),
        (key.clone(), "other"),
    ] {
        place.private(&format!("{name}.key"), &damaged);
        let cert = ["--cert", "out/gateway.crt", "--key", &format!("{name}.key")];
        let rest = ["--ca", "ca/root.crt", "--server", "127.0.0.1:9"];
        let refused = place.run(&[&["--log", "trace", "ping"][..], &cert, &rest].concat());
        assert!(!refused.good, "{}", refused.said);
        said += &refused.said;
    }
    let audit = std::fs::read_to_string(place.path("audit.jsonl")).unwrap();
    let body: Vec<&str> = key.lines().filter(|line| !line.contains("-----")).collect();
    for secret in body.into_iter().chain([WORD, "another-word-7714"]) {
        assert!(!said.contains(secret), "{said}");
        assert!(!audit.contains(secret), "{audit}");
        for path in place.files() {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if ["word", "wrong", "agent.key", "damaged.key", "other.key"].contains(&name.as_str()) {
                continue;
            }
            let content = std::fs::read(&path).unwrap();
            let found = content
                .windows(secret.len())
                .any(|w| w == secret.as_bytes());
            assert!(!found, "{}", path.display());
        }
    }
}

#[test]
fn who_gave_no_passphrase_is_told_which_one_and_how() {
    let place = Place::new("022");
    place.private("other", "another-word-7714\n");
    let p12 = [
        "issue", "b", "--grant", "*", "--out", "out", "--format", "p12",
    ];
    let delegate = [
        "delegate", "farm", "--grant", "*", "--ttl", "1h", "--out", "farm",
    ];
    for (command, option, made) in [
        (&p12[..], "--p12-passphrase-file", "out/b.p12"),
        (&delegate, "--key-passphrase-file", "farm/issuing.key"),
    ] {
        let refused = place.ca(command);
        let told = format!("no passphrase for `{made}` was given\nhint: give it with {option},");
        assert!(
            !refused.good && refused.said.contains(&told),
            "{}",
            refused.said
        );
        place.ca(&[command, &[option, "other"]].concat()).ok();
        assert!(place.path(made).exists());
    }
}

#[test]
fn a_server_that_crashes_leaves_no_core_dump() {
    let place = Place::new("022");
    // What may dump, dumps where the machine lets it: then it is seen that ours would, too.
    let crash = |line: &str| {
        let mut command = place.shell(
            &format!("ulimit -c \"$(ulimit -H -c)\"; {line}"),
            &[PROGRAM],
        );
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        use std::io::BufRead as _;
        let mut lines = std::io::BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        while !said.contains("listening on") && lines.read_line(&mut said).unwrap() > 0 {}
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
        let sent = Command::new("kill")
            .args(["-s", "ABRT", &child.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
        let ended = child.wait().unwrap();
        assert_eq!(ended.signal(), Some(6), "{said}");
        let limit = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"));
        (ended.core_dumped(), limit.unwrap_or_default().to_owned())
    };
    let serve = "exec \"$1\" serve --config countersign.toml";
    let fields = |limit: &str| -> Vec<String> {
        limit
            .split_whitespace()
            .skip(4)
            .map(str::to_owned)
            .collect()
    };
    let (_, limit) = crash(&format!("export COUNTERSIGN_DEBUG=1; {serve}"));
    let both = fields(&limit);
    // As much as the machine allows.
    assert_eq!(both[0], both[1], "{limit}");
    let (dumped, limit) = crash(serve);
    assert!(!dumped);
    assert_eq!(fields(&limit)[..2], ["0", "0"], "{limit}");
}

#[test]
fn a_server_keeps_nothing_of_a_key_that_was_replaced() {
    let place = Place::new("022");
    let (server, address) = place.listening();
    let process = server.0.id().to_string();
    let copies = |of: &[Sought]| -> usize { of.iter().map(|form| form.copies_of(&process)).sum() };
    let ping = || {
        let client = ["--cert", "out/agent.crt", "--key", "out/agent.key"];
        let server = ["--ca", "ca/root.crt", "--server", &address];
        place.run(&[&["ping"], &client[..], &server].concat()).ok();
    };
    let old = place.number_of_the_server();
    ping();
    assert!(copies(&old) > 0, "it is in use");
    let word = [Sought::new(WORD.as_bytes())];
    assert_eq!(copies(&word), 1, "for the key that a renewal brings");

    place.issue_server(&["--replace"]);
    let new = place.number_of_the_server();
    let until = |so: &dyn Fn() -> bool| {
        let began = std::time::Instant::now();
        while !so() && began.elapsed().as_secs() < 60 {
            ping();
        }
        assert!(so());
    };
    until(&|| copies(&new) > 0);
    until(&|| copies(&old) == 0);
    assert!(copies(&new) > 0, "and the new one is");
    assert_eq!(copies(&word), 1);
}
