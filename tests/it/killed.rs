//! The real program, killed again and again while it issues and revokes: what left is known, what
//! was confirmed holds, the CRL's number never goes back, no file is half written.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use countersign::cert::{load_chain, load_key, pem, write_atomic};
use countersign::identity::Fingerprint;
use countersign::registry::{SqliteStore, Store};

/// From the first instant of a run to its end in so many steps, and this often.
const STEPS: u32 = 20;
const ROUNDS: u32 = 24;

/// When to kill: later with every round, and, should the machine have become slower, later still
/// until some come to their end.
struct Delays {
    whole: Duration,
    round: u32,
    finished: bool,
}

impl Delays {
    fn of(whole: Duration) -> Self {
        Self {
            whole,
            round: 0,
            finished: false,
        }
    }

    fn next(&mut self) -> Duration {
        self.round += 1;
        if self.round > STEPS && !self.finished {
            self.whole += self.whole / 2;
        }
        self.whole * self.round.min(STEPS + 4) / STEPS
    }
}

struct Place(tempfile::TempDir);

impl Place {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// `countersign ca …` in this place.
    fn ca(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
        command.arg("ca").args(line.split_whitespace());
        command.args([
            "--ca",
            "ca",
            "--registry",
            "registry.db",
            "--passphrase-file",
            "word",
        ]);
        command.current_dir(self.0.path()).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn done(&self, line: &str) -> String {
        let output = self.ca(line).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{line}: {said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Ends it with SIGKILL after a while, unless it was done before; whether it was.
    fn killed_after(&self, line: &str, delay: Duration) -> bool {
        let mut child = self.ca(line).spawn().unwrap();
        std::thread::sleep(delay);
        let _ = child.kill();
        child.wait().unwrap().success()
    }

    /// The number of the issuing CA's list, and the serials in it.
    fn crl(&self) -> (u64, Vec<String>) {
        self.crl_of("issuing")
    }

    fn crl_of(&self, ca: &str) -> (u64, Vec<String>) {
        let output = Command::new("openssl")
            .args(["crl", "-noout", "-text", "-in"])
            .args([&format!("ca/{ca}.crl"), "-CAfile", &format!("ca/{ca}.crt")])
            .current_dir(self.0.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!((text.clone() + &said).contains("verify OK"), "{text}{said}");
        let after = text.split("X509v3 CRL Number:").nth(1).unwrap();
        let number = after.split_whitespace().next().unwrap();
        let number = match number.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).unwrap(),
            None => number.parse().unwrap(),
        };
        let serials = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Serial Number: "));
        (number, serials.map(str::to_lowercase).collect())
    }

    /// Whether who trusts these roots accepts a certificate with what else is in its file.
    fn accepts(&self, roots: &str, file: &str) {
        let verified = Command::new("openssl")
            .args(["verify", "-CAfile", roots, "-untrusted", file, file])
            .current_dir(self.0.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&verified.stderr);
        assert!(verified.status.success(), "{file} below {roots}: {said}");
    }
}

fn leaf(path: &Path) -> Vec<u8> {
    load_chain(path).unwrap().swap_remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_process_leaves_is_whole() {
    let place = Place(tempfile::tempdir().unwrap());
    write_atomic(&place.path("word"), b"correct horse\n", 0o600).unwrap();
    place.done("init");
    let begun = Instant::now();
    place.done("issue victim --grant tools:* --out out");
    let whole = begun.elapsed();
    let (mut last, _) = place.crl();
    let (mut ended, mut finished, mut confirmed) = (0, 0, Vec::new());
    let mut delays = Delays::of(whole);
    for round in 0..ROUNDS + 8 {
        if round >= ROUNDS && finished > 2 {
            break;
        }
        let delay = delays.next();
        let name = format!("agent{round}");
        let issued = place.killed_after(&format!("issue {name} --grant tools:* --out out"), delay);
        let store = SqliteStore::open(&place.path("registry.db"), false)
            .await
            .unwrap();
        let file = place.path(&format!("out/{name}.crt"));
        assert!(file.exists() || !issued);
        if file.exists() {
            let der = leaf(&file);
            let known = store.get(Fingerprint::of_der(&der)).await.unwrap();
            assert_eq!(known.expect("what left is known").der, der);
            load_key(&file.with_extension("key"), None).unwrap();
        }
        // Revokes the victim of this round, and makes the next one's beforehand.
        let victim = Fingerprint::of_der(&leaf(&place.path("out/victim.crt")));
        let revoked = place.killed_after(&format!("revoke {victim} --wait 10ms"), delay);
        let record = store.get(victim).await.unwrap().unwrap();
        assert!(record.revocation.is_some() || !revoked, "it was confirmed");
        let (number, serials) = place.crl();
        assert!(number >= last, "{number} after {last}");
        last = number;
        if revoked {
            confirmed.push(record.serial.clone());
        }
        for serial in &confirmed {
            assert!(serials.contains(serial), "{serial} is in no CRL any more");
        }
        finished += u32::from(issued) + u32::from(revoked);
        delays.finished |= issued && revoked;
        ended += 2 - (u32::from(issued) + u32::from(revoked));
        if record.revocation.is_some() {
            place.done("issue victim --grant tools:* --out out --replace");
        }
    }
    assert!(
        ended > 4 && finished > 2,
        "{ended} were killed, {finished} came to their end"
    );
    place.done("crl");
    let (number, _) = place.crl();
    assert!(number > last);
}

/// The issuing CA is replaced, by a process that is killed at any instant: there is always one CA
/// that signs, it is on record, and what the ones before signed is good and revocable.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_rotation_leaves_one_ca_that_signs() {
    killed_rotations("issuing").await;
}

/// The same of the root and the issuing CA together; and who trusts nothing but the root before
/// accepts what comes after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_rotation_of_the_root_leaves_one_ca_that_signs() {
    killed_rotations("root").await;
}

async fn killed_rotations(what: &str) {
    let place = Place(tempfile::tempdir().unwrap());
    write_atomic(&place.path("word"), b"correct horse\n", 0o600).unwrap();
    place.done("init");
    let rotate = format!("rotate {what}");
    let begun = Instant::now();
    place.done(&rotate);
    let whole = begun.elapsed();
    let of = |name: &str| Fingerprint::of_der(&leaf(&place.path(&format!("ca/{name}.crt"))));
    let (mut finished, mut ended, mut last) = (0, 0, 0);
    let mut delays = Delays::of(whole);
    // Every other step.
    for round in 0..STEPS {
        if round >= STEPS / 2 && finished > 0 {
            break;
        }
        // A folder for each: one with the root before is refused to a certificate of the next.
        place.done(&format!(
            "issue before{round} --grant tools:* --out before{round}"
        ));
        let before = (of("issuing"), of("root"));
        let root = pem::certificate(&leaf(&place.path("ca/root.crt")));
        std::fs::write(place.path("root-before.crt"), root).unwrap();
        delays.next();
        let delay = delays.next();
        let done = place.killed_after(&rotate, delay);
        (finished, ended) = if done {
            delays.finished = true;
            (finished + 1, ended)
        } else {
            (finished, ended + 1)
        };
        // The next command finds one CA, or finishes what was begun.
        place.done(&format!(
            "issue after{round} --grant tools:* --out after{round}"
        ));
        let after = (of("issuing"), of("root"));
        assert!(!done || before.0 != after.0, "it was said to be done");
        let both = (before.0 == after.0) == (before.1 == after.1);
        assert!(both || what == "issuing", "the root and its CA go together");
        assert!(what == "root" || before.1 == after.1);
        let store = SqliteStore::open(&place.path("registry.db"), false)
            .await
            .unwrap();
        assert!(store.get(after.0).await.unwrap().is_some());
        let chain = load_chain(&place.path(&format!("after{round}/after{round}.crt"))).unwrap();
        assert_eq!(Fingerprint::of_der(&chain[1]), after.0);
        place.crl();
        let (number, _) = place.crl_of("root");
        // A new root begins anew.
        assert!(number >= last || before.1 != after.1, "{number}, {last}");
        last = number;
        for name in ["before", "after"] {
            let file = format!("{name}{round}/{name}{round}.crt");
            place.accepts("ca/root.crt", &file);
            place.accepts("root-before.crt", &file);
        }
        place.done(&format!("revoke before{round} --wait 0s"));
    }
    assert!(
        finished > 0 && ended > 2,
        "{finished} came to their end, {ended} were killed"
    );
}
