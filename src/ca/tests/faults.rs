//! The disk fails, or the process ends, at every step of issuing, revoking and rotating. After each:
//! every certificate that left is known, every confirmed revocation holds, the CRL's number has not
//! gone back, and no file is half written.

use std::fs;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::time::Duration;

use futures_util::FutureExt;

use super::bench::{Ask, Bench, NOW, new_authority, secret};
use crate::ca::{
    Authority, issue, issue_with_token, prepare_output, revoke, rotate_issuing, rotate_root,
    write_crl, write_out,
};
use crate::cert::fault::{self, Fault};
use crate::cert::{DEFAULT_PERMISSION_OID, KeyKind, load_chain, load_key};
use crate::clock::UnixTime;
use crate::grant::WrittenGrants;
use crate::identity::Fingerprint;
use crate::registry::{
    Change, Confirmation, Enrolment, Outline, Page, Reason, Reply, Revocation, RevokedSerial,
    SqliteStore, Store, StoreError, Token, TokenDigest,
};

/// A store that fails or takes the process with it, before or after it did what it was asked. Only
/// what issuing and revoking use goes wrong.
struct Steps(SqliteStore);

fn step() -> Result<(), StoreError> {
    fault::point().map_err(|error| StoreError::Unreachable {
        place: String::from("the test"),
        cause: error.to_string(),
    })
}

impl Store for Steps {
    fn place(&self) -> &str {
        self.0.place()
    }

    fn enrol<'a>(&'a self, enrolment: &'a Enrolment) -> Reply<'a, u64> {
        Box::pin(async move {
            step()?;
            let seq = self.0.enrol(enrolment).await?;
            step()?;
            Ok(seq)
        })
    }

    fn revoke<'a>(&'a self, print: Fingerprint, revocation: &'a Revocation) -> Reply<'a, u64> {
        Box::pin(async move {
            step()?;
            let seq = self.0.revoke(print, revocation).await?;
            step()?;
            Ok(seq)
        })
    }

    fn set_pinned<'a>(&'a self, print: Fingerprint, pinned: bool) -> Reply<'a, u64> {
        self.0.set_pinned(print, pinned)
    }

    fn set_grants<'a>(&'a self, of: Fingerprint, to: Option<&'a WrittenGrants>) -> Reply<'a, u64> {
        self.0.set_grants(of, to)
    }

    fn set_end(&self, print: Fingerprint, end: UnixTime) -> Reply<'_, u64> {
        self.0.set_end(print, end)
    }

    fn get(&self, print: Fingerprint) -> Reply<'_, Option<Enrolment>> {
        self.0.get(print)
    }

    fn find<'a>(&'a self, key: &'a str, now: UnixTime) -> Reply<'a, Enrolment> {
        self.0.find(key, now)
    }

    fn named<'a>(&'a self, name: &'a str, now: UnixTime) -> Reply<'a, Vec<Enrolment>> {
        self.0.named(name, now)
    }

    fn list(&self, after: Option<Fingerprint>, limit: u32) -> Reply<'_, Vec<Enrolment>> {
        self.0.list(after, limit)
    }

    fn revoked(&self, issuer: Fingerprint, ending: UnixTime) -> Reply<'_, Vec<RevokedSerial>> {
        Box::pin(async move {
            step()?;
            self.0.revoked(issuer, ending).await
        })
    }

    fn page(&self, from: u64, limit: u32, ending: UnixTime) -> Reply<'_, Page> {
        self.0.page(from, limit, ending)
    }

    fn changes(&self, after: u64, limit: u32) -> Reply<'_, Vec<Change>> {
        self.0.changes(after, limit)
    }

    fn touched(&self, after: u64, upto: u64) -> Reply<'_, Vec<Outline>> {
        self.0.touched(after, upto)
    }

    fn put_token<'a>(&'a self, token: &'a Token) -> Reply<'a, ()> {
        self.0.put_token(token)
    }

    fn token(&self, digest: TokenDigest) -> Reply<'_, Option<Token>> {
        self.0.token(digest)
    }

    fn take_token<'a>(
        &'a self,
        digest: TokenDigest,
        enrolment: &'a Enrolment,
        now: UnixTime,
    ) -> Reply<'a, u64> {
        Box::pin(async move {
            step()?;
            let seq = self.0.take_token(digest, enrolment, now).await?;
            step()?;
            Ok(seq)
        })
    }

    fn purge_tokens(&self, before: UnixTime) -> Reply<'_, ()> {
        self.0.purge_tokens(before)
    }

    fn prune(&self, before: UnixTime) -> Reply<'_, u64> {
        self.0.prune(before)
    }

    fn newest(&self) -> Reply<'_, u64> {
        self.0.newest()
    }

    fn changed(&self, known: u64, patience: Duration) -> Reply<'_, u64> {
        self.0.changed(known, patience)
    }

    fn heartbeat<'a>(&'a self, server: &'a str, applied: u64) -> Reply<'a, ()> {
        self.0.heartbeat(server, applied)
    }

    fn farewell<'a>(&'a self, server: &'a str) -> Reply<'a, ()> {
        self.0.farewell(server)
    }

    fn confirmed(&self, seq: u64, patience: Duration) -> Reply<'_, Confirmation> {
        Box::pin(async move {
            step()?;
            self.0.confirmed(seq, patience).await
        })
    }
}

async fn steps(bench: &Bench) -> Steps {
    Steps(
        SqliteStore::open(&bench.path("registry.db"), true)
            .await
            .unwrap(),
    )
}

/// Runs with the fault armed; `None`: the process ended. Whether the fault came to pass, too.
async fn with<T>(at: usize, fault: Fault, work: impl Future<Output = T>) -> (Option<T>, bool) {
    fault::arm(at, fault);
    let result = AssertUnwindSafe(work).catch_unwind().await;
    let happened = fault::disarm();
    assert!(result.is_ok() || happened, "a panic that nobody asked for");
    (result.ok(), happened)
}

/// Every certificate in the folder is whole, has its key, and is on record.
async fn check_folder(dir: &Path, store: &SqliteStore) -> usize {
    let mut left = 0;
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "crt") {
            continue;
        }
        left += 1;
        let leaf = load_chain(&path).unwrap().swap_remove(0);
        let known = store.get(Fingerprint::of_der(&leaf)).await.unwrap();
        assert!(
            known.is_some_and(|known| known.der == leaf),
            "{} is not known",
            path.display()
        );
        load_key(&path.with_extension("key"), None).unwrap();
    }
    left
}

#[tokio::test]
async fn every_certificate_that_left_is_known() {
    let bench = Bench::new().await;
    let store = steps(&bench).await;
    let out = bench.path("out");
    let (mut killed, mut failed) = (0, 0);
    for fault in [Fault::Kill, Fault::Error] {
        for at in 0.. {
            let base = format!("{fault:?}-{at}");
            let (signed, key) = Ask::agent("agent", &["tools:*"])
                .sign_with_key(bench.issuing())
                .unwrap();
            let output = prepare_output(&out, &base, bench.issuing().root_der(), false).unwrap();
            let work = async {
                let issued = issue(&store, signed, "me", NOW).await?;
                write_out(&store, &output, &issued, &key, NOW).await
            };
            let (result, happened) = with(at, fault, work).await;
            check_folder(&out, &bench.store).await;
            let written = out.join(format!("{base}.crt")).exists();
            match result {
                Some(Ok(_)) => assert!(written && !happened),
                Some(Err(_)) => failed += 1,
                None => killed += 1,
            }
            if !happened {
                break;
            }
        }
    }
    // Recording, and five steps of three files.
    assert!(
        killed >= 17 && failed >= 17,
        "{killed} killed, {failed} failed"
    );
}

/// Enrolment by a token: used up exactly if the certificate is on record, and nothing leaves that is
/// not.
#[tokio::test]
async fn a_token_and_its_certificate_are_both_on_record_or_neither() {
    let bench = Bench::new().await;
    let store = steps(&bench).await;
    let (mut killed, mut failed, mut used) = (0, 0, 0);
    for fault in [Fault::Kill, Fault::Error] {
        for at in 0.. {
            let digest = TokenDigest::of(format!("{fault:?}-{at}").as_bytes());
            let token = Token {
                digest,
                name: crate::identity::Name::new("spiffe://countersign.internal/agent").unwrap(),
                grants: WrittenGrants::parse(&["tools:*"]).unwrap(),
                profile: "agent".into(),
                hosts: Vec::new(),
                lifetime: None,
                expires_at: NOW.plus(Duration::from_secs(60)),
                created_at: NOW,
                created_by: "me".into(),
                used_at: None,
            };
            bench.store.put_token(&token).await.unwrap();
            let signed = Ask::agent("agent", &["tools:*"])
                .sign(bench.issuing())
                .unwrap();
            let print = signed.parsed.fingerprint;
            let work = issue_with_token(&store, signed, digest, "token", NOW);
            let (result, happened) = with(at, fault, work).await;
            let known = bench.store.get(print).await.unwrap();
            let kept = bench.store.token(digest).await.unwrap().unwrap();
            assert_eq!(kept.used_at.is_some(), known.is_some(), "{fault:?} {at}");
            used += usize::from(known.is_some());
            match result {
                Some(Ok(issued)) => assert_eq!(known.unwrap().der, issued.enrolment.der),
                Some(Err(_)) => failed += 1,
                None => killed += 1,
            }
            if !happened {
                break;
            }
        }
    }
    // Before and after the transaction, and the run that nothing happened to.
    assert_eq!((killed, failed, used), (2, 2, 4));
}

/// The number and the entries of a CRL that OpenSSL reads and whose signature it verifies.
fn read_crl(bench: &Bench) -> (u64, usize) {
    let (crl, ca) = (bench.files.issuing_crl(), bench.files.issuing_certificate());
    let arguments = [
        "crl",
        "-in",
        crl.to_str().unwrap(),
        "-noout",
        "-text",
        "-CAfile",
    ];
    let (_, text) = super::bench::openssl(&[&arguments[..], &[ca.to_str().unwrap()]].concat());
    assert!(text.contains("verify OK"), "{text}");
    let read = crate::ca::crl::read(&crl, bench.issuing().der())
        .unwrap()
        .unwrap();
    (read.number, text.matches("Serial Number:").count())
}

#[tokio::test]
async fn every_confirmed_revocation_holds_and_the_crl_s_number_never_goes_back() {
    let bench = Bench::new().await;
    let store = steps(&bench).await;
    let path = bench.files.issuing_crl();
    let (mut last, mut listed) = read_crl(&bench);
    let (mut killed, mut failed) = (0, 0);
    for fault in [Fault::Kill, Fault::Error] {
        for at in 0.. {
            let issued = Ask::agent("agent", &["tools:*"])
                .issue(&bench)
                .await
                .unwrap();
            let (print, key) = (
                issued.enrolment.fingerprint,
                issued.enrolment.fingerprint.to_string(),
            );
            let confirmed = std::cell::Cell::new(false);
            let work = async {
                let wait = Duration::ZERO;
                let reason = Reason::KeyCompromise;
                revoke(&store, &key, reason, "me", wait, NOW)
                    .await
                    .map_err(|e| e.to_string())?;
                confirmed.set(true);
                let crl = write_crl(bench.issuing(), &path, &store, NOW).await;
                crl.map_err(|e| e.to_string())
            };
            let (result, happened) = with(at, fault, work).await;
            let record = bench.store.get(print).await.unwrap().unwrap();
            assert!(
                record.revocation.is_some() || !confirmed.get(),
                "it was confirmed, step {at}"
            );
            let (number, entries) = read_crl(&bench);
            assert!(
                number >= last && entries >= listed,
                "{number} after {last}, step {at}"
            );
            match result {
                Some(Ok(crl)) => assert_eq!((crl.number, crl.entries), (number, entries)),
                Some(Err(_)) => failed += 1,
                None => killed += 1,
            }
            (last, listed) = (number, entries);
            if !happened {
                break;
            }
        }
        // Whatever was left out because the process ended is in the next one.
        let crl = write_crl(bench.issuing(), &path, &bench.store, NOW)
            .await
            .unwrap();
        let all = bench
            .store
            .revoked(bench.issuing().fingerprint(), NOW)
            .await
            .unwrap();
        assert!(crl.number > last && crl.entries == all.len());
        (last, listed) = read_crl(&bench);
    }
    assert!(
        killed >= 9 && failed >= 9,
        "{killed} killed, {failed} failed"
    );
}

#[tokio::test]
async fn a_rotation_leaves_a_ca_that_signs_wherever_it_ends() {
    let bench = Bench::new().await;
    let store = steps(&bench).await;
    let (word, root) = (secret(), bench.root());
    let open = || Authority::issuing(&bench.files, &|_| Ok(secret()), DEFAULT_PERMISSION_OID);
    let (mut killed, mut kept) = (0, 0);
    // Each costs two key derivations, so not every step.
    for at in (0..).step_by(7) {
        let before = open().unwrap().fingerprint();
        let new = new_authority(&word, KeyKind::P256);
        let work = rotate_issuing(&bench.files, &root, new, &store, "me", NOW);
        let (result, happened) = with(at, Fault::Kill, work).await;
        let ca = open().unwrap();
        kept += usize::from(ca.fingerprint() == before);
        killed += usize::from(result.is_none());
        let known = bench.store.get(ca.fingerprint()).await.unwrap();
        assert!(known.is_some(), "the CA that signs is on record, step {at}");
        write_crl(&ca, &bench.files.issuing_crl(), &bench.store, NOW)
            .await
            .unwrap();
        Ask::agent("agent", &["tools:*"]).sign(&ca).unwrap();
        if !happened {
            assert_ne!(ca.fingerprint(), before);
            break;
        }
    }
    assert!(
        killed > 3 && kept > 3 && kept <= killed,
        "{killed} killed, {kept} kept"
    );
}

/// As above, and whoever trusts the root before still trusts what is signed.
#[tokio::test]
async fn a_rotation_of_the_root_leaves_a_ca_that_signs_wherever_it_ends() {
    let bench = Bench::new().await;
    let store = steps(&bench).await;
    let word = secret();
    let open = || Authority::issuing(&bench.files, &|_| Ok(secret()), DEFAULT_PERMISSION_OID);
    let (mut killed, mut kept) = (0, 0);
    for at in (0..).step_by(13) {
        let (before, root) = (open().unwrap().fingerprint(), bench.root());
        let new = new_authority(&word, KeyKind::P256);
        let work = rotate_root(&bench.files, &root, new, &store, "me", NOW);
        let (result, happened) = with(at, Fault::Kill, work).await;
        let ca = open().unwrap();
        let now = bench.root();
        let same = ca.fingerprint() == before;
        assert_eq!(now.fingerprint() == root.fingerprint(), same, "step {at}");
        kept += usize::from(same);
        killed += usize::from(result.is_none());
        let known = bench.store.get(ca.fingerprint()).await.unwrap();
        assert!(known.is_some(), "the CA that signs is on record, step {at}");
        for (authority, path) in [
            (&ca, bench.files.issuing_crl()),
            (&now, bench.files.root_crl()),
        ] {
            write_crl(authority, &path, &bench.store, NOW)
                .await
                .unwrap();
        }
        Ask::agent("agent", &["tools:*"]).sign(&ca).unwrap();
        if !happened {
            assert!(!same);
            break;
        }
    }
    assert!(
        killed > 3 && kept > 3 && kept <= killed,
        "{killed} killed, {kept} kept"
    );
}
