//! Who is let in. Each refusal shows its accepted twin first, then what the client hears and what
//! the audit log gets.

use countersign::registry::EnrolmentKind;
use countersign::tls::{Class, NameFrom, Refusal};
use rcgen::{CustomExtension, ExtendedKeyUsagePurpose, SanType};
use rustls::AlertDescription as Alert;

use crate::support::client::{Answer, Client};
use crate::support::echo::{House, Open, anchor, bundle, grants};
use crate::support::pki::{self, Certified, HOUR, at};

/// Let in, and gone again.
async fn let_in(open: &mut Open, client: &Client) {
    assert_eq!(client.knock(open.address).await, Answer::Served);
    open.admitted().await;
    assert_eq!(open.ended().await, None);
}

/// Refused with this alert and class; the reason is the caller's to look at.
async fn kept_out(open: &mut Open, client: &Client, alert: Alert, class: Class) -> Refusal {
    assert_eq!(client.knock(open.address).await, Answer::Alert(alert));
    let refusal = open.refused().await;
    assert_eq!(refusal.class, class, "{refusal}");
    refusal
}

fn says(refusal: &Refusal, part: &str) {
    assert!(
        refusal.reason.contains(part),
        "`{}` does not say `{part}`",
        refusal.reason
    );
}

#[tokio::test]
async fn no_certificate() {
    let house = House::new();
    let mut open = house.open().await;
    let_in(&mut open, &house.client(&house.enrol("reader"))).await;
    let nobody = Client::anonymous(&house.server_root);
    let refusal = kept_out(
        &mut open,
        &nobody,
        Alert::CertificateRequired,
        Class::NoCertificate,
    )
    .await;
    assert_eq!((refusal.name, refusal.fingerprint), (None, None));
}

#[tokio::test]
async fn another_root() {
    let house = House::new();
    let mut open = house.open().await;
    let_in(&mut open, &house.client(&house.enrol("reader"))).await;
    let stranger = pki::root("elsewhere").sign(pki::client("reader"));
    house.record("reader", &stranger, |_| {});
    let client = house.client(&stranger);
    let refusal = kept_out(&mut open, &client, Alert::UnknownCA, Class::UnknownCa).await;
    says(&refusal, "no anchor leads to the issuer `CN=elsewhere`");
    assert_eq!(
        refusal.name, None,
        "a name that no chain vouches for is not told"
    );
    assert_eq!(refusal.fingerprint, Some(stranger.fingerprint()));
}

#[tokio::test]
async fn another_root_of_the_same_name() {
    let house = House::new();
    let mut open = house.open().await;
    let own = house.root.sign(pki::client("reader"));
    house.record("reader", &own, |outline| {
        outline.grants = grants(&["tools:*"])
    });
    let_in(&mut open, &house.client(&own)).await;
    let impostor = pki::root("root").sign(pki::client("reader"));
    house.record("reader", &impostor, |outline| {
        outline.grants = grants(&["tools:*"])
    });
    let client = house.client(&impostor);
    let refusal = kept_out(&mut open, &client, Alert::UnknownCA, Class::UnknownCa).await;
    says(&refusal, "another key signed");
}

#[tokio::test]
async fn of_two_trusted_roots_of_one_name_the_right_one_is_found() {
    let mut house = House::new();
    let second = pki::root("root");
    let path = bundle(house.folder.path(), "second.pem", &[&second]);
    house.anchors.push(anchor("second", path));
    let mut open = house.open().await;
    let_in(&mut open, &house.client(&house.enrol("reader"))).await;
    let under_second = second.sign(pki::client("writer"));
    house.record("writer", &under_second, |outline| {
        outline.grants = grants(&["tools:*"])
    });
    assert_eq!(
        house.client(&under_second).knock(open.address).await,
        Answer::Served
    );
    assert_eq!(&*open.admitted().await.chain().anchor, "second");
}

#[tokio::test]
async fn expired() {
    let house = House::new();
    let mut open = house.open().await;
    let_in(&mut open, &house.client(&house.enrol("reader"))).await;
    let old = house.enrol_as("reader", |params| params.not_after = at(-60));
    let client = house.client(&old);
    let refusal = kept_out(
        &mut open,
        &client,
        Alert::CertificateExpired,
        Class::Expired,
    )
    .await;
    says(
        &refusal,
        &format!("the certificate ended at {}", old.not_after()),
    );
}

#[tokio::test]
async fn an_issuer_that_expired() {
    let house = House::new();
    let mut open = house.open().await;
    let_in(&mut open, &house.client(&house.enrol("reader"))).await;
    let mut params = pki::ca("old issuing", 1);
    params.not_after = at(-60);
    let under = house.root.sign(params).sign(pki::client("reader"));
    let client = house.client(&under);
    let refusal = kept_out(
        &mut open,
        &client,
        Alert::CertificateExpired,
        Class::Expired,
    )
    .await;
    says(&refusal, "an issuer's certificate ended at");
}

#[tokio::test]
async fn an_anchor_that_expired() {
    let mut params = pki::ca("root", 2);
    params.not_after = at(-60);
    let house = House::under(pki::root_of(params));
    let mut open = house.open().await;
    let client = house.client(&house.enrol("reader"));
    kept_out(
        &mut open,
        &client,
        Alert::CertificateExpired,
        Class::Expired,
    )
    .await;
}

#[tokio::test]
async fn not_yet_valid() {
    let house = House::new();
    let mut open = house.open().await;
    let_in(&mut open, &house.client(&house.enrol("reader"))).await;
    let early = house.enrol_as("reader", |params| params.not_before = at(HOUR));
    let client = house.client(&early);
    let refusal = kept_out(
        &mut open,
        &client,
        Alert::CertificateExpired,
        Class::NotYetValid,
    )
    .await;
    says(&refusal, "the certificate begins at");
}

#[tokio::test]
async fn wrong_usage() {
    let house = House::new();
    let mut open = house.open().await;
    let_in(&mut open, &house.client(&house.enrol("reader"))).await;
    let server_only = house.enrol_as("reader", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    let client = house.client(&server_only);
    let refusal = kept_out(
        &mut open,
        &client,
        Alert::BadCertificate,
        Class::BadCertificate,
    )
    .await;
    says(&refusal, "not for client authentication");
}

#[tokio::test]
async fn not_pinned() {
    let house = House::new();
    let mut open = house.open().await;
    let_in(&mut open, &house.client(&house.enrol("reader"))).await;
    let unknown = house.issue("reader");
    let client = house.client(&unknown);
    let refusal = kept_out(&mut open, &client, Alert::AccessDenied, Class::AccessDenied).await;
    says(&refusal, "not pinned");
    assert_eq!(refusal.name, Some(pki::spiffe("reader")));
    let unpinned = house.issue("reader");
    house.record("reader", &unpinned, |outline| outline.pinned = false);
    let client = house.client(&unpinned);
    let refusal = kept_out(&mut open, &client, Alert::AccessDenied, Class::AccessDenied).await;
    says(&refusal, "no longer pinned");
}

#[tokio::test]
async fn a_pin_under_another_name() {
    let house = House::new();
    let mut open = house.open().await;
    let_in(&mut open, &house.client(&house.enrol("reader"))).await;
    let other = house.issue("reader");
    house.record("operator", &other, |_| {});
    let client = house.client(&other);
    let refusal = kept_out(&mut open, &client, Alert::AccessDenied, Class::AccessDenied).await;
    says(&refusal, "pinned under another name");
}

#[tokio::test]
async fn a_pin_that_ended() {
    let house = House::new();
    let mut open = house.open().await;
    let_in(&mut open, &house.client(&house.enrol("reader"))).await;
    let late = house.issue("reader");
    house.record("reader", &late, |outline| {
        outline.not_after = pki::unix(at(-60))
    });
    let client = house.client(&late);
    let refusal = kept_out(
        &mut open,
        &client,
        Alert::CertificateExpired,
        Class::Expired,
    )
    .await;
    says(&refusal, "the pin ended at");
}

#[tokio::test]
async fn two_identities() {
    let house = House::new();
    let mut open = house.open().await;
    let_in(&mut open, &house.client(&house.enrol("reader"))).await;
    let both = house.enrol_as("reader", |params| {
        let other = SanType::URI(pki::spiffe("operator").try_into().unwrap());
        params.subject_alt_names.push(other);
    });
    let client = house.client(&both);
    let refusal = kept_out(
        &mut open,
        &client,
        Alert::BadCertificate,
        Class::BadCertificate,
    )
    .await;
    says(&refusal, "2 URI names");
    let none = house.enrol_as("reader", |params| params.subject_alt_names.clear());
    let client = house.client(&none);
    let refusal = kept_out(
        &mut open,
        &client,
        Alert::BadCertificate,
        Class::BadCertificate,
    )
    .await;
    says(&refusal, "0 URI names");
}

#[tokio::test]
async fn a_name_that_is_no_spiffe_id() {
    let house = House::new();
    let mut open = house.open().await;
    let_in(&mut open, &house.client(&house.enrol("reader"))).await;
    for uri in [
        "https://example.org/reader",
        "spiffe://Example.org/a",
        "spiffe://example.org/a//b",
    ] {
        let odd = house.enrol_as("reader", |params| {
            params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        });
        let client = house.client(&odd);
        let refusal = kept_out(
            &mut open,
            &client,
            Alert::BadCertificate,
            Class::BadCertificate,
        )
        .await;
        says(&refusal, uri);
    }
}

#[tokio::test]
async fn names_from_elsewhere() {
    for (from, name) in [
        (NameFrom::Dns, "reader.example.org"),
        (NameFrom::Cn, "reader"),
    ] {
        let mut house = House::new();
        house.anchors[0].identity_from = from;
        let mut open = house.open().await;
        let named = house.issue_as("reader", |params| {
            params.subject_alt_names =
                vec![SanType::DnsName("reader.example.org".try_into().unwrap())];
        });
        house.record("x", &named, |outline| {
            outline.name = countersign::identity::Name::new(name).unwrap();
        });
        assert_eq!(
            house.client(&named).knock(open.address).await,
            Answer::Served
        );
        assert_eq!(open.admitted().await.name().as_str(), name);
    }
}

#[tokio::test]
async fn a_malformed_extension() {
    let house = House::new();
    let mut open = house.open().await;
    let_in(&mut open, &house.client(&house.enrol("reader"))).await;
    let good = pki::permissions(&["tools:*"]).content().to_vec();
    let trailing = [good.as_slice(), &[0]].concat();
    for content in [trailing, good[..good.len() - 1].to_vec(), Vec::new()] {
        let broken = house.enrol_as("reader", |params| {
            let extension = CustomExtension::from_oid_content(pki::PERMISSIONS, content);
            params.custom_extensions = vec![extension];
        });
        let client = house.client(&broken);
        let refusal = kept_out(
            &mut open,
            &client,
            Alert::BadCertificate,
            Class::BadCertificate,
        )
        .await;
        says(&refusal, "permission extension");
    }
}

#[tokio::test]
async fn a_duplicate_extension() {
    let house = House::new();
    let mut open = house.open().await;
    let_in(&mut open, &house.client(&house.enrol("reader"))).await;
    let twice = house.enrol_as("reader", |params| {
        params
            .custom_extensions
            .push(pki::permissions(&["tools:*", "admin:*"]));
    });
    let client = house.client(&twice);
    let refusal = kept_out(
        &mut open,
        &client,
        Alert::BadCertificate,
        Class::BadCertificate,
    )
    .await;
    says(&refusal, "twice");
}

#[tokio::test]
async fn a_critical_permission_extension() {
    let house = House::new();
    let mut open = house.open().await;
    let_in(&mut open, &house.client(&house.enrol("reader"))).await;
    let critical = house.enrol_as("reader", |params| {
        params.custom_extensions[0].set_criticality(true)
    });
    let client = house.client(&critical);
    kept_out(
        &mut open,
        &client,
        Alert::BadCertificate,
        Class::BadCertificate,
    )
    .await;
}

/// A client below an issuing CA with this ceiling, pinned.
fn under_ceiling(house: &House, ceiling: &[&str], grants: &[&str]) -> Certified {
    let mut params = pki::ca("narrow", 1);
    params.custom_extensions = vec![pki::permissions(ceiling)];
    let mut leaf = pki::client("reader");
    leaf.custom_extensions = vec![pki::permissions(grants)];
    let leaf = house.root.sign(params).sign(leaf);
    house.record("reader", &leaf, |_| {});
    leaf
}

#[tokio::test]
async fn a_ceiling_that_excludes_everything() {
    let house = House::new();
    let mut open = house.open().await;
    let some = under_ceiling(
        &house,
        &["tools:read_*"],
        &["tools:read_file", "tools:write_file"],
    );
    let_in(&mut open, &house.client(&some)).await;
    for ceiling in [&["tools:write_*"][..], &["prompts:*"], &[]] {
        let none = under_ceiling(&house, ceiling, &["tools:read_file"]);
        let client = house.client(&none);
        kept_out(&mut open, &client, Alert::AccessDenied, Class::AccessDenied).await;
    }
}

#[tokio::test]
async fn an_anchors_ceiling_that_excludes_everything() {
    let mut house = House::new();
    house.anchors[0].ceiling = Some(vec![String::from("tools:read_*")]);
    let mut open = house.open().await;
    let_in(&mut open, &house.client(&house.enrol("reader"))).await;
    let none = house.enrol_as("reader", |params| {
        params.custom_extensions = vec![pki::permissions(&["tools:write_file"])];
    });
    let client = house.client(&none);
    let refusal = kept_out(&mut open, &client, Alert::AccessDenied, Class::AccessDenied).await;
    says(&refusal, "anchor `ours`");
}

#[tokio::test]
async fn every_layer_of_the_path_is_there_the_leafs_first() {
    let mut params = pki::ca("root", 2);
    params.custom_extensions = vec![pki::permissions(&["*"])];
    let mut house = House::under(pki::root_of(params));
    house.anchors[0].ceiling = Some(vec![String::from("tools:*")]);
    let mut open = house.open().await;
    let leaf = under_ceiling(&house, &["tools:r*"], &["tools:read"]);
    assert_eq!(
        house.client(&leaf).knock(open.address).await,
        Answer::Served
    );
    let peer = open.admitted().await;
    let chain = peer.chain();
    let sources: Vec<String> = chain
        .layers
        .iter()
        .map(|layer| layer.source.to_string())
        .collect();
    let expected = [
        "certificate `spiffe://example.org/reader`",
        "certificate `narrow`",
        "certificate `root`",
        "anchor `ours`",
    ];
    assert_eq!(sources, expected);
    assert_eq!(chain.issuers.last(), Some(&house.root.fingerprint()));
    assert_eq!(chain.not_after, leaf.not_after());
}

#[tokio::test]
async fn a_bundle_with_issuing_ca_does_not_hide_the_roots_ceiling() {
    let mut params = pki::ca("root", 2);
    params.custom_extensions = vec![pki::permissions(&["tools:read"])];
    let mut house = House::under(pki::root_of(params));
    house.anchors[0].bundle = bundle(
        house.folder.path(),
        "both.pem",
        &[&house.issuing, &house.root],
    );
    let mut open = house.open().await;
    let leaf = house.enrol("reader");
    let alone = Client::showing(&leaf, std::slice::from_ref(&leaf.der), &house.server_root);
    assert_eq!(
        alone.knock(open.address).await,
        Answer::Served,
        "without its issuing CA"
    );
    let peer = open.admitted().await;
    assert_eq!(
        peer.chain().issuers,
        [house.issuing.fingerprint(), house.root.fingerprint()]
    );
    assert_eq!(peer.chain().layers.len(), 2);
}

#[tokio::test]
async fn neither_certificate_nor_pin_grants_anything() {
    let house = House::new();
    let mut open = house.open().await;
    let plain = house.issue_as("reader", |params| params.custom_extensions.clear());
    house.record("reader", &plain, |outline| {
        outline.grants = grants(&["tools:*"])
    });
    let_in(&mut open, &house.client(&plain)).await;
    house.record("reader", &plain, |_| {});
    let client = house.client(&plain);
    let refusal = kept_out(&mut open, &client, Alert::AccessDenied, Class::AccessDenied).await;
    says(
        &refusal,
        "neither the certificate nor its pin grants anything",
    );
}

#[tokio::test]
async fn mode_issued_wants_the_extension_and_no_pin() {
    let mut house = House::new();
    house.anchors[0].mode = Some(String::from("issued"));
    let mut open = house.open().await;
    let_in(&mut open, &house.client(&house.issue("reader"))).await;
    let plain = house.enrol_as("reader", |params| params.custom_extensions.clear());
    let client = house.client(&plain);
    let refusal = kept_out(&mut open, &client, Alert::AccessDenied, Class::AccessDenied).await;
    says(&refusal, "carries no grants");
}

#[tokio::test]
async fn a_pinned_delegate_covers_what_it_signed() {
    let house = House::new();
    let mut open = house.open().await;
    let mut params = pki::ca("delegate", 0);
    params.custom_extensions = vec![pki::permissions(&["tools:*"])];
    let delegate = house.issuing.sign(params);
    let mut leaf = pki::client("agent");
    leaf.custom_extensions = vec![pki::permissions(&["tools:read"])];
    let leaf = delegate.sign(leaf);
    let client = house.client(&leaf);
    let refusal = kept_out(&mut open, &client, Alert::AccessDenied, Class::AccessDenied).await;
    says(&refusal, "not pinned");
    house.record("delegate", &delegate, |outline| {
        outline.kind = EnrolmentKind::Authority
    });
    let_in(&mut open, &client).await;
    // A pinned leaf that signs is no delegate, whatever the registry says of it.
    let below = house
        .issuing
        .sign(pki::ca("delegate", 0))
        .sign(pki::ca("too deep", 0));
    let mut params = pki::client("agent");
    params.custom_extensions = vec![pki::permissions(&["tools:read"])];
    let too_deep = house.client(&below.sign(params));
    kept_out(
        &mut open,
        &too_deep,
        Alert::BadCertificate,
        Class::BadCertificate,
    )
    .await;
}

#[tokio::test]
async fn an_anchors_path_length_is_kept() {
    let house = House::under(pki::root_of(pki::ca("root", 0)));
    let mut open = house.open().await;
    let direct = house.root.sign(pki::client("reader"));
    house.record("reader", &direct, |outline| {
        outline.grants = grants(&["tools:*"])
    });
    let_in(&mut open, &house.client(&direct)).await;
    let client = house.client(&house.enrol("reader"));
    kept_out(
        &mut open,
        &client,
        Alert::BadCertificate,
        Class::BadCertificate,
    )
    .await;
}

#[tokio::test]
async fn the_signature_is_verified_also_where_the_chain_is_known() {
    let house = House::new();
    let mut open = house.open().await;
    let reader = house.enrol("reader");
    let_in(&mut open, &house.client(&reader)).await;
    let thief = house.enrol("thief");
    let client = Client::showing(&thief, &reader.chain(), &house.server_root);
    let refusal = kept_out(
        &mut open,
        &client,
        Alert::DecryptError,
        Class::BadCertificate,
    )
    .await;
    says(&refusal, "signature of the handshake");
}

#[tokio::test]
async fn certificates_that_have_no_part_in_the_path_change_nothing() {
    let house = House::new();
    let mut open = house.open().await;
    let reader = house.enrol("reader");
    let_in(&mut open, &house.client(&reader)).await;
    let operator = house.enrol("operator");
    let mut chain = reader.chain();
    chain.push(operator.der.clone());
    chain.push(house.root.der.clone());
    let client = Client::showing(&reader, &chain, &house.server_root);
    assert_eq!(client.knock(open.address).await, Answer::Served);
    assert_eq!(open.admitted().await.name().short(), "reader");
}
