//! The program as a person meets it: what each command answers on stdout and stderr, and how it
//! ends, against a server that `countersign up` has started in the same folder.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use super::support::program::PROGRAM;

/// A folder of its own, which every command takes for the working folder.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(line.split_whitespace());
        // What is set where the tests run must not decide what is tested.
        command.env_clear().env("HOME", self.path());
        command.current_dir(self.path()).stdin(Stdio::null());
        command
    }

    fn run(&self, line: &str) -> Said {
        Said::from(self.command(line).output().unwrap())
    }

    /// `up` on a port that the system chooses, once it listens.
    fn up(&self) -> Up<'_> {
        let mut child = self
            .command("up --listen 127.0.0.1:0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut told = String::new();
        while !told.contains("Ctrl-C stops the server") {
            assert!(stdout.read_line(&mut told).unwrap() > 0, "{told}");
        }
        let address = told
            .split_once("Countersign listens on ")
            .and_then(|(_, rest)| rest.split_once(": "))
            .map_or_else(
                || panic!("no address in {told}"),
                |(address, _)| address.to_owned(),
            );
        Up {
            folder: self,
            child,
            told,
            address,
        }
    }
}

/// What a command answered.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Said {
    /// Exit code, stdout and stderr, exactly.
    #[track_caller]
    fn is(&self, code: i32, out: &str, err: &str) {
        assert_eq!(
            (self.code, self.out.as_str(), self.err.as_str()),
            (Some(code), out, err)
        );
    }

    /// Exit code 0, nothing on stderr; gives stdout.
    #[track_caller]
    fn well(&self) -> &str {
        assert_eq!((self.code, self.err.as_str()), (Some(0), ""), "{self:?}");
        &self.out
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }
}

/// A running `countersign up`. Killed when dropped.
struct Up<'a> {
    folder: &'a Folder,
    child: Child,
    /// What it printed until it listened.
    told: String,
    address: String,
}

impl Up<'_> {
    /// A client command against it.
    fn command(&self, line: &str) -> Command {
        self.folder
            .command(&format!("{line} --server {}", self.address))
    }

    fn run(&self, line: &str) -> Said {
        Said::from(self.command(line).output().unwrap())
    }

    /// Ctrl-C, then how it ended.
    fn interrupt(mut self) -> Option<i32> {
        let sent = Command::new("kill")
            .args(["-INT", &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"test","version":"0"}}}"#;

#[test]
fn calls_end_with_what_became_of_them() {
    let folder = Folder::new();
    let up = folder.up();
    let notes = "milk\neggs\na certificate for the new agent\n";
    up.run("call files__read_file path=notes.txt --as reader")
        .is(0, notes, "");
    up.run("call files__write_file path=a.txt content=x --as operator")
        .well();
    up.run("call files__write_file path=b.txt content=x --as reader")
        .is(
            3,
            "",
            "error: denied: `tools:files__write_file` is not granted (code 4403)\n\
         hint: ask for a certificate with the grant that is missing (`countersign ca issue NAME --grant …`)\n",
        );
    assert!(!folder.path().join("pki/dev/files/b.txt").exists());
    up.run("call files__read_fil path=notes.txt").is(
        3,
        "",
        "error: unknown tool: files__read_fil (code -32602)\n\
         hint: it does not exist, or this identity may not use it, or an argument is wrong; \
         the lists (`tools`, `resources`, `prompts`) show what it may\n",
    );
    up.run("call files__read_file path=none.txt").is(
        1,
        "",
        "error: `files__read_file` failed: `none.txt` does not exist\n",
    );
    up.run("call files__read_file notes.txt").is(
        2,
        "",
        "error: `notes.txt` is not an argument\n\
         hint: write `key=text`, or `key:=json` for a number, a boolean, an array or an object\n",
    );
    up.run("tools --as nobody").is(
        6,
        "",
        "error: `pki/dev` holds no identity `nobody`; it holds `operator`, `reader`\n\
         hint: choose one by `--as NAME`\n",
    );
    let usage = up.run("call files__read_file --tool");
    assert_eq!((usage.code, usage.out.as_str()), (Some(2), ""));
    assert!(
        usage.err.contains("unexpected argument '--tool'"),
        "{usage:?}"
    );
}

#[test]
fn nobody_there_is_told_from_refused() {
    let folder = Folder::new();
    let up = folder.up();
    up.run("tools").well();
    let address = up.address.clone();
    assert_eq!(up.interrupt(), Some(0), "Ctrl-C is no failure");
    folder.run(&format!("tools --server {address}")).is(
        4,
        "",
        &format!(
            "error: cannot reach `{address}`: {address}: Connection refused (os error 111)\n\
             hint: is the server running there? start one with `countersign up`, \
             or name another by `--server HOST:PORT`\n"
        ),
    );
}

#[test]
fn a_new_identity_calls_at_once_until_it_is_revoked() {
    let folder = Folder::new();
    let up = folder.up();
    folder
        .run("ca issue bot --grant tools:files__read_file --grant tools:self__* --out pki/dev")
        .well();
    up.run("call files__read_file path=notes.txt --as bot")
        .well();
    assert!(
        up.run("doctor --as bot").well().contains("✓ permissions"),
        "every step passes"
    );

    let mut bridge = up
        .command("connect --as bot")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = bridge.stdin.take().unwrap();
    writeln!(stdin, "{INITIALIZE}").unwrap();
    let mut answer = String::new();
    BufReader::new(bridge.stdout.take().unwrap())
        .read_line(&mut answer)
        .unwrap();
    assert!(answer.contains("protocolVersion"), "{answer}");

    let revoked = folder.run("ca revoke bot");
    assert!(
        revoked
            .well()
            .contains(") is revoked: the live server applied it in "),
        "{revoked:?}"
    );
    let refused = format!(
        "error: `{}` refused this client: this certificate was revoked (TLS alert certificate_revoked)\n\
         hint: it stays refused; issue a new one with `countersign ca issue NAME`\n",
        up.address
    );
    // Its stdin is still open: the bridge ends because of the server, not because of its client.
    assert_eq!(bridge.wait().unwrap().code(), Some(3));
    let mut said = String::new();
    bridge
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert!(said.ends_with(&refused), "{said}");
    drop(stdin);

    up.run("connect --as bot").is(3, "", &refused);
    up.run("call files__read_file path=notes.txt --as bot")
        .is(3, "", &refused);
    let doctor = up.run("doctor --as bot");
    assert_eq!(doctor.code, Some(1));
    assert!(
        doctor.out.contains("✓ TLS") && doctor.out.contains("✗ admission"),
        "{doctor:?}"
    );
    assert!(
        doctor.out.contains("this certificate was revoked"),
        "{doctor:?}"
    );
    // Nobody else is touched.
    up.run("tools --as reader").well();
}

#[test]
fn the_printed_configuration_starts_a_bridge_from_anywhere() {
    let folder = Folder::new();
    let up = folder.up();
    let print = |client| {
        up.run(&format!("connect --print-config {client} --as reader"))
            .json()
    };
    let generic = print("generic");
    for client in ["claude", "cursor"] {
        assert_eq!(
            print(client)["mcpServers"]["countersign"],
            generic,
            "{client}"
        );
    }
    let vscode = print("vscode");
    assert_eq!(
        vscode["servers"]["countersign"]["command"],
        generic["command"]
    );
    assert_eq!(vscode["servers"]["countersign"]["args"], generic["args"]);

    let arguments = generic["args"].as_array().unwrap().iter();
    let mut bridge = Command::new(generic["command"].as_str().unwrap())
        .args(arguments.map(|argument| argument.as_str().unwrap()))
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    writeln!(bridge.stdin.take().unwrap(), "{INITIALIZE}").unwrap();
    let said = Said::from(bridge.wait_with_output().unwrap());
    let answer: Value = serde_json::from_str(said.well()).unwrap();
    assert_eq!(answer["result"]["protocolVersion"], "2025-11-25");
}

#[test]
fn openssl_talks_by_hand_as_the_guide_says() {
    let folder = Folder::new();
    let up = folder.up();
    let guide = include_str!("../../docs/integrate.md");
    let line = guide
        .split_once("$ openssl ")
        .and_then(|(_, rest)| rest.split_once("\n{"))
        .map(|(line, _)| line.replace("\\\n", " "))
        .unwrap();
    let port = up.address.rsplit(':').next().unwrap();
    let line = line.replace("localhost:8443", &format!("localhost:{port}"));
    let mut openssl = Command::new("openssl")
        .args(line.split_whitespace())
        .current_dir(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    writeln!(openssl.stdin.as_mut().unwrap(), "{INITIALIZE}").unwrap();
    let mut answer = String::new();
    let read = BufReader::new(openssl.stdout.take().unwrap()).read_line(&mut answer);
    openssl.kill().unwrap();
    openssl.wait().unwrap();
    assert!(
        read.is_ok() && answer.contains(r#""protocolVersion":"2025-11-25""#),
        "{answer}"
    );
}

#[test]
fn what_programs_read_is_json() {
    let folder = Folder::new();
    let up = folder.up();
    for line in [
        "tools",
        "resources",
        "prompts",
        "whoami",
        "doctor",
        "ping --count 1",
        "call files__read_file path=notes.txt",
    ] {
        let said = up.run(&format!("{line} --json"));
        said.well();
        assert!(said.json().is_object(), "{line}: {said:?}");
    }
    for line in [
        "ca list",
        "ca show reader",
        "ca issue bot --grant tools:files__*",
        "ca revoke bot",
        "ca crl",
        "pin list",
        "audit verify",
        "config check",
    ] {
        let said = folder.run(&format!("{line} --json"));
        said.well();
        assert!(said.json().is_object(), "{line}: {said:?}");
    }
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let folder = Folder::new();
    let up = folder.up();
    let mut commands: Vec<_> = ["tools", "resources", "whoami", "doctor"]
        .map(|line| (line, up.command(line)))
        .into();
    for line in [
        "ca list",
        "audit tail",
        "audit verify",
        "config example",
        "man",
        "completions zsh",
        "--help",
    ] {
        commands.push((line, folder.command(line)));
    }
    for (line, mut command) in commands {
        // The reading end is gone before the command has begun.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = command.stdout(writer).stderr(Stdio::piped()).output();
        let said = Said::from(output.unwrap());
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{line}");
    }
}

#[test]
fn up_says_what_is_in_its_way() {
    let folder = Folder::new();
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let up = format!("up --listen {address}");
    let said = folder.run(&up);
    assert_eq!(said.code, Some(6), "{said:?}");
    assert!(
        said.err.ends_with(&format!(
            "error: cannot listen on {address}: Address already in use (os error 98)\n\
             hint: another process listens there, maybe another Countersign: stop it, \
             or choose another port (`up --listen`, or `listen.address`)\n"
        )),
        "{said:?}"
    );
    // It has not become a server that revocations wait for.
    let revoked = folder.run("ca revoke reader");
    assert!(!revoked.well().contains("still waiting"), "{revoked:?}");

    std::fs::write(folder.path().join("file"), "").unwrap();
    folder.run("up --dir file").is(
        6,
        "",
        "error: cannot write in the folder `file`: File exists (os error 17)\n\
         hint: choose a folder that this user may write, by `--dir DIR`\n",
    );
}

#[test]
fn up_mends_its_folder_and_says_so() {
    let folder = Folder::new();
    let up = folder.up();
    assert!(up.told.starts_with("made the CA\n"), "{}", up.told);
    assert_eq!(up.interrupt(), Some(0));

    let dev = folder.path().join("pki/dev");
    std::fs::remove_file(dev.join("operator.key")).unwrap();
    let up = folder.up();
    assert!(
        up.told.starts_with(
            "made anew the certificate of `operator`: cannot read `pki/dev/operator.key`"
        ),
        "{}",
        up.told
    );
    up.run("tools").well();
    assert_eq!(up.interrupt(), Some(0));

    let up = folder.up();
    assert!(
        up.told.starts_with("\nCountersign listens on"),
        "{}",
        up.told
    );
}

#[test]
fn a_ca_begins_in_an_empty_folder() {
    let folder = Folder::new();
    let run = |line: &str| {
        let mut command = folder.command(line);
        command.env("COUNTERSIGN_CA_PASSPHRASE", "correct horse battery");
        Said::from(command.output().unwrap())
    };
    run("ca init --trust-domain example.org").well();
    run("ca issue mcp-1 --profile server --dns mcp.example.org --out pki").well();
    run("ca issue alice --profile operator --grant tools:* --out creds").well();
    assert!(folder.path().join("creds/alice.key").exists());
    let listed = run("ca list");
    for name in ["spiffe://example.org/mcp-1", "spiffe://example.org/alice"] {
        assert!(listed.well().contains(name), "{listed:?}");
    }
    assert!(folder.path().join("pki/registry.db").exists());
}

#[test]
fn shells_and_man_are_served_without_a_folder() {
    let folder = Folder::new();
    for shell in ["bash", "zsh", "fish"] {
        let said = folder.run(&format!("completions {shell}"));
        assert!(said.well().contains("countersign"), "{shell}");
    }
    let man = folder.run("man");
    assert!(man.well().contains(".TH countersign"), "{man:?}");
    let version = format!("countersign {}\n", env!("CARGO_PKG_VERSION"));
    folder.run("--version").is(0, &version, "");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
