//! What no profile believes, with certificates that OpenSSL made and an OpenSSL client that shows
//! them: the good twin first. And that what was agreed on is on record.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use countersign::identity::Name;
use countersign::registry::Standing;
use countersign::tls::{Class, Identity, IdentityError, Profile, Trust};
use tokio::process::Command;

use crate::support::echo::{House, Open, anchor};
use crate::support::program::Program;

/// Runs `openssl` in this folder.
fn openssl(folder: &Path, arguments: &str) {
    let done = std::process::Command::new("openssl")
        .args(arguments.split_whitespace())
        .current_dir(folder)
        .output()
        .expect("openssl is installed");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "openssl {arguments}: {said}");
}

/// A CA of OpenSSL's own, and a house that trusts it.
struct Authority {
    folder: PathBuf,
}

impl Authority {
    fn new(house: &mut House, key: &str) -> Self {
        let folder = house.folder.path().join("openssl");
        std::fs::create_dir_all(&folder).unwrap();
        let request = format!(
            "req -x509 {key} -sha256 -nodes -keyout ca.key -out ca.pem -days 1 -subj /CN=openssl \
             -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign"
        );
        openssl(&folder, &request);
        house.anchors = vec![anchor("ours", folder.join("ca.pem"))];
        Self { folder }
    }

    /// A certificate `name.pem` with `name.key`, signed by `issuer`.
    fn sign(&self, name: &str, key: &str, more: &str, extensions: &str, issuer: &str) {
        let serial = 0x7000 + name.len();
        std::fs::write(self.folder.join("extensions"), extensions).unwrap();
        let request =
            format!("req {key} -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}");
        openssl(&self.folder, &request);
        let sign = format!(
            "x509 -req -in {name}.csr -CA {issuer}.pem -CAkey {issuer}.key -days 1 {more} \
             -extfile extensions -set_serial {serial} -out {name}.pem"
        );
        openssl(&self.folder, &sign);
    }

    /// A CA below the root.
    fn middle(&self, name: &str, key: &str) {
        let extensions = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n";
        self.sign(name, key, "-sha256", extensions, "ca");
    }

    fn client(&self, house: &House, name: &str, key: &str, digest: &str) {
        self.client_of(house, name, key, digest, "ca");
    }

    /// A client's certificate, enrolled.
    fn client_of(&self, house: &House, name: &str, key: &str, digest: &str, issuer: &str) {
        let extensions = format!(
            "subjectAltName=URI:spiffe://example.org/{name}\nextendedKeyUsage=clientAuth\n\
             basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n"
        );
        self.sign(name, key, digest, &extensions, issuer);
        let chain =
            countersign::cert::load_chain(&self.folder.join(format!("{name}.pem"))).unwrap();
        let outline = countersign::registry::Outline {
            fingerprint: countersign::identity::Fingerprint::of_der(&chain[0]),
            kind: countersign::registry::EnrolmentKind::External,
            name: Name::new(&format!("spiffe://example.org/{name}")).unwrap(),
            grants: crate::support::echo::grants(&["tools:*"]),
            not_after: countersign::clock::UnixTime(i64::MAX),
            pinned: true,
            revoked: false,
        };
        house.view.apply(std::slice::from_ref(&outline));
        assert!(matches!(
            house.view.standing(&outline.fingerprint),
            Standing::Pinned(_)
        ));
    }

    /// Shows `name`'s certificate, with OpenSSL's own scruples switched off.
    async fn knock(&self, open: &Open, name: &str, more: &str) {
        let arguments = format!(
            "s_client -connect {} -cert {name}.pem -key {name}.key -cipher DEFAULT:@SECLEVEL=0 -quiet \
             -no_ign_eof {more}",
            open.address
        );
        let mut client = Command::new("openssl")
            .args(arguments.split_whitespace())
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl is installed");
        client.wait().await.unwrap();
    }
}

const EC: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256";

#[tokio::test]
async fn short_rsa_keys_and_sha_1_are_refused_in_every_profile() {
    for (profile, version) in [
        (Profile::Modern, "-tls1_3"),
        (Profile::Compatible, "-tls1_3"),
        (Profile::Compatible, "-tls1_2"),
    ] {
        let mut house = House::new();
        house.tls.profile = profile;
        let authority = Authority::new(&mut house, EC);
        authority.client(&house, "good", "-newkey rsa:2048", "-sha256");
        authority.client(&house, "short", "-newkey rsa:1024", "-sha256");
        authority.client(&house, "sha-1", "-newkey rsa:2048", "-sha1");
        let mut open = house.open().await;

        authority.knock(&open, "good", version).await;
        assert_eq!(
            open.admitted().await.name().as_str(),
            "spiffe://example.org/good"
        );
        open.ended().await;

        authority.knock(&open, "short", version).await;
        let refusal = open.refused().await;
        assert_eq!(refusal.class, Class::BadCertificate, "{refusal}");
        assert!(refusal.reason.contains("1024 bits"), "{refusal}");

        authority.knock(&open, "sha-1", version).await;
        let refusal = open.refused().await;
        assert_eq!(refusal.class, Class::BadCertificate, "{refusal}");
        assert!(refusal.reason.contains("ecdsa-with-SHA1"), "{refusal}");
        assert!(refusal.reason.contains("no profile"), "{refusal}");
    }
}

const PSS: &str = "-sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest";

#[tokio::test]
async fn what_a_short_key_signed_is_refused() {
    for (profile, digest) in [(Profile::Modern, PSS), (Profile::Compatible, "-sha256")] {
        let mut house = House::new();
        house.tls.profile = profile;
        let authority = Authority::new(&mut house, EC);
        for (middle, key) in [("long", "-newkey rsa:2048"), ("short", "-newkey rsa:1024")] {
            authority.middle(middle, key);
            authority.client_of(&house, &format!("of-{middle}"), EC, digest, middle);
        }
        let mut open = house.open().await;
        authority
            .knock(&open, "of-long", "-cert_chain long.pem")
            .await;
        open.admitted().await;
        open.ended().await;
        authority
            .knock(&open, "of-short", "-cert_chain short.pem")
            .await;
        let refusal = open.refused().await;
        assert_eq!(refusal.class, Class::BadCertificate, "{refusal}");
        assert!(
            refusal.reason.contains("`short` has 1024 bits"),
            "{refusal}"
        );
    }
}

/// Who signs and how, whether `modern` and `compatible` believe it, and what the refusal names.
const SIGNED: [(&str, &str, &str, [bool; 2], &str); 7] = [
    ("pss", "-newkey rsa:2048", PSS, [true, true], ""),
    (
        "pkcs-1",
        "-newkey rsa:2048",
        "-sha256",
        [false, true],
        "sha256WithRSAEncryption, which the profile `modern` does not accept (`compatible` does)",
    ),
    ("p256-256", EC, "-sha256", [true, true], ""),
    ("p384-384", P384, "-sha384", [true, true], ""),
    (
        "p384-256",
        P384,
        "-sha256",
        [false, true],
        "ecdsa-with-SHA256 with a kind of key that the profile `modern` does not accept there",
    ),
    ("ed25519", "-newkey ed25519", "", [true, true], ""),
    (
        "p521-512",
        P521,
        "-sha512",
        [false, P521_KNOWN],
        "ecdsa-with-SHA512, which",
    ),
];

const P384: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-384";
const P521: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-521";
/// `ring` has no P-521.
const P521_KNOWN: bool = cfg!(feature = "post-quantum");

#[tokio::test]
async fn each_profile_believes_the_signatures_of_its_own_list() {
    for (at, profile) in [Profile::Modern, Profile::Compatible].iter().enumerate() {
        let mut house = House::new();
        house.tls.profile = *profile;
        let authority = Authority::new(&mut house, EC);
        for (name, key, digest, ..) in SIGNED {
            authority.middle(name, key);
            authority.client_of(&house, &format!("of-{name}"), EC, digest, name);
        }
        let mut open = house.open().await;
        for (name, _, _, believed, named) in SIGNED {
            let more = format!("-cert_chain {name}.pem");
            authority.knock(&open, &format!("of-{name}"), &more).await;
            if believed[at] {
                let name = format!("spiffe://example.org/of-{name}");
                assert_eq!(open.admitted().await.name().as_str(), name);
                open.ended().await;
                continue;
            }
            let refusal = open.refused().await;
            assert_eq!(refusal.class, Class::BadCertificate, "{name}: {refusal}");
            assert!(refusal.reason.contains(named), "{name}: {refusal}");
        }
    }
}

#[tokio::test]
async fn each_profile_takes_the_keys_of_its_own_list_in_the_handshake() {
    for (profile, version, p521) in [
        (Profile::Modern, "-tls1_3", false),
        (Profile::Compatible, "-tls1_3", P521_KNOWN),
        (Profile::Compatible, "-tls1_2", P521_KNOWN),
    ] {
        let mut house = House::new();
        house.tls.profile = profile;
        let authority = Authority::new(&mut house, EC);
        for (name, key) in [
            ("p256", EC),
            ("p384", P384),
            ("edwards", "-newkey ed25519"),
            ("rsa", "-newkey rsa:2048"),
            ("p521", P521),
        ] {
            authority.client(&house, name, key, "-sha256");
            let mut open = house.open().await;
            authority.knock(&open, name, version).await;
            if name == "p521" && !p521 {
                let refusal = open.refused().await;
                // In TLS 1.2 a scheme fixes no curve, so the client tries.
                let class = match version {
                    "-tls1_2" => Class::BadCertificate,
                    _ => Class::NoCertificate,
                };
                assert_eq!(refusal.class, class, "{profile}: {refusal}");
            } else {
                let name = format!("spiffe://example.org/{name}");
                assert_eq!(open.admitted().await.name().as_str(), name, "{profile}");
            }
        }
    }
}

#[test]
fn a_short_key_is_no_trust_anchor() {
    for (bits, trusted) in [(2048, true), (1024, false)] {
        let mut house = House::new();
        Authority::new(&mut house, &format!("-newkey rsa:{bits}"));
        let oid = countersign::cert::DEFAULT_PERMISSION_OID;
        let loaded = Trust::load(&house.anchors, oid, house.view.clone(), Profile::Compatible);
        assert_eq!(loaded.is_ok(), trusted);
        if let Err(errors) = loaded {
            assert!(errors[0].to_string().contains("1024 bits"), "{}", errors[0]);
        }
    }
}

#[tokio::test]
async fn a_server_does_not_start_with_a_short_key() {
    let mut house = House::new();
    let authority = Authority::new(&mut house, EC);
    let load = |name: &str| {
        let file = |ending: &str| authority.folder.join(format!("{name}.{ending}"));
        Identity::load(&file("pem"), &file("key"), None)
    };
    for (name, key) in [("long", "-newkey rsa:2048"), ("short", "-newkey rsa:1024")] {
        authority.client(&house, name, key, "-sha256");
    }
    load("long").unwrap();
    assert!(matches!(load("short"), Err(IdentityError::File { .. })));
}

#[tokio::test]
async fn what_another_implementation_agrees_on_is_known() {
    for (profile, p384) in [(Profile::Modern, false), (Profile::Compatible, true)] {
        let mut house = House::new();
        house.tls.profile = profile;
        let authority = Authority::new(&mut house, EC);
        authority.client(&house, "agent", EC, "-sha256");
        let mut open = house.open().await;
        for (groups, agreed) in [
            ("X25519", Some("x25519")),
            ("P-256", Some("secp256r1")),
            (
                "P-384:P-256",
                Some(if p384 { "secp384r1" } else { "secp256r1" }),
            ),
            ("P-384", p384.then_some("secp384r1")),
            ("P-521", None),
        ] {
            authority
                .knock(&open, "agent", &format!("-groups {groups}"))
                .await;
            let Some(agreed) = agreed else {
                let refusal = open.refused().await;
                assert_eq!(refusal.class, Class::Protocol, "{groups}: {refusal}");
                continue;
            };
            let peer = open.admitted().await;
            assert_eq!(
                (peer.agreed().group, peer.agreed().version),
                (agreed, "TLSv1.3"),
                "{profile}, {groups}"
            );
            assert!(
                peer.agreed().suite.starts_with("TLS_"),
                "{:?}",
                peer.agreed()
            );
            open.ended().await;
        }
    }
}

#[tokio::test]
async fn doctor_and_the_audit_log_name_the_group_and_the_suite() {
    let program = Program::start(|_| ()).await;
    let person = program.person("agent", &["tools:*"]);
    let done = program
        .command(&person, &["doctor"])
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{said}");
    let admitted = program
        .recorded(|record| record["event"] == "admitted")
        .await;
    let field = |name: &str| admitted[name].as_str().unwrap().to_owned();
    let (version, suite, group) = (field("tls"), field("suite"), field("group"));
    assert_eq!(
        (version.as_str(), suite.starts_with("TLS_")),
        ("TLSv1.3", true),
        "{admitted}"
    );
    #[cfg(feature = "post-quantum")]
    assert_eq!(group, "X25519MLKEM768");
    #[cfg(not(feature = "post-quantum"))]
    assert_eq!(group, "x25519");
    assert!(
        said.contains(&format!("{version}, {suite}, {group}")),
        "{said}"
    );
}
