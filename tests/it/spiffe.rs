//! Certificates as other SPIFFE implementations make them, judged as the SPIFFE-ID and X.509-SVID
//! specifications say (a server's verifier, name by name).

use rcgen::SanType;

use crate::support::echo::House;
use crate::support::pki::{self, at, unix};

/// URIs of a certificate; whether the specifications allow them; why.
const TABLE: &[(&[&str], bool, &str)] = &[
    (&["spiffe://example.org/reader"], true, "one segment"),
    (
        &["spiffe://example.org/ns/default/sa/web"],
        true,
        "as workload registrars name pods",
    ),
    (
        &["spiffe://example.org/Region/EU-1/a.b_c-d"],
        true,
        "a path keeps its case",
    ),
    (
        &["spiffe://example.org/..."],
        true,
        "three dots are a name, SPIFFE-ID 2.2",
    ),
    (
        &["spiffe://example.org/a..b"],
        true,
        "dots inside a segment",
    ),
    (
        &["spiffe://10.1.2.3/host"],
        true,
        "a trust domain of numbers",
    ),
    (
        &["spiffe://prod_eu.example-1.org/x"],
        true,
        "underscores and dashes",
    ),
    (
        &["spiffe://example.org/a", "spiffe://example.org/b"],
        false,
        "two URIs, X.509-SVID 2",
    ),
    (
        &["spiffe://example.org/a", "https://example.org/a"],
        false,
        "two URIs, whatever they are",
    ),
    (&[], false, "no URI"),
    (
        &["spiffe://example.org"],
        false,
        "a signer's ID, not a workload's",
    ),
    (
        &["spiffe://example.org/"],
        false,
        "a trailing slash, SPIFFE-ID 2.2",
    ),
    (&["spiffe://example.org/a/"], false, "a trailing slash"),
    (&["spiffe://example.org//a"], false, "an empty segment"),
    (&["spiffe://example.org/a//b"], false, "an empty segment"),
    (&["spiffe://example.org/./a"], false, "a relative segment"),
    (
        &["spiffe://example.org/a/../b"],
        false,
        "a relative segment",
    ),
    (
        &["spiffe://EXAMPLE.org/a"],
        false,
        "upper case in the trust domain, SPIFFE-ID 2.1",
    ),
    (
        &["SPIFFE://example.org/a"],
        false,
        "upper case in the scheme of a certificate",
    ),
    (&["spiffe:///a"], false, "no trust domain"),
    (&["spiffe://example.org:443/a"], false, "a port"),
    (&["spiffe://user@example.org/a"], false, "a user"),
    (&["spiffe://example.org/a?b"], false, "a query"),
    (&["spiffe://example.org/a#b"], false, "a fragment"),
    (&["spiffe://example.org/%61"], false, "percent encoding"),
    (&["spiffe://example.org/a b"], false, "a space"),
    (&["spiffe://ex ample.org/a"], false, "a space"),
    (&["http://example.org/a"], false, "another scheme"),
];

#[tokio::test]
async fn names_are_judged_as_the_specifications_say() {
    let house = House::new();
    let open = house.open().await;
    let judge = |uris: &[&str]| {
        let mut params = pki::client("reader");
        params.custom_extensions = vec![pki::permissions(&["tools:*"])];
        params.subject_alt_names = uris
            .iter()
            .map(|uri| SanType::URI((*uri).try_into().unwrap()))
            .collect();
        let leaf = house.issuing.sign(params);
        let chain: Vec<Vec<u8>> = leaf.chain().iter().map(|der| der.to_vec()).collect();
        open.trust.chain_of(&chain, unix(at(0)))
    };
    for (uris, allowed, why) in TABLE {
        let judged = judge(uris);
        assert_eq!(judged.is_ok(), *allowed, "{uris:?}: {why}: {judged:?}");
        if let Ok(chain) = judged {
            assert_eq!(chain.name.as_str(), uris[0], "the name is taken as it is");
        }
    }
    let longest = format!("spiffe://{}/a", "d".repeat(255));
    assert!(judge(&[&longest]).is_ok(), "255 bytes of trust domain");
    assert!(judge(&[&longest.replace("/d", "/dd")]).is_err(), "256");
    let path = |bytes: usize| format!("spiffe://example.org/{}", "p".repeat(bytes - 21));
    assert!(judge(&[&path(2049)]).is_err(), "2049 bytes");
}

/// X.509-SVID 4.1: what a leaf must not be able to do.
#[tokio::test]
async fn a_leaf_that_could_sign_is_no_svid_of_a_client() {
    let house = House::new();
    let open = house.open().await;
    let judge = |change: fn(&mut rcgen::CertificateParams)| {
        let mut params = pki::client("reader");
        params.custom_extensions = vec![pki::permissions(&["tools:*"])];
        change(&mut params);
        let leaf = house.issuing.sign(params);
        let chain: Vec<Vec<u8>> = leaf.chain().iter().map(|der| der.to_vec()).collect();
        open.trust.chain_of(&chain, unix(at(0))).map(drop)
    };
    judge(|_| {}).unwrap();
    // DNS names beside the one URI are fine: the name is the URI.
    judge(|params| {
        let dns = SanType::DnsName("reader.example.org".try_into().unwrap());
        params.subject_alt_names.push(dns);
    })
    .unwrap();
    let ca = judge(|params| {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    });
    assert!(ca.unwrap_err().reason.contains("CA certificate"));
}
