use std::time::Duration;

use super::bench::{Ask, Bench, NOW};
use crate::ca::{RevokeError, revoke};
use crate::registry::{Reason, Store, StoreError};

#[tokio::test]
async fn by_name_fingerprint_or_serial_and_for_good() {
    let bench = Bench::new().await;
    for key in ["name", "fingerprint", "serial"] {
        let issued = Ask::agent("agent", &["tools:*"])
            .issue(&bench)
            .await
            .unwrap()
            .enrolment;
        let key = match key {
            "name" => String::from("agent"),
            "serial" => issued.serial.clone(),
            _ => issued.fingerprint.to_string(),
        };
        let patience = Duration::from_millis(1);
        let done = revoke(
            &bench.store,
            &key,
            Reason::Superseded,
            "me@here",
            patience,
            NOW,
        );
        let done = done.await.unwrap();
        assert!(!done.already && done.confirmation.live.is_empty());
        let record = bench.store.get(issued.fingerprint).await.unwrap().unwrap();
        let revocation = record.revocation.expect("revoked when the command returns");
        assert_eq!(
            (revocation.reason, revocation.at),
            (Reason::Superseded, NOW)
        );
        assert_eq!(revocation.by, "me@here");

        let fingerprint = issued.fingerprint.to_string();
        let again = revoke(
            &bench.store,
            &fingerprint,
            Reason::KeyCompromise,
            "you",
            patience,
            NOW,
        );
        let again = again.await.unwrap();
        assert!(again.already);
        assert_eq!(
            again.enrolment.revocation.unwrap().reason,
            Reason::Superseded
        );
    }
    let nobody = revoke(
        &bench.store,
        "nobody",
        Reason::Unspecified,
        "me",
        Duration::ZERO,
        NOW,
    );
    assert!(matches!(
        nobody.await,
        Err(RevokeError::Store(StoreError::NotFound(_)))
    ));
}

#[tokio::test]
async fn it_waits_for_a_live_server_and_says_so() {
    let bench = Bench::new().await;
    let issued = Ask::agent("agent", &["tools:*"])
        .issue(&bench)
        .await
        .unwrap();
    bench.store.heartbeat("server-1", issued.seq).await.unwrap();
    let wait = Duration::from_millis(50);
    let done = revoke(&bench.store, "agent", Reason::Unspecified, "me", wait, NOW)
        .await
        .unwrap();
    assert_eq!(done.confirmation.live, ["server-1"]);
    assert!(
        done.confirmation.confirmed.is_empty(),
        "it never applied the change"
    );
}
