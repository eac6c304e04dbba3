use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::bench::{Bench, DAY, DOMAIN, NOW, new_authority, openssl, secret};
use crate::ca::{Authority, AuthorityError, CreateError, Keeping, State, create};
use crate::cert::{DEFAULT_PERMISSION_OID, KeyError, KeyKind};
use crate::registry::{EnrolmentKind, Store};
use crate::secret::Secret;

#[tokio::test]
async fn root_and_issuing_ca_are_those_of_the_contract() {
    for key in [KeyKind::P256, KeyKind::P384, KeyKind::Ed25519] {
        let bench = Bench::with_key(key).await;
        let (root, issuing) = (bench.root(), bench.issuing());
        let below = |authority: &Authority| {
            let (_, parsed) = x509_parser::parse_x509_certificate(authority.der()).unwrap();
            parsed
                .basic_constraints()
                .unwrap()
                .unwrap()
                .value
                .path_len_constraint
        };
        assert_eq!((below(&root), below(issuing)), (Some(2), Some(1)));
        assert_eq!(issuing.trust_domain(), DOMAIN);
        let days = |authority: &Authority| (authority.certificate().not_after.0 - NOW.0) / DAY;
        assert_eq!((days(&root), days(issuing)), (3652, 365));
        assert_ne!(root.certificate().subject, issuing.certificate().subject);
        let (_, parsed) = x509_parser::parse_x509_certificate(issuing.der()).unwrap();
        let usage = parsed.key_usage().unwrap().unwrap();
        assert!(usage.critical && usage.value.key_cert_sign() && usage.value.crl_sign());
        let record = bench
            .store
            .get(issuing.fingerprint())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(record.kind, EnrolmentKind::Authority);
        assert_eq!(record.issuer, Some(root.fingerprint()));
        assert!(!record.pinned, "a pin would admit everything below it");
    }
}

#[tokio::test]
async fn keys_are_private_encrypted_and_open_with_openssl() {
    let open = |path: &std::path::Path, word| {
        openssl(&[
            "pkey",
            "-in",
            path.to_str().unwrap(),
            "-noout",
            "-passin",
            word,
        ])
    };
    for key in [KeyKind::P256, KeyKind::P384, KeyKind::Ed25519] {
        let bench = Bench::with_key(key).await;
        for path in [bench.files.root_key(), bench.files.issuing_key()] {
            assert_eq!(
                fs::metadata(&path).unwrap().permissions().mode() & 0o777,
                0o600
            );
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"));
        }
        let (good, said) = open(&bench.files.issuing_key(), "pass:correct horse");
        assert!(good, "{key}: {said}");
        if key == KeyKind::P256 {
            assert!(open(&bench.files.root_key(), "pass:correct horse").0);
            assert!(!open(&bench.files.root_key(), "pass:wrong").0);
        }
    }
}

#[tokio::test]
async fn two_passphrases_stay_two() {
    let bench = Bench::empty().await;
    let (root, issuing) = (
        Secret::from("one".to_owned()),
        Secret::from("two".to_owned()),
    );
    let mut new = new_authority(&root, KeyKind::P256);
    new.issuing = Keeping::Sealed(&issuing);
    create(&bench.files, new, &bench.store, "me", NOW)
        .await
        .unwrap();
    let open = |secret: &Secret| {
        let unlock = |_: &std::path::Path| Ok(secret.clone());
        Authority::issuing(&bench.files, &unlock, DEFAULT_PERMISSION_OID).map(drop)
    };
    open(&issuing).unwrap();
    let error = open(&root).unwrap_err();
    assert!(
        matches!(error, AuthorityError::Key(KeyError::WrongPassphrase { .. })),
        "{error}"
    );
}

#[tokio::test]
async fn a_ca_is_never_overwritten() {
    let bench = Bench::new().await;
    let before = bench.root().fingerprint();
    let again = async || {
        create(
            &bench.files,
            new_authority(&secret(), KeyKind::P256),
            &bench.store,
            "me",
            NOW,
        )
        .await
    };
    assert!(matches!(again().await, Err(CreateError::Exists(_))));
    assert_eq!(bench.root().fingerprint(), before);

    fs::remove_file(bench.files.issuing_key()).unwrap();
    let error = again().await.unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("holds part of a CA: `issuing.key` is missing"),
        "{error}"
    );
    for file in ["root.key", "root.crt", "issuing.crt"] {
        fs::remove_file(bench.files.dir().join(file)).unwrap();
    }
    assert!(
        matches!(again().await, Err(CreateError::Foreign(_))),
        "the CRLs are left"
    );
    fs::remove_dir_all(bench.files.dir()).unwrap();
    fs::create_dir(bench.files.dir()).unwrap();
    again().await.unwrap();
    assert_ne!(bench.root().fingerprint(), before);
}

#[tokio::test]
async fn a_killed_run_leaves_nothing_that_looks_like_a_ca() {
    let bench = Bench::empty().await;
    let staged = bench.path(".ca.making");
    fs::create_dir(&staged).unwrap();
    fs::write(staged.join("root.key"), "half a k").unwrap();
    assert_eq!(bench.files.state().unwrap(), State::Absent);
    create(
        &bench.files,
        new_authority(&secret(), KeyKind::P256),
        &bench.store,
        "me",
        NOW,
    )
    .await
    .unwrap();
    assert!(!staged.exists());
    assert_eq!(bench.files.state().unwrap(), State::Complete);
    bench.root();
}

#[tokio::test]
async fn a_trust_domain_is_checked() {
    let bench = Bench::empty().await;
    let secret = secret();
    let mut new = new_authority(&secret, KeyKind::P256);
    new.trust_domain = "Example.ORG";
    let error = create(&bench.files, new, &bench.store, "me", NOW)
        .await
        .unwrap_err();
    assert!(matches!(error, CreateError::TrustDomain { .. }), "{error}");
    new.trust_domain = "example.org";
    create(&bench.files, new, &bench.store, "me", NOW)
        .await
        .unwrap();
}

#[tokio::test]
async fn parts_that_do_not_fit_together_are_not_opened() {
    let (bench, other) = (Bench::new().await, Bench::new().await);
    let open =
        || Authority::issuing(&bench.files, &|_| Ok(secret()), DEFAULT_PERMISSION_OID).map(drop);
    open().unwrap();
    let key = fs::read(bench.files.issuing_key()).unwrap();
    fs::copy(other.files.issuing_key(), bench.files.issuing_key()).unwrap();
    assert!(matches!(open(), Err(AuthorityError::Mismatch { .. })));
    fs::write(bench.files.issuing_key(), key).unwrap();
    open().unwrap();
    fs::set_permissions(bench.files.issuing_key(), fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(
        open(),
        Err(AuthorityError::Key(KeyError::File(_)))
    ));
    fs::set_permissions(bench.files.issuing_key(), fs::Permissions::from_mode(0o600)).unwrap();
    fs::copy(
        other.files.root_certificate(),
        bench.files.root_certificate(),
    )
    .unwrap();
    assert!(matches!(open(), Err(AuthorityError::Chain { .. })));
}
