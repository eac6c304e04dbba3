//! Who was let in once and no longer is: by the registry, by a CRL, by a reload.

use countersign::listener::Close;
use countersign::registry::EnrolmentKind;
use countersign::tls::{Class, CrlMode};
use rustls::AlertDescription as Alert;

use crate::support::client::Answer;
use crate::support::echo::{House, anchor, bundle};
use crate::support::pki::{self, HOUR, at, unix};

#[tokio::test]
async fn revoked() {
    let house = House::new();
    let mut open = house.open().await;
    let reader = house.enrol("reader");
    let client = house.client(&reader);
    assert_eq!(client.knock(open.address).await, Answer::Served);
    open.came_and_went().await;
    house.revoke("reader", &reader);
    let afresh = house.client(&reader);
    assert_eq!(
        afresh.knock(open.address).await,
        Answer::Alert(Alert::CertificateRevoked)
    );
    let refusal = open.refused().await;
    assert_eq!(
        (refusal.class, refusal.fingerprint),
        (Class::Revoked, Some(reader.fingerprint()))
    );
}

#[tokio::test]
async fn revoked_and_resuming() {
    let house = House::new();
    let mut open = house.open().await;
    let reader = house.enrol("reader");
    let client = house.client(&reader);
    for resumed in [false, true, true] {
        assert_eq!(client.knock(open.address).await, Answer::Served);
        let agreed = open.admitted().await.agreed();
        assert_eq!(agreed.resumed, resumed);
        open.ended().await;
    }
    house.revoke("reader", &reader);
    assert_eq!(
        client.knock(open.address).await,
        Answer::Alert(Alert::CertificateRevoked)
    );
    assert_eq!(open.refused().await.class, Class::Revoked);
}

#[tokio::test]
async fn unpinned_and_resuming() {
    let house = House::new();
    let mut open = house.open().await;
    let reader = house.enrol("reader");
    let client = house.client(&reader);
    for resumed in [false, true] {
        assert_eq!(client.knock(open.address).await, Answer::Served);
        assert_eq!(open.admitted().await.agreed().resumed, resumed);
        open.ended().await;
    }
    house.record("reader", &reader, |outline| outline.pinned = false);
    assert_eq!(
        client.knock(open.address).await,
        Answer::Alert(Alert::AccessDenied)
    );
    open.refused().await;
    house.record("reader", &reader, |_| {});
    assert_eq!(client.knock(open.address).await, Answer::Served);
    open.admitted().await;
}

#[tokio::test]
async fn a_revoked_issuer_closes_exactly_its_own() {
    let house = House::new();
    let mut open = house.open().await;
    let other = house.root.sign(pki::ca("other issuing", 1));
    let mut params = pki::client("bystander");
    params.custom_extensions = vec![pki::permissions(&["tools:*"])];
    let bystander = other.sign(params);
    house.record("bystander", &bystander, |_| {});
    let mut first = house
        .client(&house.enrol("a"))
        .connect(open.address)
        .await
        .unwrap();
    let mut second = house
        .client(&house.enrol("b"))
        .connect(open.address)
        .await
        .unwrap();
    let mut beside = house
        .client(&bystander)
        .connect(open.address)
        .await
        .unwrap();
    for _ in 0..3 {
        open.admitted().await;
    }
    house.record("issuing", &house.issuing, |outline| {
        outline.kind = EnrolmentKind::Authority;
        outline.revoked = true;
    });
    assert_eq!(open.close(&house.issuing.fingerprint()), 2);
    first.ended().await;
    second.ended().await;
    assert_eq!(open.ended().await, Some(Close::Revoked));
    assert_eq!(open.ended().await, Some(Close::Revoked));
    beside.echo().await.unwrap();
    assert_eq!(open.index.len(), 1);
    let late = house.client(&house.enrol("c"));
    assert_eq!(
        late.knock(open.address).await,
        Answer::Alert(Alert::CertificateRevoked)
    );
    let refusal = open.refused().await;
    assert!(refusal.reason.contains("the issuer"), "{refusal}");
}

/// Clients come in while their issuer is revoked: whatever the order, none stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_connection_slips_in_beside_a_revocation() {
    let house = House::new();
    let mut open = house.open().await;
    let crowd: Vec<_> = (0..40)
        .map(|n| house.client(&house.enrol(&format!("c{n}"))))
        .collect();
    assert_eq!(crowd[0].knock(open.address).await, Answer::Served);
    open.came_and_went().await;
    let address = open.address;
    let coming: Vec<_> = crowd
        .into_iter()
        .map(|client| {
            tokio::spawn(async move {
                if let Ok(mut conversation) = client.connect(address).await {
                    conversation.ended().await;
                }
            })
        })
        .collect();
    open.admitted().await;
    house.record("issuing", &house.issuing, |outline| {
        outline.kind = EnrolmentKind::Authority;
        outline.revoked = true;
    });
    open.close(&house.issuing.fingerprint());
    for client in coming {
        client.await.unwrap();
    }
}

/// What the CA's own CRL names counts at every place of the path: the leaf, a delegate, the issuing
/// CA; and it closes who is connected, nobody else.
#[tokio::test]
async fn the_cas_own_crl_on_disk_counts_beside_the_store() {
    for place in ["leaf", "delegate", "issuing"] {
        let house = House::new();
        let mut open = house.open().await;
        let mut params = pki::ca("delegate", 0);
        params.custom_extensions = vec![pki::permissions(&["tools:*"])];
        let delegate = house.issuing.sign(params);
        house.record("delegate", &delegate, |outline| {
            outline.kind = EnrolmentKind::Authority;
        });
        let mut params = pki::client("worker");
        params.custom_extensions = vec![pki::permissions(&["tools:*"])];
        let worker = delegate.sign(params);
        let client = house.client(&worker);
        let mut live = client.connect(open.address).await.unwrap();
        let mut beside = house
            .client(&house.enrol("reader"))
            .connect(open.address)
            .await
            .unwrap();
        open.admitted().await;
        open.admitted().await;
        let (issuer, revoked) = match place {
            "leaf" => (&delegate, &worker),
            "delegate" => (&house.issuing, &delegate),
            _ => (&house.root, &house.issuing),
        };
        let serial = revoked.serial().to_bytes();
        house
            .view
            .insert_revoked_serials(issuer.fingerprint(), [serial.as_slice()]);
        let closed = if place == "issuing" { 2 } else { 1 };
        assert_eq!(
            open.reload(&house.anchors, unix(at(0))),
            closed,
            "revoked: the {place}"
        );
        live.ended().await;
        if closed == 1 {
            beside.echo().await.unwrap();
        } else {
            beside.ended().await;
        }
        for _ in 0..closed {
            assert_eq!(open.ended().await, Some(Close::Revoked));
        }
        assert_eq!(
            client.knock(open.address).await,
            Answer::Alert(Alert::CertificateRevoked)
        );
        let refusal = open.refused().await;
        assert!(refusal.reason.contains("CRL"), "{refusal}");
    }
}

/// Writes the CRLs of root and issuing CA into one file.
fn write_crls(house: &House, revoked: &[&pki::Certified], next_update: i64) {
    let crls = [
        house.root.crl(&[], -HOUR, next_update),
        house.issuing.crl(revoked, -HOUR, next_update),
    ];
    std::fs::write(house.folder.path().join("crls.pem"), crls.concat()).unwrap();
}

fn with_crls(mode: Option<CrlMode>) -> House {
    let mut house = House::new();
    house.anchors[0].crl = mode;
    house.anchors[0].crl_file = Some(house.folder.path().join("crls.pem"));
    house
}

#[tokio::test]
async fn a_crl_revokes_after_a_reload_live_and_resuming_too() {
    let house = with_crls(None);
    let (reader, writer) = (house.enrol("reader"), house.enrol("writer"));
    write_crls(&house, &[], HOUR);
    let mut open = house.open().await;
    let client = house.client(&reader);
    let mut live = client.connect(open.address).await.unwrap();
    let mut beside = house.client(&writer).connect(open.address).await.unwrap();
    open.admitted().await;
    open.admitted().await;
    write_crls(&house, &[&reader], HOUR);
    assert_eq!(open.reload(&house.anchors, unix(at(0))), 1);
    live.ended().await;
    assert_eq!(open.ended().await, Some(Close::Revoked));
    assert_eq!(
        client.knock(open.address).await,
        Answer::Alert(Alert::CertificateRevoked)
    );
    let refusal = open.refused().await;
    assert!(refusal.reason.contains("CRL"), "{refusal}");
    beside.echo().await.unwrap();
}

#[tokio::test]
async fn a_required_crl_that_is_stale_refuses_and_a_preferred_one_does_not() {
    for (mode, expected) in [
        (CrlMode::Prefer, Answer::Served),
        (CrlMode::Require, Answer::Alert(Alert::AccessDenied)),
    ] {
        let house = with_crls(Some(mode));
        write_crls(&house, &[], -60);
        let open = house.open().await;
        assert_eq!(
            house
                .client(&house.enrol("reader"))
                .knock(open.address)
                .await,
            expected
        );
    }
}

#[tokio::test]
async fn a_required_crl_that_ends_refuses_chains_that_are_known_already() {
    let house = with_crls(Some(CrlMode::Require));
    write_crls(&house, &[], 3);
    let mut open = house.open().await;
    let client = house.client(&house.enrol("reader"));
    assert_eq!(client.knock(open.address).await, Answer::Served);
    open.came_and_went().await;
    let refused = async {
        while client.knock(open.address).await == Answer::Served {
            // What the door saw is taken each time: there is room for so many, and then it waits.
            open.came_and_went().await;
        }
    };
    tokio::time::timeout(pki::PATIENCE, refused)
        .await
        .expect("it is refused in the end");
}

#[tokio::test]
async fn a_required_crl_that_is_missing_refuses_and_says_why() {
    let house = with_crls(Some(CrlMode::Require));
    let mut open = house.open().await;
    let client = house.client(&house.enrol("reader"));
    assert_eq!(
        client.knock(open.address).await,
        Answer::Alert(Alert::AccessDenied)
    );
    let refusal = open.refused().await;
    assert!(refusal.reason.contains("crls.pem"), "{refusal}");
    write_crls(&house, &[], HOUR);
    open.reload(&house.anchors, unix(at(0)));
    assert_eq!(client.knock(open.address).await, Answer::Served);
    open.admitted().await;
    open.ended().await;
    std::fs::write(house.folder.path().join("crls.pem"), "nonsense").unwrap();
    let failed = open
        .trust
        .reload(&house.anchors, countersign::cert::DEFAULT_PERMISSION_OID);
    assert!(failed.is_err());
    assert_eq!(
        client.knock(open.address).await,
        Answer::Served,
        "the old state stays in force"
    );
}

#[tokio::test]
async fn a_required_crl_covers_every_issuer_but_a_delegate() {
    let house = with_crls(Some(CrlMode::Require));
    write_crls(&house, &[], HOUR);
    let mut open = house.open().await;
    let mut params = pki::ca("delegate", 0);
    params.custom_extensions = vec![pki::permissions(&["tools:*"])];
    let delegate = house.issuing.sign(params);
    house.record("delegate", &delegate, |outline| {
        outline.kind = EnrolmentKind::Authority
    });
    let leaf = |name: &str, by: &pki::Certified| {
        let mut params = pki::client(name);
        params.custom_extensions = vec![pki::permissions(&["tools:*"])];
        let leaf = by.sign(params);
        house.record(name, &leaf, |_| {});
        leaf
    };
    let below = house.client(&leaf("agent", &delegate));
    assert_eq!(below.knock(open.address).await, Answer::Served);
    open.came_and_went().await;
    let without_crl = house.root.sign(pki::ca("no crl", 1));
    let uncovered = house.client(&leaf("other", &without_crl));
    assert_eq!(
        uncovered.knock(open.address).await,
        Answer::Alert(Alert::AccessDenied)
    );
    let refusal = open.refused().await;
    assert!(refusal.reason.contains("none covers"), "{refusal}");
}

#[tokio::test]
async fn a_reload_of_anchors_ends_who_is_no_longer_led_to() {
    let mut house = House::new();
    let second = pki::root("second root");
    let path = bundle(house.folder.path(), "second.pem", &[&second]);
    house.anchors.push(anchor("second", path));
    let mut open = house.open().await;
    let mut params = pki::client("guest");
    params.custom_extensions = vec![pki::permissions(&["tools:*"])];
    let guest = second.sign(params);
    house.record("guest", &guest, |_| {});
    let client = house.client(&guest);
    let mut live = client.connect(open.address).await.unwrap();
    let mut beside = house
        .client(&house.enrol("reader"))
        .connect(open.address)
        .await
        .unwrap();
    open.admitted().await;
    open.admitted().await;
    house.anchors.pop();
    assert_eq!(open.reload(&house.anchors, unix(at(0))), 1);
    live.ended().await;
    assert_eq!(open.ended().await, Some(Close::Revoked));
    assert_eq!(
        client.knock(open.address).await,
        Answer::Alert(Alert::UnknownCA)
    );
    beside.echo().await.unwrap();
}

#[tokio::test]
async fn a_reload_makes_old_tickets_lead_to_full_handshakes() {
    let house = House::new();
    let mut open = house.open().await;
    let client = house.client(&house.enrol("reader"));
    for resumed in [false, true] {
        assert_eq!(client.knock(open.address).await, Answer::Served);
        assert_eq!(open.admitted().await.agreed().resumed, resumed);
        open.ended().await;
    }
    open.reload(&house.anchors, unix(at(0)));
    for resumed in [false, true] {
        assert_eq!(client.knock(open.address).await, Answer::Served);
        assert_eq!(open.admitted().await.agreed().resumed, resumed);
        open.ended().await;
    }
}

#[tokio::test]
async fn a_registry_that_is_not_heard_of_for_too_long_admits_nobody() {
    let house = House::new();
    let mut open = house.open().await;
    let client = house.client(&house.enrol("reader"));
    assert_eq!(client.knock(open.address).await, Answer::Served);
    open.came_and_went().await;
    // The view of this test has no feed: it was never heard of since it was made.
    let old = async {
        while house.view.staleness().is_zero() {
            tokio::task::yield_now().await
        }
    };
    tokio::time::timeout(pki::PATIENCE, old).await.unwrap();
    open.trust.limit_staleness(std::time::Duration::ZERO);
    assert_eq!(
        client.knock(open.address).await,
        Answer::Alert(Alert::AccessDenied)
    );
    let refusal = open.refused().await;
    assert!(refusal.reason.contains("registry"), "{refusal}");
}
