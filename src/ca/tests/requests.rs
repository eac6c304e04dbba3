//! `sign` and `renew`: only the key counts, and a renewal only narrows.

use std::fs;

use super::bench::{Ask, Bench, HOUR, NOW, openssl, openssl_verify, rules, secret};
use crate::ca::{
    CertificateRequest, CsrError, Form, Holding, KeyPart, Profiles, RenewError, Renewal, Request,
    SignError, Signer, SubjectKeyError, end_old, find_newest, issue, issue_renewal,
    prepare_output_in, write_in_form,
};
use crate::clock::UnixTime;
use crate::grant::WrittenGrants;
use crate::identity::SpiffeId;
use crate::registry::{Enrolment, Reason, Revocation, Store};

/// A request that OpenSSL made with these arguments, PEM.
fn request(bench: &Bench, name: &str, arguments: &[&str]) -> Vec<u8> {
    let (csr, key) = (
        bench.path(&format!("{name}.csr")),
        bench.path(&format!("{name}.key")),
    );
    let mut all = vec![
        "req",
        "-new",
        "-nodes",
        "-keyout",
        key.to_str().unwrap(),
        "-out",
    ];
    all.extend([csr.to_str().unwrap(), "-subj", "/CN=root/O=Everybody"]);
    all.extend(arguments);
    let (made, said) = openssl(&all);
    assert!(made, "{said}");
    fs::read(csr).unwrap()
}

const P256: [&str; 4] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];

async fn sign(bench: &Bench, csr: &CertificateRequest) -> crate::ca::Issued {
    let profiles = Profiles::embedded().unwrap();
    let request = Request {
        name: SpiffeId::new(super::bench::DOMAIN, "team/bob").unwrap(),
        subject_key: csr.subject_key(),
        grants: WrittenGrants::parse(&["tools:files__read_*"]).unwrap(),
        profile: profiles.get("agent").unwrap(),
        ttl: None,
        dns: Vec::new(),
        ips: Vec::new(),
    };
    let signed = bench.issuing().sign(&request, rules(), NOW).unwrap();
    issue(&bench.store, signed, "me@here", NOW).await.unwrap()
}

#[tokio::test]
async fn of_a_request_only_the_key_counts() {
    let bench = Bench::new().await;
    let greedy = [
        "-addext",
        "subjectAltName=URI:spiffe://countersign.internal/root,DNS:evil.example",
        "-addext",
        "basicConstraints=critical,CA:TRUE",
        "-addext",
        "keyUsage=keyCertSign",
        "-addext",
        "1.3.6.1.4.1.32473.8.1=DER:3003020101",
    ];
    for (kind, key) in [
        ("p256", &P256[..]),
        (
            "p384",
            &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"],
        ),
        ("ed25519", &["-newkey", "ed25519"]),
        ("rsa", &["-newkey", "rsa:2048"]),
        (
            "pss",
            &[
                "-newkey",
                "rsa:3072",
                "-sigopt",
                "rsa_padding_mode:pss",
                "-sigopt",
                "rsa_pss_saltlen:digest",
            ],
        ),
    ] {
        let pem = request(&bench, kind, &[key, &greedy].concat());
        let csr = CertificateRequest::parse(&pem).unwrap_or_else(|e| panic!("{kind}: {e}"));
        let der = openssl_der(&bench, kind);
        assert_eq!(
            CertificateRequest::parse(&der).unwrap(),
            csr,
            "{kind}: DER says the same"
        );
        let issued = sign(&bench, &csr).await;
        let parsed = &issued.parsed;
        assert_eq!(
            parsed.uris,
            ["spiffe://countersign.internal/team/bob"],
            "{kind}"
        );
        assert_eq!((parsed.is_ca, parsed.dns.len()), (false, 0), "{kind}");
        assert_eq!(parsed.common_names, ["bob"]);
        let grants = WrittenGrants::parse(&["tools:files__read_*"]).unwrap();
        assert_eq!(parsed.permissions, Some(grants));
        let file = bench.write(kind, &issued);
        let (accepted, said) = openssl_verify(&bench, &file, NOW, &["-purpose", "sslclient"]);
        assert!(accepted, "{kind}: {said}");
        let unheard = csr
            .unheard("spiffe://countersign.internal/team/bob")
            .unwrap();
        assert!(unheard.contains("evil.example"), "{unheard}");
    }
}

#[tokio::test]
async fn a_request_that_does_not_prove_its_key_is_refused() {
    let bench = Bench::new().await;
    let pem = request(&bench, "one", &P256);
    CertificateRequest::parse(&pem).unwrap();
    let mut der = openssl_der(&bench, "one");
    let at = der.windows(9).position(|w| w == b"Everybody").unwrap();
    der[at] = b'e';
    assert_eq!(CertificateRequest::parse(&der), Err(CsrError::Signature));
    der[at] = b'E';
    CertificateRequest::parse(&der).unwrap();
    let last = der.len() - 1;
    der[last] ^= 1;
    assert_eq!(CertificateRequest::parse(&der), Err(CsrError::Signature));
    der[last] ^= 1;
    der.push(0);
    assert!(matches!(
        CertificateRequest::parse(&der),
        Err(CsrError::Malformed(_))
    ));
    for nonsense in [
        &b""[..],
        b"0",
        b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n",
        &pem[..200],
    ] {
        assert!(matches!(
            CertificateRequest::parse(nonsense),
            Err(CsrError::Malformed(_))
        ));
    }
    for (name, arguments) in [
        ("rsa1024", &["-newkey", "rsa:1024"][..]),
        (
            "e3",
            &["-newkey", "rsa:2048", "-pkeyopt", "rsa_keygen_pubexp:3"],
        ),
        (
            "p521",
            &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-521"],
        ),
        (
            "k1",
            &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp256k1"],
        ),
        ("ed448", &["-newkey", "ed448"]),
    ] {
        let refused = CertificateRequest::parse(&request(&bench, name, arguments));
        assert!(
            matches!(refused, Err(CsrError::Key(_))),
            "{name}: {refused:?}"
        );
    }
    let sha1 = request(&bench, "sha1", &["-newkey", "rsa:2048", "-sha1"]);
    assert_eq!(CertificateRequest::parse(&sha1), Err(CsrError::Sha1));
}

fn openssl_der(bench: &Bench, name: &str) -> Vec<u8> {
    let (pem, der) = (
        bench.path(&format!("{name}.csr")),
        bench.path(&format!("{name}.der")),
    );
    let (pem, to) = (pem.to_str().unwrap(), der.to_str().unwrap());
    assert!(openssl(&["req", "-in", pem, "-outform", "DER", "-out", to]).0);
    fs::read(der).unwrap()
}

/// A caller that does not go through a request meets the same check.
#[tokio::test]
async fn a_weak_key_is_refused_by_the_signing_itself() {
    let bench = Bench::new().await;
    let key = bench.path("weak.key");
    let spki = bench.path("weak.spki");
    let (key, out) = (key.to_str().unwrap(), spki.to_str().unwrap());
    assert!(openssl(&["genrsa", "-out", key, "1024"]).0);
    assert!(openssl(&["rsa", "-in", key, "-pubout", "-outform", "DER", "-out", out]).0);
    let profiles = Profiles::embedded().unwrap();
    let request = Request {
        name: SpiffeId::new(super::bench::DOMAIN, "bob").unwrap(),
        subject_key: &fs::read(spki).unwrap(),
        grants: WrittenGrants::parse(&["tools:*"]).unwrap(),
        profile: profiles.get("agent").unwrap(),
        ttl: None,
        dns: Vec::new(),
        ips: Vec::new(),
    };
    let refused = bench.issuing().sign(&request, rules(), NOW).unwrap_err();
    assert!(
        matches!(refused, SignError::Key(SubjectKeyError::RsaBits(1024))),
        "{refused}"
    );
}

async fn renew(
    bench: &Bench,
    old: &Enrolment,
    grants: Option<&[&str]>,
    now: UnixTime,
) -> Result<crate::ca::Issued, RenewError> {
    let profiles = Profiles::embedded().unwrap();
    let profile = profiles.get(&old.profile).unwrap();
    let (signer, _) = Signer::generate(profile.key).unwrap();
    let renewal = Renewal {
        old,
        subject_key: &signer.public_key(),
        grants: grants.map(|grants| WrittenGrants::parse(grants).unwrap()),
        profile,
        ttl: None,
    };
    let signed = bench.issuing().renew(&renewal, rules(), now)?;
    issue_renewal(&bench.store, signed, old, "me@here", now).await
}

#[tokio::test]
async fn a_renewal_keeps_the_name_and_only_narrows() {
    let bench = Bench::new().await;
    let old = Ask::agent("team/bob", &["tools:files__*", "prompts:*"]);
    let old = old.issue(&bench).await.unwrap().enrolment;
    let later = UnixTime(NOW.0 + 16 * HOUR);
    let same = renew(&bench, &old, None, later).await.unwrap();
    assert_eq!(same.enrolment.name, old.name);
    assert_ne!(same.enrolment.fingerprint, old.fingerprint);
    assert_eq!(same.enrolment.not_after, UnixTime(later.0 + 24 * HOUR));
    assert!(
        same.enrolment.pinned && same.notes.is_empty(),
        "{:?}",
        same.notes
    );
    let fewer = renew(&bench, &old, Some(&["tools:files__read_*"]), later)
        .await
        .unwrap();
    assert_eq!(
        fewer.parsed.permissions,
        Some(WrittenGrants::parse(&["tools:files__read_*"]).unwrap())
    );
    for wider in ["tools:*", "resources:*", "*", "admin:*", "role:unknown"] {
        let refused = renew(&bench, &old, Some(&["prompts:a", wider]), later).await;
        assert!(matches!(refused, Err(RenewError::Wider { .. })), "{wider}");
    }
    let newest = find_newest(&bench.store, "bob", later).await.unwrap();
    assert_eq!(newest.fingerprint, fewer.enrolment.fingerprint);
}

#[tokio::test]
async fn what_was_taken_from_the_old_one_stays_taken() {
    let bench = Bench::new().await;
    let old = Ask::agent("bob", &["tools:*"])
        .issue(&bench)
        .await
        .unwrap()
        .enrolment;
    let narrow = WrittenGrants::parse(&["tools:files__*"]).unwrap();
    bench
        .store
        .set_grants(old.fingerprint, Some(&narrow))
        .await
        .unwrap();
    let fresh = async || bench.store.get(old.fingerprint).await.unwrap().unwrap();
    let renewed = renew(&bench, &fresh().await, None, NOW).await.unwrap();
    assert_eq!(renewed.enrolment.grants, Some(narrow), "the pin's own set");

    let stale = fresh().await;
    bench
        .store
        .set_pinned(old.fingerprint, false)
        .await
        .unwrap();
    let refused = renew(&bench, &fresh().await, None, NOW).await;
    assert!(matches!(refused, Err(RenewError::Unpinned(_))));
    let meanwhile = renew(&bench, &stale, None, NOW).await;
    assert!(
        matches!(meanwhile, Err(RenewError::Meanwhile(_))),
        "it was pinned when it was read"
    );
    bench.store.set_pinned(old.fingerprint, true).await.unwrap();
    renew(&bench, &fresh().await, None, NOW).await.unwrap();
    let why = Revocation {
        at: NOW,
        reason: Reason::KeyCompromise,
        by: "me".to_owned(),
    };
    bench.store.revoke(old.fingerprint, &why).await.unwrap();
    assert!(matches!(
        renew(&bench, &stale, None, NOW).await,
        Err(RenewError::Meanwhile(_))
    ));
    assert!(matches!(
        renew(&bench, &fresh().await, None, NOW).await,
        Err(RenewError::Revoked(_))
    ));
    let live = bench.store.named("bob", NOW).await.unwrap();
    assert_eq!(live.len(), 2, "the two that were renewed while it stood");
}

#[tokio::test]
async fn a_server_s_names_are_kept_and_a_ca_is_not_renewed() {
    let bench = Bench::new().await;
    let old = Ask::server(&["gw.example", "*.gw.example"], &["10.0.0.1", "fd00::1"]);
    let old = old.issue(&bench).await.unwrap().enrolment;
    let renewed = renew(&bench, &old, None, NOW).await.unwrap();
    let file = bench.write("server", &renewed);
    for host in [
        ["-verify_hostname", "a.gw.example"],
        ["-verify_ip", "fd00::1"],
    ] {
        let (accepted, said) = openssl_verify(&bench, &file, NOW, &host);
        assert!(accepted, "{said}");
    }
    let ca = bench
        .store
        .get(bench.issuing().fingerprint())
        .await
        .unwrap()
        .unwrap();
    let ca = Enrolment {
        profile: "agent".to_owned(),
        ..ca
    };
    assert!(matches!(
        renew(&bench, &ca, None, NOW).await,
        Err(RenewError::Kind { .. })
    ));
}

#[tokio::test]
async fn the_old_one_can_be_given_an_end() {
    let bench = Bench::new().await;
    let old = Ask::agent("bob", &["tools:*"])
        .issue(&bench)
        .await
        .unwrap()
        .enrolment;
    let end = UnixTime(NOW.0 + 600);
    end_old(
        &bench.store,
        old.fingerprint,
        end,
        std::time::Duration::ZERO,
    )
    .await
    .unwrap();
    let record = bench.store.get(old.fingerprint).await.unwrap().unwrap();
    assert_eq!((record.not_after, record.revocation), (end, None));
}

#[tokio::test]
async fn openssl_opens_the_pkcs12_file_and_json_holds_all() {
    let bench = Bench::new().await;
    let (signed, key) = Ask::agent("bob", &["tools:*"])
        .sign_with_key(bench.issuing())
        .unwrap();
    let issued = issue(&bench.store, signed, "me@here", NOW).await.unwrap();
    let root = bench.issuing().root_der();
    let output =
        |form| prepare_output_in(form, KeyPart::Written, bench.dir.path(), "bob", root, false);
    let word = secret();
    let place = output(Form::P12).unwrap();
    let p12 = write_in_form(
        &bench.store,
        &place,
        &issued,
        Holding::Sealed(&key, &word),
        NOW,
    );
    let p12 = p12.await.unwrap();
    let file = p12[0].to_str().unwrap();
    let open = |word: &str| {
        let pass = format!("pass:{word}");
        openssl(&["pkcs12", "-in", file, "-passin", &pass, "-nodes", "-info"])
    };
    let (opened, said) = open("correct horse");
    assert!(opened, "{said}");
    assert_eq!(
        said.matches("BEGIN CERTIFICATE").count(),
        3,
        "leaf, issuing CA, root: {said}"
    );
    assert!(
        said.contains("BEGIN PRIVATE KEY") && said.contains("AES-256-CBC"),
        "{said}"
    );
    assert!(!open("wrong").0);

    let holding = Holding::Key(&key);
    let json = output(Form::Json).unwrap();
    let json = write_in_form(&bench.store, &json, &issued, holding, NOW)
        .await
        .unwrap();
    let whole: serde_json::Value = serde_json::from_slice(&fs::read(&json[0]).unwrap()).unwrap();
    assert_eq!(whole["chain"], issued.chain_pem());
    assert_eq!(whole["grants"], serde_json::json!(["tools:*"]));
    assert!(
        whole["key"]
            .as_str()
            .unwrap()
            .starts_with("-----BEGIN PRIVATE KEY-----")
    );
    for path in [&p12[0], &json[0]] {
        crate::cert::check_private(path).unwrap();
    }
    assert!(output(Form::P12).is_err(), "it is in the way");
}

/// Whoever makes a request has the key, and likely where its certificate goes.
#[tokio::test]
async fn the_key_of_a_request_is_not_in_the_way() {
    let bench = Bench::new().await;
    let root = bench.issuing().root_der();
    let out = bench.path("out");
    let prepare = |key| prepare_output_in(Form::Pem, key, &out, "bob", root, false);
    prepare(KeyPart::Written).unwrap();
    fs::write(out.join("bob.key"), "theirs").unwrap();
    let error = prepare(KeyPart::Written).unwrap_err();
    assert!(error.to_string().contains("bob.key"), "{error}");

    let place = prepare(KeyPart::Theirs).unwrap();
    let signed = Ask::agent("bob", &["tools:*"])
        .sign(bench.issuing())
        .unwrap();
    let issued = issue(&bench.store, signed, "me@here", NOW).await.unwrap();
    write_in_form(&bench.store, &place, &issued, Holding::NoKey, NOW)
        .await
        .unwrap();
    assert_eq!(fs::read(out.join("bob.key")).unwrap(), b"theirs");
    let error = prepare(KeyPart::Theirs).unwrap_err();
    assert!(error.to_string().contains("bob.crt"), "{error}");
}
