//! Revocation on a whole server: exactly the connections below what was revoked end, and nobody
//! else's; and what the CA's own CRL names is refused by a server that has lost the registry.

use countersign::clock;
use countersign::identity::Name;
use countersign::registry::{Enrolment, EnrolmentKind, SqliteStore};
use serde_json::json;

use crate::support::http::Web;
use crate::support::pki::{self, Certified, HOUR};
use crate::support::served::{Lines, Served, Site};
use crate::support::ws::Ws;

const OTHER: &str = "[[anchor]]\nname = \"other\"\nbundle = \"other.pem\"\n";
/// Enough that a scan of all, or a close of all, would show; few enough for every test run.
const CROWD: usize = 200;

fn agent(name: &str) -> rcgen::CertificateParams {
    let mut params = pki::client(name);
    params.custom_extensions = vec![pki::permissions(&["tools:*"])];
    params
}

async fn record_ca(site: &Site, ca: &Certified, pinned: bool) {
    let parsed =
        countersign::cert::Parsed::from_der(&ca.der, countersign::cert::DEFAULT_PERMISSION_OID);
    let enrolment = Enrolment {
        fingerprint: ca.fingerprint(),
        kind: EnrolmentKind::Authority,
        name: Name::new("a CA").unwrap(),
        serial: parsed.unwrap().serial,
        issuer: None,
        profile: "issuing".into(),
        grants: None,
        not_before: clock::unix_now(),
        not_after: ca.not_after(),
        pinned,
        revocation: None,
        created_at: clock::unix_now(),
        created_by: "test".into(),
        der: ca.der.to_vec(),
    };
    site.store.enrol(&enrolment).await.unwrap();
}

async fn works(lines: &mut Lines) {
    let answer = lines.ask("tools/list", json!({})).await;
    assert!(answer["result"]["tools"].is_array(), "{answer}");
}

async fn crowd(
    site: &Site,
    served: &Served,
    prefix: &str,
    by: &Certified,
) -> Vec<(Certified, Lines)> {
    let mut crowd = Vec::with_capacity(CROWD);
    for number in 0..CROWD {
        let name = format!("{prefix}{number}");
        let client = by.sign(agent(&name));
        site.record(&name, &client, None).await;
        let lines = site.reach(served, &client).await;
        crowd.push((client, lines));
    }
    crowd
}

#[tokio::test]
async fn one_of_many_is_revoked_and_the_others_go_on() {
    let site = Site::new().await;
    let served = site.serve().await;
    let mut crowd = crowd(&site, &served, "c", &site.issuing).await;
    let mut second = site.reach(&served, &crowd[7].0).await;
    works(&mut second).await;
    let confirmation = site.revoke(&crowd[7].0).await;
    assert!(confirmation.is_complete() && confirmation.live.len() == 1);
    let (client, mut first) = crowd.remove(7);
    first.ended().await;
    second.ended().await;
    for (_, lines) in &mut crowd {
        works(lines).await;
    }
    // Whose, by whom, when and why.
    let print = client.fingerprint().to_string();
    let recorded = async {
        loop {
            let all = site.audit();
            let found = all.into_iter().find(|record| {
                record["event"] == "registry_changed"
                    && record["kind"] == "revoked"
                    && record["fingerprint"] == print.as_str()
            });
            match found {
                Some(record) => return record,
                None => tokio::task::yield_now().await,
            }
        }
    };
    let record = tokio::time::timeout(pki::PATIENCE, recorded).await.unwrap();
    assert_eq!(record["identity"], pki::spiffe("c7"), "{record}");
    assert_eq!(
        (record["by"].as_str(), record["reason"].as_str()),
        (Some("test"), Some("keyCompromise")),
        "{record}"
    );
    assert!(record["revoked_at"].is_string(), "{record}");
    assert!(
        site.try_connect(&served, &client).await.is_err() || {
            // In TLS 1.3 the client may think itself connected before it reads the refusal.
            let mut late = site.try_connect(&served, &client).await.unwrap();
            late.line().await.is_none()
        }
    );
    served.stop().await;
}

#[tokio::test]
async fn an_issuer_is_revoked_and_exactly_its_own_end() {
    let site = Site::with(OTHER).await;
    let other_root = pki::root("other root");
    std::fs::write(
        site.path().join("other.pem"),
        pki::pem(std::slice::from_ref(&other_root.der)),
    )
    .unwrap();
    let served = site.serve().await;
    record_ca(&site, &site.issuing, false).await;
    let mut ours = crowd(&site, &served, "ours", &site.issuing).await;
    let other = other_root.sign(pki::ca("other issuing", 1));
    let bystander = other.sign(agent("bystander"));
    site.record("bystander", &bystander, None).await;
    let mut beside = site.reach(&served, &bystander).await;
    let mut params = pki::ca("delegate", 0);
    params.custom_extensions = vec![pki::permissions(&["tools:*"])];
    let delegate = site.issuing.sign(params);
    record_ca(&site, &delegate, true).await;
    // Nobody recorded this one: the delegate's pin covers it.
    let worker = delegate.sign(agent("worker"));
    let mut below = site.reach(&served, &worker).await;
    for lines in [&mut beside, &mut below] {
        works(lines).await;
    }
    let before = site.audit().len();
    assert!(site.revoke(&delegate).await.is_complete());
    below.ended().await;
    works(&mut ours[0].1).await;
    assert!(site.revoke(&site.issuing).await.is_complete());
    for (_, lines) in &mut ours {
        assert!(lines.said_goodbye().await, "cut off instead of closed");
    }
    works(&mut beside).await;
    served.stop().await;
    let log = site.audit();
    let closed = |reason: &str| {
        let of =
            |record: &&serde_json::Value| record["event"] == "closed" && record["reason"] == reason;
        log.iter().filter(of).count()
    };
    assert_eq!(
        closed("revoked"),
        CROWD + 1,
        "each is recorded, and no other"
    );
    let revoked = log[before..]
        .iter()
        .filter(|record| record.to_string().contains("\"revoked\""));
    assert!(revoked.count() >= 2, "the log says what was revoked");
}

/// One connection of each kind.
enum Way {
    Raw(Lines),
    WebSocket(Ws),
    Http(Web),
}

impl Way {
    const KINDS: usize = 4;

    /// `kind` goes round. Over the raw stream first: the server may not have heard of it.
    async fn open(site: &Site, served: &Served, who: &Certified, kind: usize) -> Self {
        let raw = site.reach(served, who).await;
        match kind % Self::KINDS {
            0 => Self::Raw(raw),
            1 => Self::WebSocket(Ws::open(site, served, who).await),
            2 => Self::Http(Web::http1(site, served, who).await),
            _ => Self::Http(Web::http2(site, served, who).await),
        }
    }

    async fn works(&mut self) {
        let answer = match self {
            Self::Raw(lines) => lines.ask("tools/list", json!({})).await,
            Self::WebSocket(socket) => socket.ask("tools/list", json!({})).await,
            Self::Http(web) => web.ask("tools/list", json!({})).await,
        };
        assert!(answer["result"]["tools"].is_array(), "{answer}");
    }

    async fn ended(&mut self) {
        match self {
            Self::Raw(lines) => lines.ended().await,
            Self::WebSocket(socket) => assert_eq!(socket.closed().await, 1008, "a policy's end"),
            Self::Http(web) => web.closed().await,
        }
    }
}

/// Whatever they speak: those below what is revoked end, and nobody else.
#[tokio::test]
async fn every_kind_of_connection_ends_with_its_issuer_and_no_other() {
    let site = Site::with(OTHER).await;
    let other_root = pki::root("other root");
    let bundle = pki::pem(std::slice::from_ref(&other_root.der));
    std::fs::write(site.path().join("other.pem"), bundle).unwrap();
    let served = site.serve().await;
    let other = other_root.sign(pki::ca("other issuing", 1));
    record_ca(&site, &site.issuing, false).await;
    let mut delegate = pki::ca("delegate", 0);
    delegate.custom_extensions = vec![pki::permissions(&["tools:*"])];
    let delegate = site.issuing.sign(delegate);
    record_ca(&site, &delegate, true).await;
    let (mut below, mut ours, mut beside) = (Vec::new(), Vec::new(), Vec::new());
    for kind in 0..40 {
        let worker = delegate.sign(agent(&format!("worker{kind}")));
        below.push(Way::open(&site, &served, &worker, kind).await);
        for (by, name, of) in [
            (&site.issuing, "ours", &mut ours),
            (&other, "beside", &mut beside),
        ] {
            let name = format!("{name}{kind}");
            let client = by.sign(agent(&name));
            site.record(&name, &client, None).await;
            of.push((Way::open(&site, &served, &client, kind).await, client));
        }
    }
    for way in &mut below {
        way.works().await;
    }
    // One certificate, with a connection of each kind.
    let (mut first, client) = ours.swap_remove(0);
    let mut more = Vec::new();
    for kind in 0..Way::KINDS {
        more.push(Way::open(&site, &served, &client, kind).await);
    }
    assert!(site.revoke(&client).await.is_complete());
    first.ended().await;
    for way in &mut more {
        way.ended().await;
    }
    for (way, _) in ours.iter_mut().chain(&mut beside) {
        way.works().await;
    }
    for way in &mut below {
        way.works().await;
    }
    // A delegate with everything below it.
    assert!(site.revoke(&delegate).await.is_complete());
    for way in &mut below {
        way.ended().await;
    }
    for (way, _) in ours.iter_mut().chain(&mut beside) {
        way.works().await;
    }
    // The issuing CA.
    assert!(site.revoke(&site.issuing).await.is_complete());
    for (way, _) in &mut ours {
        way.ended().await;
    }
    for (way, _) in &mut beside {
        way.works().await;
    }
    served.stop().await;
    let log = site.audit();
    let closed = |reason: &str| {
        let fits =
            |record: &&serde_json::Value| record["event"] == "closed" && record["reason"] == reason;
        log.iter().filter(fits).count()
    };
    assert_eq!(closed("revoked"), 40 + 39 + 1 + Way::KINDS);
}

/// The CRLs of these CAs with their certificates, as `bundle.pem` of a CA's folder has them.
fn bundle(site: &Site, revoked: &[&Certified]) {
    let text =
        pki::pem(std::slice::from_ref(&site.issuing.der)) + &site.issuing.crl(revoked, -HOUR, HOUR);
    std::fs::write(site.path().join("bundle.pem"), text).unwrap();
}

#[tokio::test]
async fn losing_the_registry_does_not_un_revoke() {
    let mut site = Site::new().await;
    site.registry = "crl_file = \"bundle.pem\"".to_owned();
    let (lost, kept) = (
        site.enrol("lost", &["tools:*"]).await,
        site.enrol("kept", &["tools:*"]).await,
    );
    bundle(&site, &[]);
    let served = site.serve().await;
    works(&mut site.reach(&served, &lost).await).await;
    served.stop().await;

    // The registry knows nothing of a revocation; the CRL does.
    bundle(&site, &[&lost]);
    let served = site.serve().await;
    let refused = match site.try_connect(&served, &lost).await {
        Err(_) => true,
        Ok(mut lines) => lines.line().await.is_none(),
    };
    assert!(refused);
    let mut lines = site.reach(&served, &kept).await;
    works(&mut lines).await;
    // A new CRL ends a live connection, without a restart.
    bundle(&site, &[&lost, &kept]);
    lines.ended().await;
    served.stop().await;
    let log = site.audit();
    let told = log
        .iter()
        .any(|record| record.to_string().contains("own CRL"));
    assert!(told, "the log says why");

    // A CRL that nobody in the file signed is a refusal to start.
    let stranger = pki::root("stranger");
    let text = pki::pem(std::slice::from_ref(&stranger.der)) + &site.issuing.crl(&[], -HOUR, HOUR);
    std::fs::write(site.path().join("bundle.pem"), text).unwrap();
    let found = countersign::tls::own_revocations(&site.path().join("bundle.pem"));
    assert!(found.unwrap_err().contains("no certificate in it signed"));
    drop(
        SqliteStore::open(&site.path().join("registry.db"), false)
            .await
            .unwrap(),
    );
}
