//! CRLs by the program: on a timer and after every change, for every CA of the folder; and how often
//! one source may ask the CA's server.

use std::process::{Child, Command, Stdio};

use countersign::clock::unix_now;
use countersign::identity::Fingerprint;
use countersign::registry::{Reason, Revocation, Store as _};

use crate::support::authority::{CaServer, eventually, fingerprint};
use crate::support::program::PROGRAM;

struct Watching(Child);

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `ca crl --watch` beside a revocation that only the registry knows of: the CRL of whoever issued
/// follows, be it the issuing CA, the one before it, or the root.
#[test]
fn the_crls_of_all_cas_of_a_folder_follow_the_registry() {
    let ca = CaServer::made();
    let issue = |name: &str| {
        let made = ca.run(&["ca", "issue", name, "--grant", "tools:a", "--json"]);
        let print: Fingerprint = made.json()["fingerprint"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        print
    };
    let before = issue("before");
    let first = fingerprint(&ca.path("pki/ca/issuing.crt"));
    ca.run(&["ca", "rotate", "issuing"]).ok();
    let after = issue("after");
    let mut command = Command::new(PROGRAM);
    command
        .args(["ca", "crl", "--watch"])
        .current_dir(ca.folder.path())
        .env("COUNTERSIGN_CA_PASSPHRASE", "secret");
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null());
    let _watching = Watching(quiet.stderr(Stdio::null()).spawn().unwrap());

    // With the root's key open and the issuing CAs' too: three CRLs.
    let retired = std::fs::read_dir(ca.path("pki/ca/retired")).unwrap();
    let retired = retired.map(|entry| entry.unwrap().path()).next().unwrap();
    let names = |file: &str| {
        let read = ["crl", "-in", file, "-noout", "-text"];
        let text = ca.openssl(&read);
        for field in [
            "X509v3 CRL Number",
            "Next Update",
            "Authority Key Identifier",
        ] {
            assert!(text.contains(field), "{field}: {text}");
        }
        text.to_lowercase()
    };
    let retired = retired.join("issuing.crl").display().to_string();
    let follows = |print: Fingerprint, file: &str| {
        let serial = ca.known(print).unwrap().serial;
        assert!(!names(file).contains(&serial), "{file}");
        let revocation = Revocation {
            at: unix_now(),
            reason: Reason::KeyCompromise,
            by: "test".into(),
        };
        ca.with_store(async |store| store.revoke(print, &revocation).await.unwrap());
        eventually(&format!("`{file}` names it"), || {
            names(file).contains(&serial)
        });
        // `ca show` tells who, when and why.
        let shown = ca.run(&["ca", "show", &print.to_string(), "--json"]).json();
        let revocation = &shown["revocation"];
        assert_eq!(revocation["by"], "test", "{shown}");
        assert_eq!(revocation["reason"], "keyCompromise", "{shown}");
        assert!(revocation["at"].is_string(), "{shown}");
    };
    follows(before, &retired);
    follows(after, "pki/ca/issuing.crl");
    follows(first, "pki/ca/root.crl");
    // One that comes while it watches, too.
    ca.run(&["ca", "rotate", "issuing"]).ok();
    follows(issue("newest"), "pki/ca/issuing.crl");
}

#[test]
fn one_source_has_its_share_of_the_cas_server() {
    let ca = CaServer::with(&["--per-source", "1"]);
    assert_eq!(ca.est("cacerts", &[]).status, 200);
    eventually("too many are turned away", || {
        let asked = std::thread::scope(|scope| {
            let all: [_; 8] = std::array::from_fn(|_| scope.spawn(|| ca.est("cacerts", &[])));
            all.map(|one| one.join().unwrap())
        });
        asked.iter().any(|answer| {
            assert!([200, 429].contains(&answer.status), "{}", answer.status);
            answer.status == 429 && answer.headers.contains("retry-after")
        })
    });
}
