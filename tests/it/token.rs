//! Keys in a PKCS#11 token: the CA's and the server's, in SoftHSM; and a token that hangs, goes, or
//! refuses the PIN.

use std::io::{BufReader, Write as _};
use std::process::Stdio;

use serde_json::Value;

use crate::support::hsm::{Hsm, PIN};

/// A CA whose issuing key is in the token.
fn with_ca(hsm: &Hsm) {
    let issuing = hsm.uri("issuing");
    hsm.ca(&["init", "--issuing-key", &issuing]).ok();
}

fn agent(hsm: &Hsm) {
    let issue = ["issue", "agent", "--grant", "*", "--out", "out"];
    hsm.ca(&issue).ok();
}

/// OpenSSL believes this certificate by the CA's root.
fn verify_by_openssl(hsm: &Hsm, certificate: &str) {
    let (good, said) = hsm.openssl(&[
        "verify",
        "-CAfile",
        "ca/root.crt",
        "-untrusted",
        "ca/issuing.crt",
        certificate,
    ]);
    assert!(good, "{said}");
}

#[test]
fn a_ca_signs_everything_in_the_token() {
    let Some(hsm) = Hsm::new() else { return };
    let (issuing, root) = (hsm.uri("issuing"), hsm.uri("root"));
    let init = ["init", "--issuing-key", &issuing, "--root-key", &root];
    hsm.ca(&init).ok();
    for (file, uri) in [("ca/issuing.key", &issuing), ("ca/root.key", &root)] {
        let held = std::fs::read_to_string(hsm.path(file)).unwrap();
        assert_eq!(held.trim_end(), uri);
    }
    agent(&hsm);
    hsm.ca(&["issue", "other", "--grant", "*", "--out", "out"])
        .ok();
    let (made, said) = hsm.openssl(&[
        "req",
        "-new",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-keyout",
        "asked.key",
        "-subj",
        "/CN=asked",
        "-out",
        "asked.csr",
    ]);
    assert!(made, "{said}");
    let sign = ["sign", "asked.csr", "--name", "asked", "--grant", "*"];
    hsm.ca(&[&sign[..], &["--out", "out"]].concat()).ok();
    let judge = |name: &str| {
        let file = |name: &str| std::fs::read_to_string(hsm.path(name)).unwrap();
        let crls = file("ca/issuing.crl") + &file("ca/root.crl");
        std::fs::write(hsm.path("crls.pem"), crls).unwrap();
        hsm.openssl(&[
            "verify",
            "-x509_strict",
            "-crl_check_all",
            "-CRLfile",
            "crls.pem",
            "-CAfile",
            "ca/root.crt",
            "-untrusted",
            "ca/issuing.crt",
            name,
        ])
    };
    for name in ["out/agent.crt", "out/other.crt", "out/asked.crt"] {
        let (good, said) = judge(name);
        assert!(good, "{name}: {said}");
    }
    hsm.ca(&["revoke", "other", "--wait", "1ms"]).ok();
    let (good, said) = judge("out/other.crt");
    assert!(!good && said.contains("revoked"), "{said}");
    assert!(judge("out/agent.crt").0);

    // The next issuing CA has a key of its own, in the token too.
    let refused = hsm.ca(&["rotate", "issuing"]);
    assert!(refused.err.contains("is in a token"), "{}", refused.err);
    let refused = hsm.ca(&["rotate", "issuing", "--issuing-key", &issuing]);
    assert!(
        refused.err.contains("the key of the one before"),
        "{}",
        refused.err
    );
    let next = hsm.uri("issuing-2");
    hsm.ca(&["rotate", "issuing", "--issuing-key", &next]).ok();
    hsm.ca(&["issue", "late", "--grant", "*", "--out", "late"])
        .ok();
    assert!(judge("late/late.crt").0);
    // The one before still signs its CRL, and a root's key in the token is replaced like any other.
    let before = std::fs::read_dir(hsm.path("ca/retired")).unwrap();
    let before = before.map(|entry| entry.unwrap().path()).next().unwrap();
    let held = std::fs::read_to_string(before.join("issuing.key")).unwrap();
    assert_eq!(held.trim_end(), issuing);
    let (third, root) = (hsm.uri("issuing-3"), hsm.uri("root-2"));
    let rotate = [
        "rotate",
        "root",
        "--issuing-key",
        &third,
        "--root-key",
        &root,
    ];
    hsm.ca(&rotate).ok();
    hsm.ca(&["issue", "last", "--grant", "*", "--out", "last"])
        .ok();
    assert!(judge("last/last.crt").0);
    hsm.holds_no_pin(&[]);
}

#[test]
fn a_token_makes_and_signs_with_keys_of_every_kind_of_ours() {
    let Some(hsm) = Hsm::new() else { return };
    for kind in ["p256", "p384", "ed25519"] {
        let dir = format!("ca-{kind}");
        let (issuing, root) = (
            hsm.uri(&format!("issuing-{kind}")),
            hsm.uri(&format!("root-{kind}")),
        );
        let registry = format!("{dir}.db");
        let place = ["--ca", &dir, "--registry", &registry];
        let init = ["ca", "init", "--key", kind];
        let keys = ["--issuing-key", &issuing, "--root-key", &root];
        hsm.run(&[&init[..], &keys, &place].concat()).ok();
        let issue = ["ca", "issue", "agent", "--grant", "*", "--out", &dir];
        hsm.run(&[&issue[..], &place].concat()).ok();
        let file = |name: &str| format!("{dir}/{name}");
        let (good, said) = hsm.openssl(&[
            "verify",
            "-x509_strict",
            "-CAfile",
            &file("root.crt"),
            "-untrusted",
            &file("issuing.crt"),
            &file("agent.crt"),
        ]);
        assert!(good, "{kind}: {said}");
        let (_, said) = hsm.openssl(&["x509", "-in", &file("agent.crt"), "-noout", "-text"]);
        let signed = match kind {
            "p256" => "ecdsa-with-SHA256",
            "p384" => "ecdsa-with-SHA384",
            _ => "ED25519",
        };
        assert!(
            said.contains(&format!("Signature Algorithm: {signed}")),
            "{said}"
        );
    }
}

#[test]
fn what_is_wrong_with_a_token_is_told() {
    let Some(hsm) = Hsm::new() else { return };
    with_ca(&hsm);
    agent(&hsm);
    let good = hsm.uri("issuing");
    let module = "module-path=/nowhere.so";
    let module_path = |uri: &str| {
        let (path, query) = uri.split_once('?').unwrap();
        format!("{path}?{module}&{}", query.split_once('&').unwrap().1)
    };
    for (uri, what, hint) in [
        (
            good.replace("token=ca", "token=cb"),
            "no token `cb` is there",
            "pkcs11-tool",
        ),
        (
            good.replace("object=issuing", "object=none"),
            "holds no private key `none`",
            "pkcs11-tool",
        ),
        (
            module_path(&good),
            "cannot use the PKCS#11 module `/nowhere.so`",
            "module-path",
        ),
        (format!("{good}&pin-value={PIN}"), "holds a PIN", ""),
        (
            good.replace("/pin", "/word"),
            "refuses the PIN",
            "not tried again",
        ),
        (good.replace("/pin", "/nopin"), "cannot read", ""),
    ] {
        hsm.private("ca/issuing.key", &format!("{uri}\n"));
        let refused = hsm.ca(&["crl"]);
        assert!(refused.code > 0, "{uri}: {}", refused.err);
        assert!(
            refused.err.contains(what) && refused.err.contains(hint),
            "{}",
            refused.err
        );
        assert!(!refused.err.contains(PIN), "{}", refused.err);
        hsm.private("ca/issuing.key", &format!("{good}\n"));
        hsm.ca(&["crl"]).ok();
    }
    // The PIN can come from where a passphrase comes from, and then the file of it is private too.
    let (bare, _) = good.split_once("&pin-source").unwrap();
    hsm.private("ca/issuing.key", &format!("{bare}\n"));
    hsm.private("word", PIN);
    hsm.ca(&["crl"]).ok();
    let unlike = hsm
        .command(crate::support::program::PROGRAM)
        .args(["ca", "crl", "--ca", "ca", "--registry", "registry.db"])
        .env("COUNTERSIGN_CA_PASSPHRASE", PIN)
        .output()
        .unwrap();
    assert!(unlike.status.success(), "{unlike:?}");
    hsm.private("word", "secret\n");
    // A key that is of another certificate.
    hsm.ca(&["init", "--dir", "ca2", "--issuing-key", &hsm.uri("another")])
        .ok();
    hsm.private("ca/issuing.key", &format!("{}\n", hsm.uri("another")));
    let refused = hsm.ca(&["crl"]);
    assert!(
        refused.err.contains("does not belong to the certificate"),
        "{}",
        refused.err
    );
}

#[test]
fn a_server_signs_its_handshakes_in_the_token() {
    let Some(hsm) = Hsm::new() else { return };
    with_ca(&hsm);
    agent(&hsm);
    for (object, kind, schemes) in [
        ("p256", "EC:prime256v1", &["ECDSA+SHA256"][..]),
        ("p384", "EC:secp384r1", &["ECDSA+SHA384"]),
        (
            "rsa",
            "rsa:2048",
            &[
                "rsa_pss_rsae_sha256",
                "rsa_pss_rsae_sha384",
                "rsa_pss_rsae_sha512",
            ],
        ),
        ("ed25519", "EC:edwards25519", &["ed25519"]),
    ] {
        if !hsm.make_key(object, kind) {
            return;
        }
        let (server, address) = hsm.serve(object, "compatible");
        let said = hsm
            .client(address, &["call", "files__read_file", "path=a.txt"])
            .ok();
        assert!(said.contains("of a file"), "{said}");
        let port = address.port().to_string();
        let target = format!("localhost:{port}");
        let shake = |version: &str, scheme: &str| {
            hsm.openssl(&[
                "s_client",
                "-connect",
                &target,
                "-cert",
                "out/agent.crt",
                "-key",
                "out/agent.key",
                "-cert_chain",
                "out/agent.crt",
                "-CAfile",
                "ca/root.crt",
                "-verify_return_error",
                "-brief",
                version,
                "-sigalgs",
                scheme,
            ])
        };
        for scheme in schemes {
            // The client's own certificate is ECDSA.
            let offered = match *scheme {
                "ECDSA+SHA256" => String::from("ECDSA+SHA256"),
                scheme => format!("{scheme}:ECDSA+SHA256"),
            };
            let (good, said) = shake("-tls1_3", &offered);
            assert!(
                good && said.contains("Verification: OK"),
                "{object} {scheme}: {said}"
            );
        }
        let old = match object {
            "rsa" => "RSA+SHA256:ECDSA+SHA256",
            "p384" => "ECDSA+SHA384:ECDSA+SHA256",
            "ed25519" => "ed25519:ECDSA+SHA256",
            _ => "ECDSA+SHA256",
        };
        let (good, said) = shake("-tls1_2", old);
        assert!(good, "{object}: {said}");
        let said = server.end();
        let log = std::fs::read_to_string(hsm.path(&format!("audit-{object}.jsonl"))).unwrap();
        hsm.holds_no_pin(&[&said, &log]);
    }
}

#[test]
fn a_server_does_not_start_with_a_wrong_pin_and_keeps_its_key_when_a_reload_fails() {
    let Some(hsm) = Hsm::new() else { return };
    with_ca(&hsm);
    agent(&hsm);
    if !hsm.make_key("gateway", "EC:prime256v1") {
        return;
    }
    let (server, address) = hsm.serve("gateway", "modern");
    hsm.client(address, &["ping"]).ok();
    server.end();
    hsm.private("pin", "00000000");
    let refused = hsm.run(&["serve", "--config", "countersign.toml"]);
    assert!(refused.code > 0, "{}", refused.err);
    assert!(refused.err.contains("refuses the PIN"), "{}", refused.err);
    assert!(!refused.err.contains("00000000"), "{}", refused.err);
    hsm.private("pin", PIN);
    let serve = ["serve", "--config", "countersign.toml"];
    let server = hsm.start(&serve, "listening");
    hsm.client(address, &["ping"]).ok();
    hsm.private("pin", "00000000");
    // Whatever a reload finds, the key that works goes on.
    let hang_up = std::process::Command::new("kill")
        .args(["-s", "HUP", &server.child.id().to_string()])
        .status();
    assert!(hang_up.unwrap().success());
    for _ in 0..3 {
        hsm.client(address, &["ping"]).ok();
    }
    hsm.private("pin", PIN);
    hsm.holds_no_pin(&[&server.end()]);
}

/// A client that keeps its connection: `connect`, spoken to line by line.
struct Session {
    child: std::process::Child,
    answers: std::io::Lines<BufReader<std::process::ChildStdout>>,
    next: u64,
}

impl Session {
    fn open(hsm: &Hsm, address: std::net::SocketAddr) -> Self {
        let server = format!("localhost:{}", address.port());
        let mut child = hsm
            .command(crate::support::program::PROGRAM)
            .args([
                "connect", "--server", &server, "--pki", "out", "--as", "agent",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let mut session = Self {
            child,
            answers: std::io::BufRead::lines(answers),
            next: 0,
        };
        let hello = session.ask(
            "initialize",
            r#"{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"0"}}"#,
        );
        assert!(hello["result"].is_object(), "{hello}");
        session
    }

    fn ask(&mut self, method: &str, params: &str) -> Value {
        self.next += 1;
        let line = format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"{method}\",\"params\":{params}}}\n",
            self.next
        );
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(line.as_bytes()).unwrap();
        serde_json::from_str(&self.answers.next().unwrap().unwrap()).unwrap()
    }

    fn works(&mut self) {
        let read = r#"{"name":"files__read_file","arguments":{"path":"a.txt"}}"#;
        let answer = self.ask("tools/call", read);
        assert!(answer.to_string().contains("of a file"), "{answer}");
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_token_that_hangs_or_goes_refuses_handshakes_and_disturbs_nobody_who_is_in() {
    let Some(mut hsm) = Hsm::new() else { return };
    with_ca(&hsm);
    agent(&hsm);
    if !hsm.make_key("gateway", "EC:prime256v1") {
        return;
    }
    let Some(mut remote) = hsm.behind_a_process() else {
        return;
    };
    let (server, address) = hsm.serve("gateway", "modern");
    hsm.client(address, &["ping"]).ok();
    let mut inside = Session::open(&hsm, address);
    inside.works();
    let recorded = |what: &str| {
        let log = std::fs::read_to_string(hsm.path("audit-gateway.jsonl")).unwrap();
        log.lines().filter(|line| line.contains(what)).count()
    };

    // It hangs: nobody gets in, the reason is on record, and whoever is in notices nothing. The
    // second one is refused at once.
    remote.signal("STOP");
    for times in 1..=2 {
        let refused = hsm.client(address, &["ping"]);
        assert_ne!(refused.code, 0, "{}", refused.out);
        inside.works();
        assert!(recorded("has not answered for 5 s") >= times);
    }
    // It is back, without a restart.
    remote.signal("CONT");
    let back = (0..200).any(|_| hsm.client(address, &["ping"]).code == 0);
    assert!(back);
    inside.works();

    // It is gone, and comes again.
    remote.signal("KILL");
    let refused = hsm.client(address, &["ping"]);
    assert_ne!(refused.code, 0, "{}", refused.out);
    inside.works();
    assert!(recorded("the token `ca`") > 2);
    remote.again(&hsm);
    hsm.client(address, &["ping"]).ok();
    inside.works();
    hsm.holds_no_pin(&[&server.end()]);
}

#[test]
fn a_ca_with_a_hung_token_signs_nothing_and_says_so() {
    let Some(mut hsm) = Hsm::new() else { return };
    with_ca(&hsm);
    let Some(remote) = hsm.behind_a_process() else {
        return;
    };
    hsm.private("ca/issuing.key", &format!("{}\n", hsm.uri("issuing")));
    agent(&hsm);
    remote.signal("STOP");
    let refused = hsm.ca(&["issue", "late", "--grant", "*", "--out", "out"]);
    assert!(refused.code > 0, "{}", refused.err);
    assert!(refused.err.contains("has not answered"), "{}", refused.err);
    assert!(!hsm.path("out/late.crt").exists());
    remote.signal("CONT");
    let listed = hsm.ca(&["list", "--all"]).ok();
    assert!(
        listed.contains("agent") && !listed.contains("late"),
        "{listed}"
    );
    hsm.ca(&["issue", "late", "--grant", "*", "--out", "out"])
        .ok();
}

#[test]
fn ca_serve_enrols_with_its_key_in_the_token_and_renews_a_client_s_key_there() {
    let Some(hsm) = Hsm::new() else { return };
    with_ca(&hsm);
    if !hsm.make_key("agent", "EC:prime256v1") {
        return;
    }
    let serve = [
        "--log",
        "trace",
        "ca",
        "serve",
        "--ca",
        "ca",
        "--registry",
        "registry.db",
        "--passphrase-file",
        "word",
        "--listen",
        "127.0.0.1:0",
        "--crl-listen",
        "127.0.0.1:0",
    ];
    let server = hsm.start(&serve, "issuing.crl and");
    let invited = hsm
        .ca(&["invite", "joined", "--grant", "*", "--json"])
        .json();
    let token = invited["token"].as_str().unwrap_or_default().to_owned();
    hsm.run(&["join", &token, "--out", "joined"]).ok();
    verify_by_openssl(&hsm, "joined/joined.crt");

    // A client whose key is in the token: the certificate is replaced, the key stays.
    let uri = hsm.uri("agent");
    let issue = [
        "issue", "agent", "--grant", "*", "--out", "out", "--key", &uri,
    ];
    hsm.ca(&issue).ok();
    assert_eq!(
        std::fs::read_to_string(hsm.path("out/agent.key"))
            .unwrap()
            .trim_end(),
        uri
    );
    let address = std::fs::read_to_string(hsm.path("ca/serve.address")).unwrap();
    let note = format!("address = \"{}\"\n", address.trim());
    std::fs::write(hsm.path("out/agent.renew.toml"), note).unwrap();
    let before = std::fs::read(hsm.path("out/agent.crt")).unwrap();
    for key in ["out/agent.key", &uri] {
        let renew = [
            "renew",
            "--cert",
            "out/agent.crt",
            "--key",
            key,
            "--ca",
            "out/ca.pem",
        ];
        hsm.run(&renew).ok();
    }
    assert_ne!(std::fs::read(hsm.path("out/agent.crt")).unwrap(), before);

    // One that joins with a key in the token, which is made there; and then renews it.
    let invite = |name: &str| {
        let invited = hsm.ca(&["invite", name, "--grant", "*", "--json"]).json();
        invited["token"].as_str().unwrap_or_default().to_owned()
    };
    let (token, uri) = (invite("held"), hsm.uri("held"));
    hsm.run(&["join", &token, "--out", "held", "--key", &uri])
        .ok();
    let written = |name: &str| std::fs::read_to_string(hsm.path(name)).unwrap();
    assert_eq!(written("held/held.key").trim_end(), uri);
    verify_by_openssl(&hsm, "held/held.crt");
    let before = written("held/held.crt");
    let held = ["--cert", "held/held.crt", "--key", "held/held.key"];
    hsm.run(&[&["renew"][..], &held, &["--ca", "held/ca.pem"]].concat())
        .ok();
    assert_ne!(written("held/held.crt"), before);
    assert_eq!(written("held/held.key").trim_end(), uri);
    // Nothing is used up, and nothing written, where the token cannot be had; then the same
    // invitation is good for the PIN from a file.
    let (token, (bare, _)) = (invite("second"), uri.split_once("&pin-source").unwrap());
    let join = ["join", &token, "--out", "second", "--key", bare];
    hsm.private("wrong", "00000000");
    let refused = hsm.run(&[&join[..], &["--key-passphrase-file", "wrong"]].concat());
    assert!(refused.err.contains("refuses the PIN"), "{}", refused.err);
    assert!(!hsm.path("second").exists());
    hsm.run(&[&join[..], &["--key-passphrase-file", "pin"]].concat())
        .ok();
    hsm.holds_no_pin(&[&server.end()]);
}

#[test]
fn a_delegate_signs_offline_with_its_key_in_the_token() {
    let Some(hsm) = Hsm::new() else { return };
    hsm.ca(&["init"]).ok();
    let uri = hsm.uri("farm");
    let delegate = [
        "delegate", "farm", "--grant", "tools:a*", "--ttl", "1h", "--key", "ed25519",
    ];
    let out = ["--out", "farm", "--issuing-key", &uri];
    hsm.ca(&[&delegate[..], &out].concat()).ok();
    let held = std::fs::read_to_string(hsm.path("farm/issuing.key")).unwrap();
    assert_eq!(held.trim_end(), uri);
    let issue = |grant: &str| {
        let issue = ["ca", "issue", "worker", "--ca", "farm", "--offline"];
        hsm.run(&[&issue[..], &["--grant", grant, "--out", "worker"]].concat())
    };
    let refused = issue("tools:b");
    assert!(refused.code > 0, "{}", refused.out);
    issue("tools:ab").ok();
    let (good, said) = hsm.openssl(&[
        "verify",
        "-x509_strict",
        "-CAfile",
        "ca/root.crt",
        "-untrusted",
        "farm/issuing.crt",
        "worker/worker.crt",
    ]);
    assert!(good, "{said}");
    hsm.holds_no_pin(&[]);
}
