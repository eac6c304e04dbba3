use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};

use super::bench::{Ask, Bench, DAY, HOUR, NOW, openssl, openssl_verify};
use super::full::Full;
use crate::ca::{BuildError, IssueError, SignError, issue, prepare_output, write_out};
use crate::cert::KeyKind;
use crate::clock::UnixTime;
use crate::registry::{EnrolmentKind, Store};

/// What webpki thinks of a chain file for a usage at a time.
fn webpki(bench: &Bench, chain: &str, usage: webpki::KeyUsage, at: UnixTime) -> Result<(), String> {
    use rustls::pki_types::pem::PemObject;
    let chain: Vec<CertificateDer<'_>> = CertificateDer::pem_slice_iter(chain.as_bytes())
        .map(Result::unwrap)
        .collect();
    let root = CertificateDer::from_pem_file(bench.files.root_certificate()).unwrap();
    let anchor = webpki::anchor_from_trusted_cert(&root).unwrap();
    let leaf = webpki::EndEntityCert::try_from(&chain[0]).map_err(|error| error.to_string())?;
    let at =
        rustls::pki_types::UnixTime::since_unix_epoch(Duration::from_secs(at.0.unsigned_abs()));
    leaf.verify_for_usage(
        webpki::ALL_VERIFICATION_ALGS,
        &[anchor],
        &chain[1..],
        at,
        usage,
        None,
        None,
    )
    .map(drop)
    .map_err(|error| format!("{error:?}"))?;
    if chain.len() == 2 && usage_is_server(&leaf) {
        leaf.verify_is_valid_for_subject_name(&ServerName::try_from("localhost").unwrap())
            .map_err(|error| format!("{error:?}"))?;
    }
    Ok(())
}

fn usage_is_server(leaf: &webpki::EndEntityCert<'_>) -> bool {
    leaf.valid_dns_names().next().is_some()
}

#[tokio::test]
async fn a_leaf_says_what_the_contract_asks_for() {
    let bench = Bench::new().await;
    let issued = Ask::agent("team/agent-7", &["tools:files__read_*", "role:reader"])
        .issue(&bench)
        .await
        .unwrap();
    let (_, leaf) = x509_parser::parse_x509_certificate(&issued.enrolment.der).unwrap();
    let (issuing, subject) = (bench.issuing(), leaf.subject().to_string());
    assert_eq!(subject, "CN=agent-7");
    assert_eq!(
        issued.parsed.uris,
        ["spiffe://countersign.internal/team/agent-7"]
    );
    assert!(issued.parsed.dns.is_empty());
    let grants: Vec<String> = issued
        .parsed
        .permissions
        .unwrap()
        .entries()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(grants, ["tools:files__read_*", "role:reader"]);
    let constraints = leaf
        .basic_constraints()
        .unwrap()
        .expect("said, not left out");
    assert!(!constraints.value.ca && constraints.critical);
    let usage = leaf.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.digital_signature() && usage.value.flags == 1);
    let extended = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.client_auth && !extended.server_auth && !extended.any);
    let extension = |oid: &str| {
        leaf.extensions()
            .iter()
            .find(|extension| extension.oid.to_id_string() == oid)
    };
    assert!(extension("2.5.29.35").is_some(), "authority key identifier");
    assert!(extension("2.5.29.14").is_some(), "subject key identifier");
    let permissions = extension("1.3.6.1.4.1.32473.8.1").expect("the permission extension");
    assert!(!permissions.critical);
    assert_eq!(issued.enrolment.not_before, UnixTime(NOW.0 - 60));
    assert_eq!(issued.enrolment.not_after, UnixTime(NOW.0 + 24 * HOUR));
    assert_eq!(issued.enrolment.serial.len(), 34);
    assert_eq!(hex::encode(leaf.raw_serial()), issued.enrolment.serial);
    assert_eq!(issued.enrolment.issuer, Some(issuing.fingerprint()));
}

#[tokio::test]
async fn webpki_and_openssl_accept_every_profile_and_kind_of_key() {
    for key in [KeyKind::P256, KeyKind::P384, KeyKind::Ed25519] {
        let bench = Bench::with_key(key).await;
        for profile in ["agent", "service", "operator"] {
            let ask = Ask {
                profile,
                ..Ask::agent("someone", &["*"])
            };
            let issued = ask.issue(&bench).await.unwrap();
            let chain = issued.chain_pem();
            webpki(&bench, &chain, webpki::KeyUsage::client_auth(), NOW).unwrap();
            let wrong = webpki(&bench, &chain, webpki::KeyUsage::server_auth(), NOW);
            assert!(
                wrong.unwrap_err().contains("RequiredEkuNotFound"),
                "{profile}"
            );
            let file = bench.write(profile, &issued);
            let (good, said) = openssl_verify(&bench, &file, NOW, &["-purpose", "sslclient"]);
            assert!(good, "{profile} {key}: {said}");
            let (good, said) = openssl_verify(&bench, &file, NOW, &["-purpose", "sslserver"]);
            assert!(!good, "{profile} {key}: {said}");
            let late = UnixTime(issued.enrolment.not_after.0 + 1);
            assert!(webpki(&bench, &chain, webpki::KeyUsage::client_auth(), late).is_err());
        }
        let issued = Ask::server(&["localhost"], &["127.0.0.1", "::1"])
            .issue(&bench)
            .await
            .unwrap();
        webpki(
            &bench,
            &issued.chain_pem(),
            webpki::KeyUsage::server_auth(),
            NOW,
        )
        .unwrap();
        let file = bench.write("server", &issued);
        let named = ["-purpose", "sslserver", "-verify_hostname", "localhost"];
        let (good, said) = openssl_verify(&bench, &file, NOW, &named);
        assert!(good, "{key}: {said}");
        let numbered = ["-purpose", "sslserver", "-verify_ip", "::1"];
        assert!(openssl_verify(&bench, &file, NOW, &numbered).0);
        let text = openssl(&["x509", "-noout", "-text", "-in", file.to_str().unwrap()]).1;
        assert!(
            text.contains("X509v3 Basic Constraints: critical\n                CA:FALSE"),
            "{text}"
        );
        assert!(
            !text.contains("1.3.6.1.4.1.32473.8.1"),
            "a server carries no permissions: {text}"
        );
    }
}

#[tokio::test]
async fn a_certificate_is_on_record_and_pinned_when_it_leaves() {
    let bench = Bench::new().await;
    let issued = Ask::agent("agent", &["tools:*"])
        .issue(&bench)
        .await
        .unwrap();
    let record = bench
        .store
        .get(issued.enrolment.fingerprint)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(record, issued.enrolment);
    assert!(record.pinned && record.grants.is_none() && record.kind == EnrolmentKind::Leaf);
    assert_eq!(
        (record.created_by.as_str(), record.profile.as_str()),
        ("me@here", "agent")
    );
    assert!(issued.notes.is_empty(), "{:?}", issued.notes);
    let server = Ask::server(&["localhost"], &[])
        .issue(&bench)
        .await
        .unwrap();
    assert!(
        !server.enrolment.pinned,
        "nobody is admitted by a server's certificate"
    );

    let second = Ask::agent("agent", &["tools:*"])
        .issue(&bench)
        .await
        .unwrap();
    assert_ne!(second.enrolment.serial, issued.enrolment.serial);
    assert!(
        second.notes[0].contains("another live certificate"),
        "{:?}",
        second.notes
    );
}

#[tokio::test]
async fn what_the_profile_or_the_name_does_not_allow_is_refused() {
    let bench = Bench::new().await;
    let issuing = bench.issuing();
    let agent = || Ask::agent("agent", &["tools:*"]);
    let refused = |ask: Ask| ask.sign(issuing).unwrap_err();

    assert!(agent().sign(issuing).is_ok());
    assert!(matches!(
        refused(Ask {
            grants: &[],
            ..agent()
        }),
        SignError::NoGrants(_)
    ));
    assert!(
        Ask {
            ttl: Some(7 * DAY),
            ..agent()
        }
        .sign(issuing)
        .is_ok()
    );
    let long = refused(Ask {
        ttl: Some(7 * DAY + 1),
        ..agent()
    })
    .to_string();
    assert!(long.contains("`agent`") && long.contains("7days"), "{long}");
    assert!(matches!(
        refused(Ask {
            ttl: Some(59),
            ..agent()
        }),
        SignError::Lifetime { .. }
    ));
    assert!(matches!(
        refused(Ask {
            dns: &["a.example"],
            ..agent()
        }),
        SignError::ServerName(_)
    ));

    assert!(Ask::server(&["*.example.org"], &[]).sign(issuing).is_ok());
    assert!(matches!(
        refused(Ask::server(&[], &[])),
        SignError::NoServerName(_)
    ));
    assert!(matches!(
        refused(Ask::server(&["not a name"], &[])),
        SignError::Dns(_)
    ));
    let grants = Ask {
        grants: &["*"],
        ..Ask::server(&["localhost"], &[])
    };
    assert!(matches!(refused(grants), SignError::ServerGrants(_)));

    let fits: &str = "a123456789012345678901234567890123456789012345678901234567890123";
    assert!(
        Ask {
            name: fits,
            ..agent()
        }
        .sign(issuing)
        .is_ok()
    );
    let long = "aa123456789012345678901234567890123456789012345678901234567890123";
    assert!(matches!(
        refused(Ask {
            name: long,
            ..agent()
        }),
        SignError::CommonName(_)
    ));
}

#[tokio::test]
async fn no_certificate_outlives_its_issuer() {
    let bench = Bench::new().await;
    let issuing = bench.issuing();
    let end = issuing.certificate().not_after;
    let late = Ask {
        now: UnixTime(end.0 - HOUR),
        ..Ask::agent("agent", &["tools:*"])
    };
    let issued = late.issue(&bench).await.unwrap();
    assert_eq!(issued.enrolment.not_after, end);
    assert!(
        issued.notes[0].contains("ends with the CA"),
        "{:?}",
        issued.notes
    );
    let over = Ask {
        now: end,
        ..Ask::agent("agent", &["tools:*"])
    }
    .sign(issuing)
    .unwrap_err();
    assert!(matches!(over, SignError::IssuerEnded { .. }), "{over}");
    let early = Ask {
        now: UnixTime(NOW.0 - DAY),
        ..Ask::agent("agent", &["tools:*"])
    };
    assert!(matches!(
        early.sign(issuing).unwrap_err(),
        SignError::IssuerEnded { .. }
    ));
}

/// A CA below the issuing one with a ceiling, made on rcgen directly.
fn with_ceiling(bench: &Bench, ceiling: &[&str]) -> crate::ca::Authority {
    use rcgen::{
        BasicConstraints, CertificateParams, CustomExtension, DnType, IsCa, KeyPair,
        KeyUsagePurpose, SanType,
    };
    let grants = crate::grant::WrittenGrants::parse(ceiling).unwrap();
    let content = crate::grant::encode_extension(&grants);
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::default();
    parameters.not_before = time::OffsetDateTime::from_unix_timestamp(NOW.0 - 60).unwrap();
    parameters.not_after = time::OffsetDateTime::from_unix_timestamp(NOW.0 + 30 * DAY).unwrap();
    parameters
        .distinguished_name
        .push(DnType::CommonName, "The Delegate");
    parameters.subject_alt_names = vec![SanType::URI(
        "spiffe://countersign.internal".try_into().unwrap(),
    )];
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let oid = [1, 3, 6, 1, 4, 1, 32473, 8, 1];
    parameters.custom_extensions = vec![CustomExtension::from_oid_content(&oid, content)];
    let issuing = bench.issuing();
    let issuer = rcgen::Issuer::from_ca_cert_der(&issuing.der().into(), &issuing.signer).unwrap();
    let delegate = parameters.signed_by(&key, &issuer).unwrap();
    let chain = [delegate.der().to_vec(), issuing.der().to_vec()];
    std::fs::write(
        bench.path("delegate.crt"),
        crate::cert::pem::certificates(&chain),
    )
    .unwrap();
    crate::cert::write_atomic(
        &bench.path("delegate.key"),
        key.serialize_pem().as_bytes(),
        0o600,
    )
    .unwrap();
    crate::ca::Authority::open(
        &bench.path("delegate.crt"),
        &bench.path("delegate.key"),
        &bench.files.root_certificate(),
        &|_| unreachable!("the key is not encrypted"),
        crate::cert::DEFAULT_PERMISSION_OID,
    )
    .unwrap()
}

#[tokio::test]
async fn nothing_outside_the_issuers_ceiling_is_signed() {
    let bench = Bench::new().await;
    let delegate = with_ceiling(&bench, &["tools:files__*", "role:unknown-here"]);
    let sign = |grants| Ask::agent("agent", grants).sign(&delegate);

    assert!(sign(&["tools:files__read_*", "tools:files__x"]).is_ok());
    assert!(
        sign(&["role:reader"]).is_ok(),
        "what the role stands for lies inside"
    );
    assert!(sign(&["role:unknown-here"]).is_ok(), "the same words");
    let error = sign(&["tools:files__read_*", "tools:self__whoami"])
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "`tools:self__whoami` lies outside the ceiling of `The Delegate`, which is \
         `tools:files__*`, `role:unknown-here`"
    );
    for outside in [
        &["*"][..],
        &["tools:*"],
        &["resources:files__a"],
        &["admin:*"],
    ] {
        let ask = Ask {
            grants: Box::leak(outside.into()),
            ..Ask::agent("agent", &[])
        };
        assert!(
            matches!(ask.sign(&delegate), Err(SignError::Ceiling { .. })),
            "{outside:?}"
        );
    }
    assert!(matches!(
        sign(&["role:nobody-knows"]),
        Err(SignError::Role { .. })
    ));

    let nothing = with_ceiling(&bench, &[]);
    let error = Ask::agent("agent", &["tools:x"])
        .sign(&nothing)
        .unwrap_err()
        .to_string();
    assert!(error.ends_with("which is empty"), "{error}");

    // What a delegate signs is a whole path: leaf, delegate, issuing CA, root.
    let signed = sign(&["tools:files__x"]).unwrap();
    let issued = issue(&bench.store, signed, "me@here", NOW).await.unwrap();
    webpki(
        &bench,
        &issued.chain_pem(),
        webpki::KeyUsage::client_auth(),
        NOW,
    )
    .unwrap();
}

#[tokio::test]
async fn an_impossible_extension_identifier_is_an_error_not_a_panic() {
    use crate::ca::{Profiles, Request, Rules, Signer};
    let bench = Bench::new().await;
    let (signer, _) = Signer::generate(KeyKind::P256).unwrap();
    let profiles = Profiles::embedded().unwrap();
    let request = Request {
        name: "spiffe://countersign.internal/a".parse().unwrap(),
        subject_key: &signer.public_key(),
        grants: crate::grant::WrittenGrants::parse(&["tools:*"]).unwrap(),
        profile: profiles.get("agent").unwrap(),
        ttl: None,
        dns: Vec::new(),
        ips: Vec::new(),
    };
    let roles = crate::grant::Roles::new();
    let sign = |permission_oid| {
        bench.issuing().sign(
            &request,
            Rules {
                permission_oid,
                roles: &roles,
            },
            NOW,
        )
    };
    assert!(sign("1.3.6.1.4.1.99999.1").is_ok());
    assert!(matches!(
        sign("9.9"),
        Err(SignError::Build(BuildError::Oid(_)))
    ));
    let elsewhere = Request {
        name: "spiffe://example.org/a".parse().unwrap(),
        ..request.clone()
    };
    let rules = Rules {
        permission_oid: "1.3.6.1.4.1.99999.1",
        roles: &roles,
    };
    let error = bench.issuing().sign(&elsewhere, rules, NOW).unwrap_err();
    assert!(matches!(error, SignError::TrustDomain { .. }), "{error}");
    let junk = Request {
        subject_key: b"junk",
        ..request
    };
    assert!(matches!(
        bench.issuing().sign(&junk, rules, NOW),
        Err(SignError::Key(_))
    ));
}

#[tokio::test]
async fn nothing_leaves_when_it_cannot_be_recorded() {
    let bench = Bench::new().await;
    let ask = Ask::agent("agent", &["tools:*"]);
    let out = bench.path("out");
    let output = prepare_output(&out, "agent", bench.issuing().root_der(), false).unwrap();
    let files = || std::fs::read_dir(&out).unwrap().count();

    let full = Full::default();
    let refused = issue(&full, ask.sign(bench.issuing()).unwrap(), "me", NOW).await;
    assert!(matches!(refused, Err(IssueError::Store(_))));
    assert!(full.was_asked());
    assert_eq!(files(), 0);

    let (signed, key) = ask.sign_with_key(bench.issuing()).unwrap();
    let issued = issue(&bench.store, signed, "me", NOW).await.unwrap();
    assert_eq!(files(), 0, "recorded, and not written yet");
    let written = write_out(&bench.store, &output, &issued, &key, NOW)
        .await
        .unwrap();
    assert_eq!(files(), 3);
    crate::cert::check_private(&written.key).unwrap();
    let key = written.key.to_str().unwrap();
    let public = openssl(&["pkey", "-in", key, "-pubout"]);
    let certified = openssl(&[
        "x509",
        "-in",
        written.certificate.to_str().unwrap(),
        "-noout",
        "-pubkey",
    ]);
    assert!(public.0, "{}", public.1);
    assert_eq!(public.1, certified.1, "the key belongs to the certificate");
}

#[tokio::test]
async fn what_could_not_be_written_is_revoked_and_what_is_in_the_way_stays() {
    let bench = Bench::new().await;
    let root = bench.issuing().root_der().to_vec();
    let out = bench.path("out");
    let ask = Ask::agent("agent", &["tools:*"]);
    let output = prepare_output(&out, "agent", &root, false).unwrap();
    let (signed, key) = ask.sign_with_key(bench.issuing()).unwrap();
    let issued = issue(&bench.store, signed, "me", NOW).await.unwrap();
    // A folder where the certificate should go cannot be written over by a file.
    std::fs::create_dir_all(out.join("agent.crt/in the way")).unwrap();
    let error = write_out(&bench.store, &output, &issued, &key, NOW)
        .await
        .unwrap_err();
    assert!(matches!(error, IssueError::Write { .. }), "{error}");
    let record = bench
        .store
        .get(issued.enrolment.fingerprint)
        .await
        .unwrap()
        .unwrap();
    assert!(record.revocation.is_some());

    let error = prepare_output(&out, "agent", &root, false).unwrap_err();
    assert!(matches!(error, IssueError::InTheWay(_)), "{error}");
    assert!(prepare_output(&out, "agent", &root, true).is_ok());
    let other = Bench::new().await;
    let theirs = bench.path("theirs");
    std::fs::create_dir(&theirs).unwrap();
    std::fs::copy(other.files.root_certificate(), theirs.join("ca.pem")).unwrap();
    let error = prepare_output(&theirs, "agent", &root, false).unwrap_err();
    assert!(matches!(error, IssueError::OtherRoot(_)), "{error}");
    assert!(prepare_output(&theirs, "agent", other.issuing().root_der(), false).is_ok());
}
