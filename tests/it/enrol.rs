//! Enrolment: `ca serve` as a process, with clients that we did not write (`curl`, `openssl`) and
//! with our own (`join`, `renew`).

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use countersign::clock::{UnixTime, unix_now};
use countersign::enrol::{CertFiles, Note, keep};
use countersign::est::Invitation;
use countersign::grant::WrittenGrants;
use countersign::identity::Fingerprint;
use countersign::registry::{Store as _, Token, TokenDigest};
use countersign::tls::Identity;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};

use crate::support::authority::{CaServer, eventually, fingerprint};
use crate::support::pki::permissions;

fn as_user(token: &str, name: &str) -> String {
    format!("{name}:{token}")
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

/// A request (DER in base64, a file) that wishes for these grants.
fn wishing(ca: &CaServer, name: &str, grants: &[&str]) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.custom_extensions = vec![permissions(grants)];
    let key = KeyPair::generate().unwrap();
    let request = params.serialize_request(&key).unwrap();
    let file = format!("{name}.req");
    std::fs::write(ca.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    std::fs::write(ca.path(&file), request.pem().unwrap()).unwrap();
    file
}

#[test]
fn curl_and_openssl_enrol_and_renew() {
    let ca = CaServer::start();
    let cas = ca.est("cacerts", &[]);
    assert_eq!(cas.status, 200);
    assert!(
        cas.headers.contains("application/pkcs7-mime"),
        "{}",
        cas.headers
    );
    let der = ca.openssl_of(&cas.body, &["base64", "-d", "-A", "-out", "cas.p7"]);
    assert!(der.is_empty());
    ca.openssl_of(&cas.body, &["base64", "-d", "-out", "cas.p7"]);
    let listed = ca.openssl(&["pkcs7", "-inform", "DER", "-in", "cas.p7", "-print_certs"]);
    let root = std::fs::read_to_string(ca.path("pki/ca/root.crt")).unwrap();
    assert!(
        listed.contains(root.trim()) && listed.matches("BEGIN").count() == 2,
        "{listed}"
    );

    let token = ca.invite("team/agent-7", &["--grant", "tools:files__*"]);
    let request = ca.request("a", "agent-7");
    let answer = ca.enrol(
        "simpleenroll",
        &request,
        &["-u", &as_user(&token, "agent-7")],
    );
    let first = ca.keep(&answer, "a");
    let verified = ca.openssl(&[
        "verify",
        "-CAfile",
        "pki/ca/root.crt",
        "-untrusted",
        "pki/ca/issuing.crt",
        "a.crt",
    ]);
    assert!(verified.contains("OK"), "{verified}");
    let text = ca.openssl(&["x509", "-in", "a.crt", "-noout", "-text"]);
    assert!(
        text.contains("URI:spiffe://example.org/team/agent-7"),
        "{text}"
    );
    assert!(ca.known(first).is_some_and(|known| known.pinned));

    // Again, with its certificate, for another key.
    let request = ca.request("b", "agent-7");
    let shown = ["--cert", "a.crt", "--key", "a.key"];
    let second = ca.keep(&ca.enrol("simplereenroll", &request, &shown), "b");
    assert_ne!(first, second);
    let (old, new) = (ca.known(first).unwrap(), ca.known(second).unwrap());
    assert_eq!((old.name, old.profile), (new.name, new.profile));
    assert!(old.revocation.is_none(), "both are good for a while");

    // For somebody else it is refused, and so is it without a certificate.
    let other = ca.request("c", "agent-8");
    let refused = ca.enrol("simplereenroll", &other, &shown);
    assert_eq!(
        (refused.status, refused.reason().as_str()),
        (403, "wrong_name")
    );
    let refused = ca.enrol("simplereenroll", &request, &[]);
    assert_eq!(refused.status, 401);
    assert!(
        refused.headers.contains("www-authenticate: basic"),
        "{}",
        refused.headers
    );

    // An RSA key, and the token as a bearer.
    let token = ca.invite("big", &["--grant", "tools:*"]);
    ca.openssl(&[
        "req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "r.key", "-subj", "/CN=big",
        "-out", "r.pem",
    ]);
    ca.keep(
        &ca.enrol("simpleenroll", "r.pem", &["-H", &bearer(&token)]),
        "r",
    );

    let verified = ca.run(&["audit", "verify", "pki/ca/audit.jsonl"]);
    assert_eq!(verified.code, 0, "{}{}", verified.out, verified.err);
    let audit = ca.audit();
    let enrolled = |by: &str| {
        audit
            .iter()
            .filter(|one| one["event"] == "enrolled" && one["by"] == by)
            .count()
    };
    assert_eq!((enrolled("token"), enrolled("certificate")), (2, 1));
    let renewal = audit.iter().find(|one| one["by"] == "certificate").unwrap();
    assert_eq!(renewal["replaces"], first.to_string());
    assert_eq!(renewal["fingerprint"], second.to_string());
    assert!(
        audit
            .iter()
            .any(|one| one["event"] == "refused" && one["class"] == "wrong_name")
    );
    assert!(
        !format!("{audit:?}").contains(&token[10..]),
        "no token in the log"
    );
}

#[test]
fn a_token_is_good_once_for_its_name_and_in_time() {
    let ca = CaServer::start();
    let request = ca.request("a", "agent-7");
    let token = ca.invite("agent-7", &["--grant", "tools:a"]);
    let refused = ca.enrol(
        "simpleenroll",
        &request,
        &["-u", &as_user(&token, "agent-8")],
    );
    assert_eq!(
        (refused.status, refused.reason().as_str()),
        (403, "wrong_name")
    );
    let other = ca.request("b", "agent-8");
    let refused = ca.enrol("simpleenroll", &other, &["-H", &bearer(&token)]);
    assert_eq!(refused.reason(), "wrong_name");
    std::fs::write(ca.path("junk"), "MAA=").unwrap();
    let refused = ca.enrol("simpleenroll", "junk", &["-H", &bearer(&token)]);
    assert_eq!(refused.status, 400);

    // None of that has used it up.
    let answer = ca.enrol(
        "simpleenroll",
        &request,
        &["-u", &as_user(&token, "agent-7")],
    );
    assert_eq!(answer.status, 200);
    let again = ca.enrol(
        "simpleenroll",
        &request,
        &["-u", &as_user(&token, "agent-7")],
    );
    assert_eq!((again.status, again.reason().as_str()), (403, "token_used"));

    let stranger = Invitation::new("a:1".into(), Fingerprint::of_der(b"x"), "n".into()).unwrap();
    let unknown = ca.enrol(
        "simpleenroll",
        &request,
        &["-H", &bearer(&stranger.password())],
    );
    assert_eq!(
        (unknown.status, unknown.reason().as_str()),
        (401, "token_unknown")
    );

    let made = UnixTime(unix_now().0 - 100);
    let late = Token {
        digest: TokenDigest::of(stranger.secret.expose()),
        name: countersign::identity::Name::new("spiffe://example.org/agent-7").unwrap(),
        grants: WrittenGrants::parse(&["tools:a"]).unwrap(),
        profile: "agent".into(),
        hosts: Vec::new(),
        lifetime: None,
        expires_at: UnixTime(made.0 + 60),
        created_at: made,
        created_by: "test".into(),
        used_at: None,
    };
    ca.with_store(async |store| store.put_token(&late).await.unwrap());
    let expired = ca.enrol(
        "simpleenroll",
        &request,
        &["-H", &bearer(&stranger.password())],
    );
    assert_eq!(
        (expired.status, expired.reason().as_str()),
        (403, "token_expired")
    );
}

#[test]
fn grants_only_narrow() {
    let ca = CaServer::start();
    let held = ["tools:files__*", "resources:*"];
    let token = ca.invite("agent", &["--grant", held[0], "--grant", held[1]]);
    let authorization = bearer(&token);
    for more in [
        &["tools:*"][..],
        &["tools:files__*", "admin:*"],
        &["role:any"],
        &[],
    ] {
        let request = wishing(&ca, "more", more);
        let refused = ca.enrol("simpleenroll", &request, &["-H", &authorization]);
        assert_eq!(
            (refused.status, refused.reason().as_str()),
            (403, "not_allowed"),
            "{more:?}"
        );
    }
    let less = wishing(&ca, "less", &["tools:files__read_*", "resources:*"]);
    let answer = ca.enrol("simpleenroll", &less, &["-H", &authorization]);
    let print = ca.keep(&answer, "less");
    let carried = ca.run(&["ca", "show", &print.to_string(), "--json"]).json();
    assert!(
        carried.to_string().contains("tools:files__read_*"),
        "{carried}"
    );
    assert!(!carried.to_string().contains("tools:files__*"), "{carried}");

    // What was given up does not come back.
    let shown = ["--cert", "less.crt", "--key", "less.key"];
    let back = wishing(&ca, "back", &held);
    let refused = ca.enrol("simplereenroll", &back, &shown);
    assert_eq!(
        (refused.status, refused.reason().as_str()),
        (403, "not_allowed")
    );
    let same = ca.request("same", "agent");
    let print = ca.keep(&ca.enrol("simplereenroll", &same, &shown), "same");
    let carried = ca.run(&["ca", "show", &print.to_string(), "--json"]).json();
    assert!(!carried.to_string().contains("tools:files__*"), "{carried}");
}

#[test]
fn who_was_revoked_or_unpinned_does_not_renew() {
    let ca = CaServer::start();
    let (mut prints, request) = (Vec::new(), ca.request("next", "agent"));
    for name in ["one", "two"] {
        let token = ca.invite("agent", &["--grant", "tools:a"]);
        let own = ca.request(name, "agent");
        let answer = ca.enrol("simpleenroll", &own, &["-H", &bearer(&token)]);
        prints.push(ca.keep(&answer, name).to_string());
        let shown = [
            "--cert",
            &format!("{name}.crt"),
            "--key",
            &format!("{name}.key"),
        ];
        assert_eq!(ca.enrol("simplereenroll", &request, &shown).status, 200);
    }
    ca.run(&["ca", "revoke", &prints[0], "--wait", "0s"]).ok();
    ca.run(&["pin", "remove", &prints[1], "--wait", "0s"]).ok();
    for (name, reason) in [("one", "revoked"), ("two", "unpinned")] {
        let shown = [
            "--cert",
            &format!("{name}.crt"),
            "--key",
            &format!("{name}.key"),
        ];
        let refused = ca.enrol("simplereenroll", &request, &shown);
        assert_eq!((refused.status, refused.reason().as_str()), (403, reason));
    }
}

#[test]
fn other_requests_are_turned_away() {
    let ca = CaServer::with(&["--per-name", "2"]);
    let request = ca.request("a", "agent");
    assert_eq!(ca.est("nothing", &[]).status, 404);
    assert_eq!(ca.est("csrattrs", &[]).status, 204);
    assert_eq!(ca.est("serverkeygen", &["-d", "x"]).status, 501);
    assert_eq!(ca.est("simpleenroll", &[]).status, 405);
    let body = format!("@{request}");
    let wrong = ca.est("simpleenroll", &["--data-binary", &body]);
    assert_eq!(wrong.status, 415);
    std::fs::write(ca.path("long"), vec![b'A'; 70_000]).unwrap();
    assert_eq!(ca.enrol("simpleenroll", "long", &[]).status, 413);

    let token = ca.invite("agent", &["--grant", "tools:a"]);
    ca.keep(
        &ca.enrol("simpleenroll", &request, &["-H", &bearer(&token)]),
        "a",
    );
    let shown = ["--cert", "a.crt", "--key", "a.key"];
    assert_eq!(ca.enrol("simplereenroll", &request, &shown).status, 200);
    let limited = ca.enrol("simplereenroll", &request, &shown);
    assert_eq!(limited.status, 429);
    assert!(
        limited.headers.contains("retry-after"),
        "{}",
        limited.headers
    );

    // A certificate of another CA does not get through the handshake.
    let other = CaServer::made();
    other.openssl(&[
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-keyout",
        "x.key",
        "-out",
        "x.crt",
        "-subj",
        "/CN=agent",
    ]);
    let [cert, key] = ["x.crt", "x.key"].map(|name| other.path(name).display().to_string());
    let url = format!("https://{}/.well-known/est/cacerts", ca.est);
    let refused = std::process::Command::new("curl")
        .args(["-sS", "--noproxy", "*", "--cacert"])
        .arg(ca.path("pki/ca/root.crt"))
        .args(["--cert", &cert, "--key", &key, &url])
        .output()
        .unwrap();
    assert!(!refused.status.success());
    eventually("the refusal is recorded", || {
        let classes = ["unknown_ca", "bad_certificate"].map(serde_json::Value::from);
        ca.audit()
            .iter()
            .any(|one| one["event"] == "refused" && classes.contains(&one["class"]))
    });
}

#[test]
fn relying_parties_get_the_crl_soon_after_a_revocation() {
    let ca = CaServer::start();
    let token = ca.invite("agent", &["--grant", "tools:a"]);
    let request = ca.request("a", "agent");
    let answer = ca.enrol("simpleenroll", &request, &["-H", &bearer(&token)]);
    let print = ca.keep(&answer, "a");
    let serial = ca.known(print).unwrap().serial.to_uppercase();
    let url = format!("http://{}/crl/issuing.crl", ca.crl);
    let text = || {
        let crl = ca.curl(&[&url]);
        assert_eq!(crl.status, 200);
        std::fs::write(ca.path("served.crl"), &crl.body).unwrap();
        let issuer = ["-CAfile", "pki/ca/issuing.crt", "-noout", "-text"];
        ca.openssl(&[&["crl", "-inform", "DER", "-in", "served.crl"], &issuer[..]].concat())
    };
    assert!(!text().contains(&serial));
    // By the registry alone: no other process writes the CRL.
    let revocation = countersign::registry::Revocation {
        at: unix_now(),
        reason: countersign::registry::Reason::KeyCompromise,
        by: "test".into(),
    };
    ca.with_store(async |store| store.revoke(print, &revocation).await.unwrap());
    eventually("the CRL names the certificate", || text().contains(&serial));

    let root = ca.curl(&[&format!("http://{}/crl/root.crl", ca.crl)]);
    assert_eq!(root.status, 200);
    assert!(
        root.headers.contains("application/pkix-crl"),
        "{}",
        root.headers
    );
    assert!(
        root.headers.contains("cache-control: public, max-age="),
        "{}",
        root.headers
    );
    let tag = root
        .headers
        .split("etag: ")
        .nth(1)
        .unwrap()
        .split("\r\n")
        .next()
        .unwrap();
    let known = ["-H", &format!("If-None-Match: {tag}")];
    let url = format!("http://{}/crl/root.crl", ca.crl);
    assert_eq!(ca.curl(&[&known[..], &[&url]].concat()).status, 304);
}

/// Nothing is given out while the registry is out of reach, at once and with a word about it; what
/// was asked for is not used up.
#[test]
fn without_the_registry_nothing_is_given_out() {
    let ca = CaServer::start();
    let token = ca.invite("agent", &["--grant", "tools:a"]);
    let request = ca.request("a", "agent");
    let shown = ["-H", &bearer(&token)];
    let (file, away) = (ca.path("pki/registry.db"), ca.path("pki/away.db"));
    std::fs::rename(&file, &away).unwrap();
    let refused = ca.enrol("simpleenroll", &request, &shown);
    assert_eq!(
        (refused.status, refused.reason().as_str()),
        (503, "registry_unavailable")
    );
    assert!(
        refused.headers.contains("retry-after"),
        "{}",
        refused.headers
    );
    let issued = ca.run(&["ca", "issue", "other", "--grant", "tools:a"]);
    assert_eq!(issued.code, 6, "{}", issued.err);
    assert!(issued.err.contains("registry.db"), "{}", issued.err);
    assert!(!ca.path("other.crt").exists() && !ca.path("other.key").exists());
    eventually("the refusal is recorded", || {
        let class = serde_json::Value::from("registry_unavailable");
        ca.audit().iter().any(|one| one["class"] == class)
    });
    std::fs::rename(&away, &file).unwrap();
    let answer = ca.enrol("simpleenroll", &request, &shown);
    assert_eq!(answer.status, 200);
}

/// Two servers of one CA on one PostgreSQL, each with a folder of its own: a token is good once in
/// the fleet, what one gave out is renewed by the other, and a revocation is one for both.
#[test]
fn several_servers_of_a_ca_share_a_postgresql() {
    let url = crate::outage::postgres_of("ca_fleet");
    let one = CaServer::made_on(&url);
    let two = one.copied();
    let (mut one, mut two) = (one, two);
    one.serve(&[]);
    two.serve(&[]);
    let token = one.invite("agent", &["--grant", "tools:a"]);
    let shown = ["-H", &bearer(&token)];
    let asked = [&one, &two].map(|ca| (ca, ca.request("a", "agent")));
    let answers = std::thread::scope(|scope| {
        let all = asked
            .map(|(ca, request)| scope.spawn(move || ca.enrol("simpleenroll", &request, &shown)));
        all.map(|one| one.join().unwrap())
    });
    let statuses = answers.each_ref().map(|answer| answer.status);
    assert!(
        statuses == [200, 403] || statuses == [403, 200],
        "{statuses:?}"
    );
    let (giver, other, answer) = match statuses[0] {
        200 => (&one, &two, &answers[0]),
        _ => (&two, &one, &answers[1]),
    };
    giver.keep(answer, "a");
    for name in ["a.crt", "a.key"] {
        std::fs::copy(giver.path(name), other.path(name)).unwrap();
    }
    let request = other.request("b", "agent");
    let shown = ["--cert", "a.crt", "--key", "a.key"];
    let renewed = other.enrol("simplereenroll", &request, &shown);
    let print = other.keep(&renewed, "b");
    for name in ["b.crt", "b.key"] {
        std::fs::copy(other.path(name), giver.path(name)).unwrap();
    }
    let shown = ["--cert", "b.crt", "--key", "b.key"];
    let key = print.to_string();
    giver.run(&["ca", "revoke", &key, "--wait", "0s"]).ok();
    for ca in [&one, &two] {
        let request = ca.request("c", "agent");
        let refused = ca.enrol("simplereenroll", &request, &shown);
        assert_eq!(refused.reason(), "revoked");
        let known = ca.run(&["ca", "show", &key, "--json"]).json();
        let serial = known["serial"].as_str().unwrap().to_uppercase();
        let url = format!("http://{}/crl/issuing.crl", ca.crl);
        eventually("the CRL names it", || {
            text_of_crl(ca, &url).contains(&serial)
        });
    }
}

#[test]
fn what_left_is_known_after_a_kill() {
    let mut ca = CaServer::made();
    let mut confirmed: Vec<String> = Vec::new();
    let mut last = crl_of(&ca).0;
    for round in 0..6 {
        ca.serve(&["--per-source", "10000", "--per-name", "10000"]);
        let before = count(&ca);
        // Its CRL is being written while it is killed.
        let victim = ca.run(&[
            "ca",
            "issue",
            "victim",
            "--grant",
            "tools:a",
            "--replace",
            "--json",
        ]);
        let victim: Fingerprint = victim.json()["fingerprint"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        let revocation = countersign::registry::Revocation {
            at: unix_now(),
            reason: countersign::registry::Reason::KeyCompromise,
            by: "test".into(),
        };
        confirmed.push(ca.known(victim).unwrap().serial);
        ca.with_store(async |store| store.revoke(victim, &revocation).await.unwrap());
        // From the first instant to after the second that it lets pass between two CRLs.
        std::thread::sleep(Duration::from_millis(300) * u32::try_from(round).unwrap());
        let names: Vec<String> = (0..12).map(|n| format!("agent-{round}-{n}")).collect();
        let tokens: Vec<String> = names
            .iter()
            .map(|name| ca.invite(name, &["--grant", "tools:a"]))
            .collect();
        let request = wishing(&ca, "any", &["tools:a"]);
        let answered: Vec<_> = std::thread::scope(|scope| {
            let asking: Vec<_> = tokens
                .iter()
                .map(|token| {
                    let (ca, request) = (&ca, &request);
                    scope.spawn(move || try_enrol(ca, request, token))
                })
                .collect();
            // In the middle of it: some are recorded, some are not.
            eventually("some are enrolled", || count(&ca) > before + round);
            assert!(ca_process(&ca).status().unwrap().success());
            asking.into_iter().map(|one| one.join().unwrap()).collect()
        });
        ca.kill();
        let (number, _) = crl_of(&ca);
        assert!(number >= last, "{number} after {last}");
        last = number;
        for (number, body) in answered.into_iter().enumerate() {
            let Some(body) = body else { continue };
            let der = countersign::est::from_body(&body).unwrap();
            let leaf = countersign::est::read_certs_only(&der).unwrap().remove(0);
            let known = ca.known(Fingerprint::of_der(&leaf));
            assert!(known.is_some_and(|known| known.der == leaf), "{number}");
        }
        // A token is used exactly if its certificate is on record.
        for (name, token) in names.iter().zip(&tokens) {
            let secret = Invitation::read(token).unwrap().secret;
            let digest = TokenDigest::of(secret.expose());
            let (kept, live) = ca.with_store(async |store| {
                let live = store.named(name, unix_now()).await.unwrap();
                (store.token(digest).await.unwrap().unwrap(), live)
            });
            assert_eq!(kept.used_at.is_some(), live.len() == 1, "{name}");
        }
    }
    // The next one writes down what the others could not, and goes on with their log.
    ca.serve(&[]);
    eventually("every confirmed revocation is in the CRL", || {
        let (number, serials) = crl_of(&ca);
        let all = confirmed.iter().all(|serial| serials.contains(serial));
        all && number >= last
    });
    let verified = ca.run(&["audit", "verify", "pki/ca/audit.jsonl"]);
    assert_eq!(verified.code, 0, "{}{}", verified.out, verified.err);
}

/// The CRL that is served there.
fn text_of_crl(ca: &CaServer, url: &str) -> String {
    let served = "served.crl";
    std::fs::write(ca.path(served), ca.curl(&[url]).body).unwrap();
    ca.openssl(&["crl", "-inform", "DER", "-in", served, "-noout", "-text"])
}

/// The number of the issuing CA's CRL and the serials that it names, as OpenSSL reads it once its
/// signature holds.
fn crl_of(ca: &CaServer) -> (u64, Vec<String>) {
    let file = ["crl", "-in", "pki/ca/issuing.crl", "-noout", "-text"];
    let text = ca.openssl(&[&file[..], &["-CAfile", "pki/ca/issuing.crt"]].concat());
    let after = text.split("X509v3 CRL Number:").nth(1).unwrap();
    let number = after.split_whitespace().next().unwrap();
    let number = match number.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).unwrap(),
        None => number.parse().unwrap(),
    };
    let lines = text.lines().map(str::trim);
    let serials = lines.filter_map(|line| line.strip_prefix("Serial Number: "));
    (number, serials.map(str::to_lowercase).collect())
}

fn count(ca: &CaServer) -> usize {
    ca.with_store(async |store| store.list(None, 1000).await.unwrap().len())
}

/// `kill -9` of the server, from beside the test that holds it.
fn ca_process(ca: &CaServer) -> std::process::Command {
    let mut kill = std::process::Command::new("kill");
    kill.arg("-9").arg(ca.pid().to_string());
    kill
}

/// The body of an answer that came whole.
fn try_enrol(ca: &CaServer, request: &str, token: &str) -> Option<Vec<u8>> {
    let url = format!("https://{}/.well-known/est/simpleenroll", ca.est);
    let output = std::process::Command::new("curl")
        .args(["-sS", "-f", "--noproxy", "*", "--cacert"])
        .arg(ca.path("pki/ca/root.crt"))
        .args([
            "-H",
            "Content-Type: application/pkcs10",
            "-H",
            &bearer(token),
        ])
        .arg("--data-binary")
        .arg(format!("@{}", ca.path(request).display()))
        .arg(url)
        .output()
        .unwrap();
    output.status.success().then_some(output.stdout)
}

#[test]
fn joining_writes_what_clients_need_and_a_token_joins_once() {
    let ca = CaServer::start();
    let token = ca.invite("team/agent-7", &["--grant", "tools:files__*"]);
    let joined = ca.run(&["join", &token, "--out", "here", "--json"]).json();
    assert_eq!(joined["name"], "spiffe://example.org/team/agent-7");
    for name in ["agent-7.crt", "agent-7.key", "ca.pem", "agent-7.renew.toml"] {
        let file = ca.path("here").join(name);
        let mode = std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name}");
    }
    assert_eq!(
        std::fs::read_dir(ca.path("here")).unwrap().count(),
        4,
        "nothing is left over"
    );
    let files = ca.files("here/agent-7");
    let identity = Identity::load(&files.cert, &files.key, None).unwrap();
    assert!(
        ca.known(identity.fingerprint())
            .is_some_and(|known| known.pinned)
    );
    assert_eq!(
        files.note().unwrap(),
        Note {
            address: ca.est.to_string()
        }
    );
    assert_eq!(
        fingerprint(&files.ca),
        fingerprint(&ca.path("pki/ca/root.crt"))
    );

    let again = ca.run(&["join", &token, "--out", "there"]);
    assert_eq!(again.code, 3, "{}", again.err);
    assert!(
        again.err.contains("error: ") && again.err.contains("used before"),
        "{}",
        again.err
    );
    assert!(again.err.contains("hint: "), "{}", again.err);
    assert!(!ca.path("there/agent-7.crt").exists() && !ca.path("there/agent-7.key").exists());
}

/// What the server has written down.
fn told(ca: &CaServer) -> String {
    std::fs::read_to_string(ca.path("pki/ca/audit.jsonl")).unwrap()
}

#[test]
fn another_issuing_ca_takes_over_under_the_server_and_one_that_cannot_does_not() {
    let mut ca = CaServer::start();
    let issuer = |name: &str| {
        let token = ca.invite(name, &["--grant", "tools:a"]);
        ca.run(&["join", &token, "--out", name]).ok();
        let file = ca.files(&format!("{name}/{name}")).cert;
        let chain = countersign::cert::load_chain(&file).unwrap();
        Fingerprint::of_der(&chain[1])
    };
    let now = || fingerprint(&ca.path("pki/ca/issuing.crt"));
    let first = now();
    assert_eq!(issuer("one"), first);

    ca.run(&["ca", "rotate", "issuing"]).ok();
    let second = now();
    assert_ne!(second, first);
    eventually("it has taken over", || told(&ca).contains("reloaded"));
    assert_eq!(issuer("two"), second);
    // What the first one signed is good until it is over, and so is its CRL.
    let leaf =
        Fingerprint::of_der(&countersign::cert::load_chain(&ca.path("one/one.crt")).unwrap()[0]);
    let serial = ca.known(leaf).unwrap().serial.to_uppercase();
    let url = format!(
        "http://{}/crl/retired/{}/issuing.crl",
        ca.crl,
        first.short()
    );
    let names_it = || text_of_crl(&ca, &url).contains(&serial);
    eventually("its CRL is served", || ca.curl(&[&url]).status == 200);
    assert!(!names_it());
    let other = ca.curl(&[&format!("http://{}/crl/issuing.crl", ca.crl)]);
    assert_eq!(other.status, 200);
    // Whom the first one signed renews with the second.
    ca.run(&["renew", "--pki", "one", "--as", "one"]).ok();
    let renewed = countersign::cert::load_chain(&ca.path("one/one.crt")).unwrap();
    assert_eq!(Fingerprint::of_der(&renewed[1]), second);

    let revocation = countersign::registry::Revocation {
        at: unix_now(),
        reason: countersign::registry::Reason::Superseded,
        by: "test".into(),
    };
    ca.with_store(async |store| store.revoke(leaf, &revocation).await.unwrap());
    eventually("the first one's CRL names it", names_it);

    // The server does not have this passphrase.
    std::fs::write(ca.path("other"), "another secret\n").unwrap();
    std::fs::set_permissions(ca.path("other"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let rotate = ["ca", "rotate", "issuing", "--passphrase-file", "other"];
    ca.run(&[&rotate[..], &["--root-passphrase-file", "passphrase"]].concat())
        .ok();
    assert_ne!(now(), second);
    eventually("it says so", || told(&ca).contains(r#""error":"#));
    assert_eq!(issuer("three"), second, "who was there goes on");
    ca.run(&["ca", "revoke", "three", "--wait", "0s"]).ok();
    ca.kill();
}

/// Servers have certificates of either then.
#[test]
fn while_a_root_takes_the_place_of_another_clients_come_to_trust_both() {
    let mut ca = CaServer::start();
    let old = fingerprint(&ca.path("pki/ca/root.crt"));
    let token = ca.invite("before", &["--grant", "tools:a"]);
    ca.run(&["join", &token, "--out", "before"]).ok();
    let before = ca.files("before/before");
    let trusted = |files: &CertFiles| -> Vec<Fingerprint> {
        let roots = countersign::cert::load_chain(&files.ca).unwrap();
        roots.iter().map(|der| Fingerprint::of_der(der)).collect()
    };
    assert_eq!(trusted(&before), [old]);

    ca.run(&["ca", "rotate", "root"]).ok();
    eventually("the server takes it up", || told(&ca).contains("reloaded"));
    let new = fingerprint(&ca.path("pki/ca/root.crt"));
    assert_ne!(new, old);
    let token = ca.invite("after", &["--grant", "tools:a"]);
    ca.run(&["join", &token, "--out", "after"]).ok();
    let after = ca.files("after/after");
    assert_eq!(trusted(&after), [new, old]);

    // In a folder with the old root, which vouches for the new one; that of another CA does not.
    let pem = std::fs::read_to_string(&before.ca).unwrap();
    let shared = ca.files("shared/beside");
    std::fs::create_dir(ca.path("shared")).unwrap();
    std::fs::write(&shared.ca, &pem).unwrap();
    let token = ca.invite("beside", &["--grant", "tools:a"]);
    ca.run(&["join", &token, "--out", "shared"]).ok();
    assert_eq!(trusted(&shared), [old, new]);
    let stranger = CaServer::made();
    std::fs::create_dir(ca.path("theirs")).unwrap();
    std::fs::copy(stranger.path("pki/ca/root.crt"), ca.path("theirs/ca.pem")).unwrap();
    let token = ca.invite("lost", &["--grant", "tools:a"]);
    let refused = ca.run(&["join", &token, "--out", "theirs"]);
    assert_eq!(refused.code, 6, "{}", refused.err);
    assert!(refused.err.contains("holds another CA"), "{}", refused.err);

    // So it does for whoever renews.
    for _ in 0..2 {
        ca.run(&["renew", "--pki", "before", "--as", "before"]).ok();
        assert_eq!(trusted(&before), [old, new]);
    }
    let mode = std::fs::metadata(&before.ca).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    Identity::load(&before.cert, &before.key, None).unwrap();
    ca.kill();
}

#[test]
fn a_join_that_fails_says_why_and_uses_nothing_up() {
    let mut ca = CaServer::start();
    let token = ca.invite("agent", &["--grant", "tools:a"]);
    let cut = ca.run(&["join", &token[..40]]);
    assert_eq!(cut.code, 2, "{}", cut.err);

    // Somebody else's server in the place of the CA's.
    let other = CaServer::start();
    let elsewhere = ca.run(&[
        "join",
        &token,
        "--out",
        "out",
        "--server",
        &other.est.to_string(),
    ]);
    assert_eq!(elsewhere.code, 5, "{}", elsewhere.err);
    assert!(
        elsewhere.err.contains("is not the expected CA"),
        "{}",
        elsewhere.err
    );
    drop(other);

    let nobody = ca.run(&["join", &token, "--out", "out", "--server", "127.0.0.1:1"]);
    assert_eq!(nobody.code, 4, "{}", nobody.err);

    std::fs::create_dir_all(ca.path("taken")).unwrap();
    std::fs::write(ca.path("taken/agent.key"), "mine").unwrap();
    let taken = ca.run(&["join", &token, "--out", "taken"]);
    assert_eq!(taken.code, 6, "{}", taken.err);
    assert_eq!(std::fs::read(ca.path("taken/agent.key")).unwrap(), b"mine");

    ca.run(&["join", &token, "--out", "out"]).ok();
    ca.kill();
    let gone = ca.run(&["renew", "--pki", "out", "--as", "agent"]);
    assert_eq!(gone.code, 4, "{}", gone.err);
}

#[test]
fn a_server_is_invited_by_its_hosts() {
    let ca = CaServer::start();
    let refused = ca.run(&["ca", "invite", "door", "--profile", "server"]);
    assert_eq!(refused.code, 6, "{}", refused.err);
    let hosts = [
        "--profile",
        "server",
        "--dns",
        "door.example.org",
        "--ip",
        "192.0.2.7",
    ];
    let token = ca.invite("door", &hosts);
    ca.run(&["join", &token, "--out", "out"]).ok();
    let text = |file: &str| ca.openssl(&["x509", "-in", file, "-noout", "-text"]);
    let named = "DNS:door.example.org, IP Address:192.0.2.7";
    assert!(
        text("out/door.crt").contains(named),
        "{}",
        text("out/door.crt")
    );
    let before = fingerprint(&ca.path("out/door.crt"));
    ca.run(&["renew", "--pki", "out", "--as", "door"]).ok();
    assert!(
        text("out/door.crt").contains(named),
        "{}",
        text("out/door.crt")
    );
    assert_ne!(fingerprint(&ca.path("out/door.crt")), before);
}

#[test]
fn a_renewal_takes_the_place_and_a_failed_one_changes_nothing() {
    let mut ca = CaServer::start();
    let token = ca.invite("agent", &["--grant", "tools:a"]);
    ca.run(&["join", &token, "--out", "out"]).ok();
    let files = ca.files("out/agent");
    let first = Identity::load(&files.cert, &files.key, None)
        .unwrap()
        .fingerprint();
    let old_key = std::fs::read_to_string(&files.key).unwrap();

    let early = ca
        .run(&[
            "renew", "--pki", "out", "--as", "agent", "--if-due", "--json",
        ])
        .json();
    assert_eq!(early["renewed"], false);
    ca.run(&["renew", "--pki", "out", "--as", "agent"]).ok();
    let second = Identity::load(&files.cert, &files.key, None)
        .unwrap()
        .fingerprint();
    assert_ne!(first, second);
    assert!(ca.known(first).is_some() && ca.known(second).is_some());
    let new_key = std::fs::read_to_string(&files.key).unwrap();
    assert_ne!(old_key, new_key, "a renewal comes with another key");

    // Killed between its steps, a renewal leaves both keys; either certificate is usable.
    std::fs::write(&files.key, format!("{old_key}{new_key}")).unwrap();
    Identity::load(&files.cert, &files.key, None).unwrap();
    ca.run(&["renew", "--pki", "out", "--as", "agent"]).ok();
    let keys = std::fs::read_to_string(&files.key).unwrap();
    assert_eq!(keys.matches("BEGIN PRIVATE KEY").count(), 1);

    let content = || {
        let mut all: Vec<_> = std::fs::read_dir(ca.path("out"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (std::fs::read(&path).unwrap(), path))
            .collect();
        all.sort();
        all
    };
    let before = content();
    let print = Identity::load(&files.cert, &files.key, None)
        .unwrap()
        .fingerprint();
    ca.run(&["ca", "revoke", &print.to_string(), "--wait", "0s"])
        .ok();
    let refused = ca.run(&["renew", "--pki", "out", "--as", "agent"]);
    assert_eq!(refused.code, 3, "{}", refused.err);
    assert!(refused.err.contains("revoked"), "{}", refused.err);
    assert_eq!(content(), before);
    ca.kill();
}

#[test]
fn a_process_that_stays_renews_what_is_due() {
    let ca = CaServer::start();
    ca.issue_due("agent", "agent");
    let files = ca.files("out/agent");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let first = fingerprint(&files.cert);
        let (tell, mut told) = tokio::sync::mpsc::channel(4);
        let keeping = tokio::spawn(keep(files.clone(), move |outcome| {
            let outcome = outcome.map_err(ToString::to_string);
            tell.try_send(outcome).expect("room");
        }));
        let outcome = tokio::time::timeout(Duration::from_secs(30), told.recv()).await;
        let end = outcome
            .expect("in time")
            .expect("it lives")
            .expect("renewed");
        assert!(end > unix_now());
        assert_ne!(fingerprint(&files.cert), first);
        Identity::load(&files.cert, &files.key, None).unwrap();
        keeping.abort();
    });
}
