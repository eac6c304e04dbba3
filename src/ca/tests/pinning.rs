use std::path::PathBuf;
use std::time::Duration;

use rcgen::{CertificateParams, DnType, KeyPair, SanType};

use super::bench::{Bench, DAY, NOW};
use crate::ca::{NameFrom, NewPin, PinError, pin, unpin};
use crate::cert::DEFAULT_PERMISSION_OID;
use crate::clock::UnixTime;
use crate::grant::WrittenGrants;
use crate::registry::{EnrolmentKind, Reason, Revocation, Store};

/// A certificate of somebody else's making, in a file.
fn external(bench: &Bench, uris: &[&str]) -> PathBuf {
    let mut parameters = CertificateParams::default();
    parameters.not_before = time::OffsetDateTime::from_unix_timestamp(NOW.0 - DAY).unwrap();
    parameters.not_after = time::OffsetDateTime::from_unix_timestamp(NOW.0 + DAY).unwrap();
    parameters
        .distinguished_name
        .push(DnType::CommonName, "partner");
    parameters.subject_alt_names = uris
        .iter()
        .map(|uri| SanType::URI((*uri).try_into().unwrap()))
        .collect();
    let certificate = parameters
        .self_signed(&KeyPair::generate().unwrap())
        .unwrap();
    let path = bench.path("partner.pem");
    std::fs::write(&path, certificate.pem()).unwrap();
    path
}

fn new(file: &std::path::Path) -> NewPin<'_> {
    NewPin {
        file,
        name: None,
        from: NameFrom::Uri,
        grants: Some(WrittenGrants::parse(&["tools:a"]).unwrap()),
        ttl: None,
        permission_oid: DEFAULT_PERMISSION_OID,
    }
}

#[tokio::test]
async fn a_certificate_of_another_ca_is_pinned_under_one_name() {
    let bench = Bench::empty().await;
    let file = external(&bench, &["https://partner.example/agent"]);
    let pinned = pin(&bench.store, &new(&file), "me@here", NOW)
        .await
        .unwrap();
    let record = bench
        .store
        .get(pinned.enrolment.fingerprint)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(record.name.as_str(), "https://partner.example/agent");
    assert_eq!(record.kind, EnrolmentKind::External);
    assert!(record.pinned && !pinned.known);
    assert_eq!(
        record.grants,
        Some(WrittenGrants::parse(&["tools:a"]).unwrap())
    );

    let wider = Some(WrittenGrants::parse(&["tools:*"]).unwrap());
    let again = NewPin {
        grants: wider.clone(),
        ..new(&file)
    };
    assert!(
        pin(&bench.store, &again, "me@here", NOW)
            .await
            .unwrap()
            .known
    );
    let record = bench
        .store
        .get(pinned.enrolment.fingerprint)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(record.grants, wider);

    let key = record.fingerprint.to_string();
    let off = unpin(&bench.store, &key, Duration::from_millis(1), NOW)
        .await
        .unwrap();
    assert!(!off.enrolment.pinned && off.confirmation.is_some());
    assert!(
        !bench
            .store
            .get(record.fingerprint)
            .await
            .unwrap()
            .unwrap()
            .pinned
    );
    assert!(
        pin(&bench.store, &again, "me@here", NOW)
            .await
            .unwrap()
            .enrolment
            .pinned
    );

    let revocation = Revocation {
        at: NOW,
        reason: Reason::Unspecified,
        by: "me".into(),
    };
    bench
        .store
        .revoke(record.fingerprint, &revocation)
        .await
        .unwrap();
    let error = pin(&bench.store, &again, "me@here", NOW).await.unwrap_err();
    assert!(matches!(error, PinError::Revoked(_)), "{error}");
}

#[tokio::test]
async fn no_candidate_and_two_are_refused_and_a_given_name_is_not() {
    let bench = Bench::empty().await;
    for uris in [&[][..], &["urn:a", "urn:b"]] {
        let file = external(&bench, uris);
        let error = pin(&bench.store, &new(&file), "me", NOW).await.unwrap_err();
        let PinError::Candidates { count, .. } = error else {
            panic!("{error}")
        };
        assert_eq!(count, uris.len());
        let named = NewPin {
            name: Some("partner-7"),
            ..new(&file)
        };
        let pinned = pin(&bench.store, &named, "me", NOW).await.unwrap();
        assert_eq!(pinned.enrolment.name.as_str(), "partner-7");
    }
    let file = external(&bench, &[]);
    let by_cn = NewPin {
        from: NameFrom::Cn,
        ..new(&file)
    };
    assert_eq!(
        pin(&bench.store, &by_cn, "me", NOW)
            .await
            .unwrap()
            .enrolment
            .name
            .as_str(),
        "partner"
    );
}

#[tokio::test]
async fn what_would_admit_nobody_or_too_many_is_refused() {
    let bench = Bench::new().await;
    let file = external(&bench, &["urn:a"]);
    let nothing = NewPin {
        grants: None,
        ..new(&file)
    };
    assert!(matches!(
        pin(&bench.store, &nothing, "me", NOW).await,
        Err(PinError::NoGrants(_))
    ));
    let late = UnixTime(NOW.0 + 2 * DAY);
    assert!(matches!(
        pin(&bench.store, &new(&file), "me", late).await,
        Err(PinError::Ended { .. })
    ));
    let root = bench.files.root_certificate();
    assert!(matches!(
        pin(&bench.store, &new(&root), "me", NOW).await,
        Err(PinError::Authority(_))
    ));
    let short = NewPin {
        ttl: Some(Duration::from_secs(60)),
        ..new(&file)
    };
    let pinned = pin(&bench.store, &short, "me", NOW).await.unwrap();
    assert_eq!(
        pinned.enrolment.not_after,
        UnixTime(NOW.0 + 60),
        "the pin's own end"
    );
}
