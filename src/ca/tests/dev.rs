use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::bench::{Bench, DAY, HOUR, NOW};
use crate::ca::dev::{Dev, DevError, Verb, ensure};
use crate::cert::load_chain;
use crate::clock::UnixTime;
use crate::grant::{Kind, Roles};
use crate::identity::Fingerprint;
use crate::registry::{Reason, Revocation, SqliteStore, Store};

fn later(span: i64) -> UnixTime {
    UnixTime(NOW.0 + span)
}

fn prints(dev: &Dev) -> [Fingerprint; 3] {
    [
        dev.server.fingerprint,
        dev.operator.fingerprint,
        dev.reader.fingerprint,
    ]
}

fn said(dev: &Dev) -> Vec<String> {
    dev.steps.iter().map(ToString::to_string).collect()
}

async fn standing(dev: &Dev, print: Fingerprint) -> (bool, bool) {
    let store = SqliteStore::open(&dev.registry, false).await.unwrap();
    let record = store.get(print).await.unwrap().unwrap();
    (record.pinned, record.revocation.is_some())
}

#[tokio::test]
async fn made_once_and_reused_without_opening_a_key() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("pki/dev");
    let first = ensure(&folder, NOW).await.unwrap();
    assert!(
        first.steps.iter().all(|step| step.verb == Verb::Made),
        "{:?}",
        said(&first)
    );
    for member in [&first.server, &first.operator, &first.reader] {
        assert_eq!(load_chain(&member.certificate).unwrap().len(), 2);
        crate::cert::check_private(&member.key).unwrap();
        let pinned = standing(&first, member.fingerprint).await.0;
        assert_eq!(pinned, member.role != "server", "{}", member.role);
    }
    let allows = |grants: &crate::grant::WrittenGrants, kind, target| {
        grants.resolve(&Roles::new()).unwrap().allows(kind, target)
    };
    let (operator, reader) = (&first.operator.grants, &first.reader.grants);
    assert!(
        allows(operator, Kind::Admin, "status")
            && allows(operator, Kind::Tools, "files__write_file")
    );
    assert!(
        allows(reader, Kind::Tools, "files__read_file")
            && allows(reader, Kind::Tools, "self__whoami")
    );
    assert!(!allows(reader, Kind::Tools, "files__write_file"));
    assert!(!allows(reader, Kind::Tools, "files__delete_file"));
    assert!(!allows(reader, Kind::Admin, "status"));

    // With a passphrase that opens nothing, every use of a CA key would fail.
    fs::write(folder.join("ca/passphrase"), "wrong").unwrap();
    let second = ensure(&folder, later(HOUR)).await.unwrap();
    assert!(second.steps.is_empty(), "{:?}", said(&second));
    assert_eq!(prints(&second), prints(&first));
}

#[tokio::test]
async fn what_runs_out_is_renewed_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let first = ensure(dir.path(), NOW).await.unwrap();
    let week = ensure(dir.path(), later(5 * DAY)).await.unwrap();
    assert_eq!(week.server.fingerprint, first.server.fingerprint);
    assert_ne!(week.operator.fingerprint, first.operator.fingerprint);
    assert_ne!(week.reader.fingerprint, first.reader.fingerprint);
    assert!(
        week.steps.iter().all(|step| step.verb == Verb::Renewed),
        "{:?}",
        said(&week)
    );
    assert_eq!(week.operator.name, first.operator.name);

    let month = ensure(dir.path(), later(60 * DAY)).await.unwrap();
    assert_ne!(month.server.fingerprint, first.server.fingerprint);
    assert!(month.operator.not_after > later(60 * DAY));
    assert_eq!(month.ca_fingerprint, first.ca_fingerprint);

    let year = ensure(dir.path(), later(300 * DAY)).await.unwrap();
    assert_eq!(year.ca_fingerprint, first.ca_fingerprint, "the root stays");
    assert!(
        said(&year).contains(&String::from("renewed the issuing CA")),
        "{:?}",
        said(&year)
    );
    assert!(
        ensure(dir.path(), later(300 * DAY))
            .await
            .unwrap()
            .steps
            .is_empty()
    );

    let decade = ensure(dir.path(), later(3600 * DAY)).await.unwrap();
    assert_ne!(decade.ca_fingerprint, first.ca_fingerprint);
    assert!(
        ensure(dir.path(), later(3600 * DAY))
            .await
            .unwrap()
            .steps
            .is_empty()
    );
}

type Damage = fn(&Path);

/// Makes the folder once, and for each damage mends a damaged copy of it.
async fn mends(damages: &[(&str, Damage)]) {
    let pristine = tempfile::tempdir().unwrap();
    ensure(pristine.path(), NOW).await.unwrap();
    for (what, damage) in damages {
        let dir = tempfile::tempdir().unwrap();
        copy(pristine.path(), dir.path());
        damage(dir.path());
        let mended = ensure(dir.path(), later(60)).await;
        let mended = mended.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(!mended.steps.is_empty(), "{what}");
        for member in [&mended.server, &mended.operator, &mended.reader] {
            let stands = standing(&mended, member.fingerprint).await;
            assert_eq!(stands, (member.role != "server", false), "{what}");
            let leaf = load_chain(&member.certificate).unwrap().swap_remove(0);
            assert_eq!(Fingerprint::of_der(&leaf), member.fingerprint, "{what}");
        }
        let again = ensure(dir.path(), later(120)).await.unwrap();
        assert!(again.steps.is_empty(), "{what}: {:?}", said(&again));
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn remove(at: &Path, files: &[&str]) {
    for file in files {
        fs::remove_file(at.join(file)).unwrap();
    }
}

/// Every way in which a killed run, or a careless hand, can leave the members.
#[tokio::test]
async fn a_member_that_does_not_fit_together_is_made_anew() {
    mends(&[
        ("server.key", |at| remove(at, &["server.key"])),
        ("operator.crt", |at| remove(at, &["operator.crt"])),
        ("both of reader", |at| {
            remove(at, &["reader.crt", "reader.key"])
        }),
        ("torn certificate", |at| {
            fs::write(at.join("reader.crt"), "-----BEGIN CERT").unwrap()
        }),
        ("empty key", |at| {
            fs::write(at.join("reader.key"), "").unwrap()
        }),
        ("swapped keys", |at| {
            fs::copy(at.join("reader.key"), at.join("operator.key"))
                .map(drop)
                .unwrap();
        }),
        ("swapped members", |at| {
            fs::copy(at.join("operator.crt"), at.join("reader.crt"))
                .map(drop)
                .unwrap();
            fs::copy(at.join("operator.key"), at.join("reader.key"))
                .map(drop)
                .unwrap();
        }),
        ("open key", |at| {
            fs::set_permissions(at.join("server.key"), fs::Permissions::from_mode(0o644)).unwrap();
        }),
        ("ca.pem", |at| fs::write(at.join("ca.pem"), "junk").unwrap()),
    ])
    .await;
}

/// The same for what stands above and beside them.
#[tokio::test]
async fn a_ca_or_registry_that_does_not_fit_together_is_made_anew() {
    mends(&[
        ("the registry", |at| {
            for file in fs::read_dir(at).unwrap().map(|entry| entry.unwrap().path()) {
                if file.to_string_lossy().contains("registry.db") {
                    fs::remove_file(file).unwrap();
                }
            }
        }),
        ("the CA", |at| fs::remove_dir_all(at.join("ca")).unwrap()),
        ("the CA's files", |at| {
            remove(
                &at.join("ca"),
                &["root.crt", "root.key", "issuing.crt", "issuing.key"],
            );
        }),
        ("the issuing key", |at| remove(at, &["ca/issuing.key"])),
        ("the passphrase", |at| remove(at, &["ca/passphrase"])),
        ("the root's certificate", |at| {
            fs::write(at.join("ca/root.crt"), "junk").unwrap()
        }),
        ("the CRL", |at| {
            fs::write(at.join("ca/issuing.crl"), "junk").unwrap()
        }),
        ("half a CA beside", |at| {
            fs::rename(at.join("ca"), at.join(".ca.making")).unwrap();
            remove(at, &[".ca.making/issuing.key"]);
        }),
    ])
    .await;
}

#[tokio::test]
async fn a_key_that_does_not_open_is_found_before_anything_is_signed() {
    let dir = tempfile::tempdir().unwrap();
    let first = ensure(dir.path(), NOW).await.unwrap();
    // As a run that was killed between the two files of a renewal leaves it.
    let other = Bench::new().await;
    let foreign = fs::read(other.files.issuing_key()).unwrap();
    crate::cert::write_atomic(&dir.path().join("ca/issuing.key"), &foreign, 0o600).unwrap();
    crate::cert::write_atomic(&dir.path().join("ca/passphrase"), b"correct horse", 0o600).unwrap();
    let mended = ensure(dir.path(), later(6 * DAY)).await.unwrap();
    assert_ne!(
        mended.ca_fingerprint, first.ca_fingerprint,
        "the root's key did not open either"
    );
    assert!(
        dir.path().join("ca.old/root.key").exists(),
        "set aside, not deleted"
    );
    assert!(
        ensure(dir.path(), later(6 * DAY))
            .await
            .unwrap()
            .steps
            .is_empty()
    );
}

#[tokio::test]
async fn a_revoked_member_is_made_anew_and_stays_revoked() {
    let dir = tempfile::tempdir().unwrap();
    let first = ensure(dir.path(), NOW).await.unwrap();
    let store = SqliteStore::open(&first.registry, false).await.unwrap();
    let revocation = Revocation {
        at: NOW,
        reason: Reason::Unspecified,
        by: "me".into(),
    };
    store
        .revoke(first.reader.fingerprint, &revocation)
        .await
        .unwrap();
    let second = ensure(dir.path(), later(60)).await.unwrap();
    assert_eq!(
        said(&second),
        ["made anew the certificate of `reader`: the one before is revoked"]
    );
    assert!(standing(&second, first.reader.fingerprint).await.1);
    assert_eq!(
        standing(&second, second.reader.fingerprint).await,
        (true, false)
    );
    assert_eq!(second.operator.fingerprint, first.operator.fingerprint);
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = ensure(&file.join("dev"), NOW).await.unwrap_err();
    assert!(matches!(error, DevError::Folder { .. }), "{error}");
    assert!(
        error.to_string().contains(file.to_str().unwrap()),
        "{error}"
    );
    assert!(ensure(&dir.path().join("dev"), NOW).await.is_ok());
}
