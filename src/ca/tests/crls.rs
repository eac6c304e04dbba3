use std::fs;

use super::bench::{Ask, Bench, DAY, NOW, openssl, openssl_verify};
use crate::ca::{CrlError, write_crl};
use crate::clock::UnixTime;
use crate::registry::{Reason, Revocation, SqliteStore, Store};

fn revocation(at: UnixTime) -> Revocation {
    Revocation {
        at,
        reason: Reason::KeyCompromise,
        by: String::from("me@here"),
    }
}

#[tokio::test]
async fn openssl_refuses_what_the_crl_names_and_accepts_the_rest() {
    let bench = Bench::new().await;
    let bad = Ask::agent("bad", &["tools:*"]).issue(&bench).await.unwrap();
    let good = Ask::agent("good", &["tools:*"])
        .issue(&bench)
        .await
        .unwrap();
    let (bad_file, good_file) = (bench.write("bad", &bad), bench.write("good", &good));
    let (issuing_crl, root_crl) = (bench.files.issuing_crl(), bench.files.root_crl());
    let (issuing_crl, root_crl) = (issuing_crl.to_str().unwrap(), root_crl.to_str().unwrap());
    let checked = [
        "-crl_check_all",
        "-CRLfile",
        issuing_crl,
        "-CRLfile",
        root_crl,
    ];
    let verify = |file| openssl_verify(&bench, file, NOW, &checked);
    assert!(verify(&bad_file).0, "{}", verify(&bad_file).1);

    bench
        .store
        .revoke(bad.enrolment.fingerprint, &revocation(NOW))
        .await
        .unwrap();
    let path = bench.files.issuing_crl();
    let crl = write_crl(bench.issuing(), &path, &bench.store, NOW)
        .await
        .unwrap();
    assert_eq!(crl.entries, 1);
    let (accepted, said) = verify(&bad_file);
    assert!(!accepted && said.contains("certificate revoked"), "{said}");
    assert!(verify(&good_file).0, "{}", verify(&good_file).1);
    let root = bench.files.root_certificate();
    let text = openssl(&["crl", "-in", issuing_crl, "-noout", "-text"]).1;
    assert!(
        text.contains("Key Compromise") && text.contains("X509v3 Authority Key Identifier"),
        "{text}"
    );
    assert!(
        text.contains(&bad.enrolment.serial.to_uppercase()),
        "{text}"
    );
    let by_root = openssl(&[
        "crl",
        "-in",
        root_crl,
        "-noout",
        "-CAfile",
        root.to_str().unwrap(),
    ]);
    assert!(by_root.1.contains("verify OK"), "{}", by_root.1);
}

#[tokio::test]
async fn the_number_only_grows_and_a_lost_registry_revokes_nothing_back() {
    let bench = Bench::new().await;
    let bad = Ask::agent("bad", &["tools:*"]).issue(&bench).await.unwrap();
    bench
        .store
        .revoke(bad.enrolment.fingerprint, &revocation(NOW))
        .await
        .unwrap();
    let path = bench.files.issuing_crl();
    let authority = bench.issuing();
    let first = write_crl(authority, &path, &bench.store, NOW)
        .await
        .unwrap();
    // The clock has gone back a year.
    let past = UnixTime(NOW.0 - 365 * DAY);
    let second = write_crl(authority, &path, &bench.store, past)
        .await
        .unwrap();
    assert!(
        second.number > first.number,
        "{} then {}",
        first.number,
        second.number
    );

    let lost = SqliteStore::open(&bench.path("empty.db"), true)
        .await
        .unwrap();
    let third = write_crl(authority, &path, &lost, NOW).await.unwrap();
    assert!(third.number > second.number);
    assert_eq!(third.entries, 1, "the last CRL still says it");

    fs::remove_file(&path).unwrap();
    let fourth = write_crl(authority, &path, &bench.store, UnixTime(NOW.0 + 60))
        .await
        .unwrap();
    assert!(fourth.number > third.number, "even when the file was lost");
}

#[tokio::test]
async fn an_entry_goes_some_time_after_its_certificate() {
    let bench = Bench::new().await;
    let bad = Ask::agent("bad", &["tools:*"]).issue(&bench).await.unwrap();
    bench
        .store
        .revoke(bad.enrolment.fingerprint, &revocation(NOW))
        .await
        .unwrap();
    let (path, authority) = (bench.files.issuing_crl(), bench.issuing());
    let entries = async |days: i64| {
        let at = UnixTime(NOW.0 + days * DAY);
        write_crl(authority, &path, &bench.store, at)
            .await
            .unwrap()
            .entries
    };
    assert_eq!(entries(0).await, 1);
    assert_eq!(entries(2).await, 1, "expired, and named once more");
    assert_eq!(entries(40).await, 0);
}

#[tokio::test]
async fn a_damaged_or_foreign_crl_is_not_replaced() {
    let (bench, other) = (Bench::new().await, Bench::new().await);
    let (path, authority) = (bench.files.issuing_crl(), bench.issuing());
    assert!(write_crl(authority, &path, &bench.store, NOW).await.is_ok());
    fs::copy(other.files.issuing_crl(), &path).unwrap();
    let foreign = write_crl(authority, &path, &bench.store, NOW).await;
    assert!(matches!(foreign, Err(CrlError::Foreign { .. })));
    fs::write(&path, "junk").unwrap();
    let damaged = write_crl(authority, &path, &bench.store, NOW).await;
    assert!(matches!(damaged, Err(CrlError::Damaged { .. })));
    assert_eq!(fs::read(&path).unwrap(), b"junk");
}
