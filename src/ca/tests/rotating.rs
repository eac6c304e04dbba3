//! Delegates, and the change from one CA to the next.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::bench::{
    Ask, Bench, DAY, DOMAIN, HOUR, NOW, new_authority, openssl, openssl_verify, rules, secret,
};
use crate::ca::{
    Authority, CaFiles, Delegation, IssueError, Issued, Rotated, SignError, Signer, issue,
    issue_offline, prepare_delegate, refresh_crls, rotate_issuing, rotate_root, write_crl,
    write_delegate,
};
use crate::cert::{DEFAULT_PERMISSION_OID, KeyKind, encrypt_pkcs8};
use crate::clock::UnixTime;
use crate::grant::WrittenGrants;
use crate::identity::SpiffeId;
use crate::registry::{EnrolmentKind, Reason, Revocation, Store};

fn why() -> Revocation {
    Revocation {
        at: NOW,
        reason: Reason::CaCompromise,
        by: String::from("me@here"),
    }
}

async fn delegate(bench: &Bench, ceiling: &[&str]) -> (CaFiles, Issued) {
    delegate_of(bench.issuing(), bench, ceiling).await
}

async fn delegate_of(issuing: &Authority, bench: &Bench, ceiling: &[&str]) -> (CaFiles, Issued) {
    let (signer, key) = Signer::generate(KeyKind::P256).unwrap();
    let delegation = Delegation {
        name: SpiffeId::new(DOMAIN, "farm").unwrap(),
        subject_key: &signer.public_key(),
        ceiling: WrittenGrants::parse(ceiling).unwrap(),
        ttl: Duration::from_secs(12 * 3600),
    };
    let signed = issuing.delegate(&delegation, rules(), NOW).unwrap();
    let files = prepare_delegate(&bench.path("farm")).unwrap();
    let issued = issue(&bench.store, signed, "me@here", NOW).await.unwrap();
    let sealed = encrypt_pkcs8(&key, &secret()).unwrap();
    write_delegate(&bench.store, &files, &issued, Some(&sealed), NOW)
        .await
        .unwrap();
    (files, issued)
}

async fn root_replaced(bench: &Bench) -> Rotated {
    let word = secret();
    let new = new_authority(&word, KeyKind::P256);
    let root = bench.root();
    rotate_root(&bench.files, &root, new, &bench.store, "me@here", NOW)
        .await
        .unwrap()
}

fn open(files: &CaFiles) -> Authority {
    Authority::issuing(files, &|_| Ok(secret()), DEFAULT_PERMISSION_OID).unwrap()
}

#[tokio::test]
async fn a_delegate_signs_offline_within_its_ceiling() {
    let bench = Bench::new().await;
    let (files, issued) = delegate(&bench, &["tools:files__*"]).await;
    let record = bench
        .store
        .get(issued.enrolment.fingerprint)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (record.kind, record.pinned),
        (EnrolmentKind::Authority, true)
    );
    assert_eq!(
        (issued.parsed.path_len, issued.parsed.is_ca),
        (Some(0), true)
    );
    assert_eq!(record.name.as_str(), "spiffe://countersign.internal/farm");

    let farm = open(&files);
    let signed = Ask::agent("worker", &["tools:files__read_*"])
        .sign(&farm)
        .unwrap();
    let leaf = issue_offline(signed, "farm@there", NOW).unwrap();
    assert_eq!(
        leaf.enrolment.not_after, issued.enrolment.not_after,
        "not beyond the delegate"
    );
    let file = bench.write("worker", &leaf);
    let (accepted, said) = openssl_verify(&bench, &file, NOW, &["-purpose", "sslclient"]);
    assert!(accepted, "{said}");
    let wide = Ask::agent("worker", &["tools:*"]).sign(&farm).unwrap_err();
    assert!(matches!(wide, SignError::Ceiling { .. }), "{wide}");

    let signed = Ask::agent("agent", &["tools:*"])
        .sign(bench.issuing())
        .unwrap();
    let recorded = issue_offline(signed, "me", NOW).unwrap_err();
    assert!(matches!(recorded, IssueError::MustRecord(_)), "{recorded}");
    let (signer, _) = Signer::generate(KeyKind::P256).unwrap();
    let again = Delegation {
        name: SpiffeId::new(DOMAIN, "below").unwrap(),
        subject_key: &signer.public_key(),
        ceiling: WrittenGrants::parse(&["tools:files__a"]).unwrap(),
        ttl: Duration::from_secs(3600),
    };
    let below = farm.delegate(&again, rules(), NOW).unwrap_err();
    assert!(matches!(below, SignError::PathLength(_)), "{below}");
    assert!(
        prepare_delegate(&bench.path("farm")).is_err(),
        "a CA is never overwritten"
    );
}

/// The root that was replaced vouches for the new one in every chain but a delegate's, which it would make
/// too long.
#[tokio::test]
async fn a_delegate_signs_offline_after_the_root_was_replaced_too() {
    let bench = Bench::new().await;
    let (before, _) = delegate(&bench, &["tools:files__*"]).await;
    let rotated = root_replaced(&bench).await;
    fs::rename(bench.path("farm"), bench.path("farm-before")).unwrap();
    let (after, _) = delegate_of(&rotated.issuing, &bench, &["tools:files__*"]).await;
    let before = CaFiles::new(&before.dir().with_file_name("farm-before"));
    // As delegates were written once: with the root as the old one signed it.
    let written = fs::read_to_string(after.issuing_certificate()).unwrap();
    let cross = fs::read_to_string(bench.files.cross_certificate()).unwrap();
    let verified = |name: &'static str, files: &CaFiles| {
        let signed = Ask::agent(name, &["tools:files__read_*"]).sign(&open(files));
        let leaf = issue_offline(signed.unwrap(), "farm@there", NOW).unwrap();
        let file = bench.write(name, &leaf);
        let (accepted, said) = openssl_verify(&bench, &file, NOW, &["-purpose", "sslclient"]);
        assert!(accepted, "{name}: {said}");
        fs::read_to_string(file).unwrap().matches("BEGIN").count()
    };
    assert_eq!(
        verified("of-before", &before),
        3,
        "leaf, delegate, issuing CA"
    );
    assert_eq!(verified("of-after", &after), 3);
    fs::write(after.issuing_certificate(), written + &cross).unwrap();
    assert_eq!(verified("of-once", &after), 3);
}

#[tokio::test]
async fn a_delegation_is_held_against_lifetime_grants_and_key() {
    let bench = Bench::new().await;
    let (signer, _) = Signer::generate(KeyKind::P256).unwrap();
    let key = signer.public_key();
    let sign = |name: &str, ceiling: &[&str], ttl: i64, key: &[u8]| {
        let delegation = Delegation {
            name: name.parse().unwrap(),
            subject_key: key,
            ceiling: WrittenGrants::parse(ceiling).unwrap(),
            ttl: Duration::from_secs(ttl.unsigned_abs()),
        };
        bench.issuing().delegate(&delegation, rules(), NOW)
    };
    let name = "spiffe://countersign.internal/farm";
    assert!(sign(name, &["tools:*"], HOUR, &key).is_ok());
    assert!(matches!(
        sign(name, &[], HOUR, &key),
        Err(SignError::NoGrants(_))
    ));
    assert!(matches!(
        sign(name, &["tools:*"], 91 * DAY, &key),
        Err(SignError::Lifetime { .. })
    ));
    assert!(matches!(
        sign(name, &["tools:*"], 59, &key),
        Err(SignError::Lifetime { .. })
    ));
    assert!(matches!(
        sign(name, &["tools:*"], HOUR, b"junk"),
        Err(SignError::Key(_))
    ));
    let elsewhere = sign("spiffe://example.org/farm", &["tools:*"], HOUR, &key);
    assert!(matches!(elsewhere, Err(SignError::TrustDomain { .. })));
}

#[tokio::test]
async fn an_issuing_ca_with_a_ceiling_signs_nothing_beyond_it() {
    let bench = Bench::empty().await;
    let (word, ceiling) = (secret(), WrittenGrants::parse(&["tools:files__*"]).unwrap());
    let new = crate::ca::NewAuthority {
        ceiling: Some(&ceiling),
        ..new_authority(&word, KeyKind::P256)
    };
    let created = crate::ca::create(&bench.files, new, &bench.store, "me", NOW)
        .await
        .unwrap();
    assert!(
        Ask::agent("a", &["tools:files__read"])
            .sign(&created.issuing)
            .is_ok()
    );
    let refused = Ask::agent("a", &["prompts:*"])
        .sign(&created.issuing)
        .unwrap_err();
    assert!(matches!(refused, SignError::Ceiling { .. }), "{refused}");
}

/// As a relying party with these roots and CRLs judges it.
fn judge(roots: &Path, crls: &Path, chain: &Path, at: UnixTime) -> (bool, String) {
    let at = at.0.to_string();
    openssl(&[
        "verify",
        "-x509_strict",
        "-crl_check_all",
        "-attime",
        &at,
        "-CAfile",
        roots.to_str().unwrap(),
        "-CRLfile",
        crls.to_str().unwrap(),
        "-untrusted",
        chain.to_str().unwrap(),
        chain.to_str().unwrap(),
    ])
}

#[tokio::test]
async fn both_issuing_cas_are_good_and_both_keep_their_crls() {
    let bench = Bench::new().await;
    let old = Ask::agent("old", &["tools:*"]).issue(&bench).await.unwrap();
    let old_file = bench.write("old", &old);
    let word = secret();
    let new = new_authority(&word, KeyKind::P384);
    let root = bench.root();
    let rotated = rotate_issuing(&bench.files, &root, new, &bench.store, "me@here", NOW)
        .await
        .unwrap();
    assert!(!bench.files.next().exists());
    assert_ne!(rotated.issuing.fingerprint(), bench.issuing().fingerprint());
    assert_eq!(
        open(&bench.files).fingerprint(),
        rotated.issuing.fingerprint()
    );
    assert_eq!(
        open(&rotated.retired).fingerprint(),
        bench.issuing().fingerprint()
    );

    let signed = Ask::agent("new", &["tools:*"])
        .sign(&rotated.issuing)
        .unwrap();
    let new = issue(&bench.store, signed, "me@here", NOW).await.unwrap();
    let new_file = bench.write("new", &new);
    let bundle = bench.files.bundle();
    let root_file = bench.files.root_certificate();
    let judged = |file: &Path| judge(&root_file, &bundle, file, NOW);
    for file in [&old_file, &new_file] {
        assert!(judged(file).0, "{}", judged(file).1);
    }
    // The old one's CRL is still written, by its own key, and the bundle follows.
    bench
        .store
        .revoke(old.enrolment.fingerprint, &why())
        .await
        .unwrap();
    let open = [open(&bench.files), open(&rotated.retired)];
    let oid = DEFAULT_PERMISSION_OID;
    let written = refresh_crls(&bench.files, &open, &bench.store, oid, NOW)
        .await
        .unwrap();
    assert_eq!(
        written.len(),
        1,
        "only one of them has something new to say"
    );
    assert_eq!(written[0].path, rotated.retired.issuing_crl());
    assert!(
        judged(&old_file).1.contains("certificate revoked"),
        "{}",
        judged(&old_file).1
    );
    assert!(judged(&new_file).0, "{}", judged(&new_file).1);
    let again = refresh_crls(&bench.files, &open, &bench.store, oid, NOW)
        .await
        .unwrap();
    assert!(again.is_empty());
    // Revoking the old issuing CA takes what it signed, and nothing of the new one.
    bench
        .store
        .revoke(bench.issuing().fingerprint(), &why())
        .await
        .unwrap();
    write_crl(&root, &bench.files.root_crl(), &bench.store, NOW)
        .await
        .unwrap();
    crate::ca::write_bundle(&bench.files, oid, NOW).unwrap();
    assert!(!judged(&old_file).0);
    assert!(judged(&new_file).0, "{}", judged(&new_file).1);
    let tomorrow = UnixTime(NOW.0 + DAY);
    let daily = refresh_crls(&bench.files, &open, &bench.store, oid, tomorrow)
        .await
        .unwrap();
    assert_eq!(daily.len(), 2, "on a timer all of them");
}

#[tokio::test]
async fn the_old_root_vouches_for_the_new_one() {
    let bench = Bench::new().await;
    let old = Ask::agent("old", &["tools:*"]).issue(&bench).await.unwrap();
    let old_file = bench.write("old", &old);
    let old_root = bench.path("old-root.pem");
    fs::copy(bench.files.root_certificate(), &old_root).unwrap();
    let root = bench.root();
    let rotated = root_replaced(&bench).await;
    let signed = Ask::agent("new", &["tools:*"])
        .sign(&rotated.issuing)
        .unwrap();
    let issued = issue(&bench.store, signed, "me@here", NOW).await.unwrap();
    let new_file = bench.write("new", &issued);
    assert_eq!(
        issued.root_pem().matches("BEGIN").count(),
        2,
        "clients trust both for now"
    );

    let bundle = bench.files.bundle();
    let both = bench.files.root_certificate();
    let new_root = bench.path("new-root.pem");
    fs::write(
        &new_root,
        crate::cert::pem::certificate(rotated.issuing.root_der()),
    )
    .unwrap();
    for (who, roots, file) in [
        ("both know the old", &both, &old_file),
        ("both know the new", &both, &new_file),
        (
            "who trusts only the old root accepts what comes after",
            &old_root,
            &new_file,
        ),
        ("who trusts only the new one, too", &new_root, &new_file),
    ] {
        let (accepted, said) = judge(roots, &bundle, file, NOW);
        assert!(accepted, "{who}: {said}");
    }
    let (accepted, said) = judge(&new_root, &bundle, &old_file, NOW);
    assert!(!accepted, "the new root did not sign the old CA: {said}");
    let current = bench.root();
    assert_eq!(
        current.der(),
        rotated.issuing.root_der(),
        "the new root opens and signs"
    );
    let crl = bench.files.root_crl();
    write_crl(&current, &crl, &bench.store, NOW).await.unwrap();
    // The root before keeps its key and CRL: it can still revoke what it signed, the cross too.
    let before = Authority::root(&rotated.retired, &|_| Ok(secret()), DEFAULT_PERMISSION_OID);
    let before = before.unwrap();
    assert_eq!(before.fingerprint(), root.fingerprint());
    let crl = bench.files.crl_of(before.fingerprint()).unwrap();
    assert_eq!(crl, rotated.retired.root_crl());
}

#[tokio::test]
async fn a_rotation_that_was_killed_is_finished_or_never_was() {
    let bench = Bench::new().await;
    let before = open(&bench.files).fingerprint();
    // Killed while the new files were made: nothing happened.
    fs::create_dir(bench.files.dir().join(".next.making")).unwrap();
    fs::write(bench.files.dir().join(".next.making/issuing.key"), "half").unwrap();
    assert_eq!(open(&bench.files).fingerprint(), before);
    // Killed right after they counted, and after each move.
    let word = secret();
    let new = new_authority(&word, KeyKind::P256);
    let root = bench.root();
    for moved in 0..4 {
        let rotated = rotate_issuing(&bench.files, &root, new, &bench.store, "me", NOW)
            .await
            .unwrap();
        let next = bench.files.next();
        fs::create_dir(&next).unwrap();
        for name in ["issuing.key", "issuing.crt", "issuing.crl"]
            .into_iter()
            .skip(moved)
        {
            fs::rename(bench.files.dir().join(name), next.join(name)).unwrap();
            // What a mover finds that was killed before this file: the old one.
            fs::copy(
                rotated.retired.dir().join(name),
                bench.files.dir().join(name),
            )
            .unwrap();
        }
        let opened = open(&bench.files).fingerprint();
        assert_eq!(opened, rotated.issuing.fingerprint(), "after {moved} moves");
        assert!(!next.exists());
    }
}

#[tokio::test]
async fn an_address_for_the_crl_is_said_and_kept() {
    let bench = Bench::new().await;
    let path = bench.files.issuing_crl();
    let url = "http://pki.example/issuing.crl";
    let first = crate::ca::write_crl_at(bench.issuing(), &path, &bench.store, url, NOW);
    let first = first.await.unwrap();
    let second = write_crl(bench.issuing(), &path, &bench.store, NOW)
        .await
        .unwrap();
    assert!(second.number > first.number);
    let text = openssl(&["crl", "-in", path.to_str().unwrap(), "-noout", "-text"]).1;
    assert!(
        text.contains("Issuing Distribution Point: critical") && text.contains(url),
        "{text}"
    );
}
