//! Judged by GnuTLS, a verifier that shares no code with OpenSSL or webpki; where `certtool` is
//! installed (`scripts/check` installs it), at the real time, for it knows no other.

use std::fs;
use std::process::{Command, Stdio};

use super::bench::{Ask, Bench, new_authority, secret};
use crate::ca::{Authority, create, issue, write_crl};
use crate::cert::{DEFAULT_PERMISSION_OID, KeyKind};
use crate::clock::unix_now;
use crate::registry::{Reason, Revocation, Store};

/// Whether it was content, and what it said; `None` where it is not installed.
fn certtool(arguments: &[&str]) -> Option<(bool, String)> {
    let output = Command::new("certtool")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let said = [output.stdout, output.stderr].concat();
    Some((
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    ))
}

#[tokio::test]
async fn gnutls_accepts_and_refuses_as_we_do() {
    if certtool(&["--version"]).is_none() {
        eprintln!("certtool is not installed: nothing was judged");
        return;
    }
    for kind in [KeyKind::P256, KeyKind::P384, KeyKind::Ed25519] {
        let (bench, now) = (Bench::empty().await, unix_now());
        let word = secret();
        let created = create(
            &bench.files,
            new_authority(&word, kind),
            &bench.store,
            "me",
            now,
        )
        .await
        .unwrap();
        let ca = created.issuing;
        let mut issued = Vec::new();
        for name in ["good", "bad"] {
            let ask = Ask {
                now,
                ..Ask::agent(name, &["tools:*"])
            };
            let signed = ask.sign(&ca).unwrap();
            issued.push(issue(&bench.store, signed, "me", now).await.unwrap());
        }
        let judge = |at: usize| {
            let chain = bench.path("chain.pem");
            let crls = [bench.files.issuing_crl(), bench.files.root_crl()];
            let crls: String = crls
                .iter()
                .map(|crl| fs::read_to_string(crl).unwrap())
                .collect();
            fs::write(
                &chain,
                issued[at].chain_pem() + &issued[at].root_pem() + &crls,
            )
            .unwrap();
            certtool(&["--verify-chain", "--infile", chain.to_str().unwrap()]).unwrap()
        };
        for at in [0, 1] {
            let (accepted, said) = judge(at);
            assert!(accepted, "{kind}: {said}");
        }
        let plain = bench.write("good", &issued[0]);
        let root = bench.files.root_certificate();
        let arguments = [
            "--verify",
            "--load-ca-certificate",
            root.to_str().unwrap(),
            "--infile",
        ];
        let plain = [&arguments[..], &[plain.to_str().unwrap()]].concat();
        let (accepted, said) = certtool(&plain).unwrap();
        assert!(accepted, "{kind}: {said}");

        let why = Revocation {
            at: now,
            reason: Reason::KeyCompromise,
            by: "me".to_owned(),
        };
        bench
            .store
            .revoke(issued[1].enrolment.fingerprint, &why)
            .await
            .unwrap();
        write_crl(&ca, &bench.files.issuing_crl(), &bench.store, now)
            .await
            .unwrap();
        assert!(judge(0).0, "{kind}: {}", judge(0).1);
        let (accepted, said) = judge(1);
        assert!(!accepted && said.contains("revoked"), "{kind}: {said}");
        // The issuing CA itself: everything below goes.
        bench.store.revoke(ca.fingerprint(), &why).await.unwrap();
        let root = Authority::root(&bench.files, &|_| Ok(secret()), DEFAULT_PERMISSION_OID);
        let crl = bench.files.root_crl();
        write_crl(&root.unwrap(), &crl, &bench.store, now)
            .await
            .unwrap();
        assert!(!judge(0).0, "{kind}: {}", judge(0).1);
    }
}
