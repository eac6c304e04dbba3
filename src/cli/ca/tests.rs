//! The commands from their arguments to their answers.

use std::path::Path;

use clap::Parser;
use serde_json::Value;

use super::{CaCommand, CaCommandError, Settings};
use crate::cert::DEFAULT_PERMISSION_OID;
use crate::cli::pin::PinCommand;
use crate::clock::UnixTime;

const NOW: UnixTime = UnixTime(1_800_000_000);

#[derive(Parser)]
struct Ca {
    #[command(flatten)]
    command: CaCommand,
}

#[derive(Parser)]
struct Pin {
    #[command(flatten)]
    command: PinCommand,
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        crate::cert::write_atomic(&folder.path("word"), b"correct horse\n", 0o600).unwrap();
        folder
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn settings(&self) -> Settings {
        Settings {
            registry: self.path("registry.db").into(),
            permission_oid: DEFAULT_PERMISSION_OID.to_owned(),
            roles: crate::grant::Roles::new(),
        }
    }

    fn words(&self, line: &str) -> Vec<String> {
        let here = self.0.path().to_str().unwrap();
        line.split_whitespace()
            .map(|word| word.replace("HERE", here))
            .collect()
    }

    async fn ca(&self, line: &str) -> Result<(Value, String), CaCommandError> {
        let line = format!("ca {line} --ca HERE/ca --passphrase-file HERE/word");
        let Ca { command } = Ca::try_parse_from(self.words(&line)).unwrap();
        let outcome = command.run(&self.settings(), NOW).await?;
        Ok((serde_json::to_value(&outcome).unwrap(), outcome.human()))
    }

    async fn pin(&self, line: &str) -> Result<(Value, String), CaCommandError> {
        let Pin { command } = Pin::try_parse_from(self.words(&format!("pin {line}"))).unwrap();
        let outcome = command.run(&self.settings(), NOW).await?;
        Ok((serde_json::to_value(&outcome).unwrap(), outcome.human()))
    }
}

#[tokio::test]
async fn from_init_to_crl() {
    let folder = Folder::new();
    let (json, human) = folder.ca("init --trust-domain example.org").await.unwrap();
    assert_eq!(json["trust_domain"], "example.org");
    assert!(
        human.contains(json["root_fingerprint"].as_str().unwrap()),
        "{human}"
    );

    let (issued, human) = folder
        .ca("issue team/bob --grant tools:files__read_* --ttl 12h --out HERE/bob")
        .await
        .unwrap();
    assert_eq!(issued["name"], "spiffe://example.org/team/bob");
    assert_eq!(issued["grants"], serde_json::json!(["tools:files__read_*"]));
    assert_eq!(
        (&issued["status"], &issued["remaining"]),
        (&"live".into(), &"12 h left".into())
    );
    assert_eq!(issued["remaining_seconds"], 12 * 3600);
    assert!(human.contains("tools:files__read_*"), "{human}");
    for file in ["bob.crt", "bob.key", "ca.pem"] {
        assert!(folder.path("bob").join(file).exists(), "{file}");
    }
    let uri = "issue spiffe://example.org/eve --role reader --out HERE/eve";
    let (eve, _) = folder.ca(uri).await.unwrap();
    assert!(
        eve["notes"][0]
            .as_str()
            .unwrap()
            .contains("`reader` is not defined here"),
        "{eve}"
    );

    let (list, human) = folder.ca("list").await.unwrap();
    let names: Vec<&str> = list["certificates"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names[..2],
        ["spiffe://example.org/eve", "spiffe://example.org/team/bob"]
    );
    assert!(
        human.starts_with("NAME") || human.starts_with(" NAME"),
        "{human}"
    );
    assert!(
        human.contains("12 h left") && !human.contains('\u{1b}'),
        "{human}"
    );
    assert_eq!(folder.ca("list --limit 1").await.unwrap().0["more"], true);

    let (shown, _) = folder.ca("show bob").await.unwrap();
    assert_eq!(shown["fingerprint"], issued["fingerprint"]);
    assert!(
        shown["pem"]
            .as_str()
            .unwrap()
            .starts_with("-----BEGIN CERTIFICATE-----")
    );

    let (revoked, human) = folder
        .ca("revoke bob --reason key-compromise --wait 1ms")
        .await
        .unwrap();
    assert_eq!(revoked["status"], "revoked");
    assert_eq!(revoked["revocation"]["reason"], "keyCompromise");
    assert_eq!(revoked["crl"]["entries"], 1);
    assert_eq!(revoked["servers"]["live"], 0);
    assert!(human.contains("no server is running"), "{human}");
    let again = format!("revoke {}", issued["serial"].as_str().unwrap());
    assert_eq!(folder.ca(&again).await.unwrap().0["already"], true);
    let count = |list: &Value| list["certificates"].as_array().unwrap().len();
    let (live, all) = (
        folder.ca("list").await.unwrap().0,
        folder.ca("list --all").await.unwrap().0,
    );
    assert_eq!(count(&all), count(&live) + 1);

    let number = folder.ca("crl").await.unwrap().0["number"]
        .as_u64()
        .unwrap();
    assert!(number > revoked["crl"]["number"].as_u64().unwrap());
}

#[tokio::test]
async fn a_revocation_holds_also_where_the_key_does_not_open() {
    let folder = Folder::new();
    folder.ca("init").await.unwrap();
    folder
        .ca("issue bob --grant tools:a --out HERE/bob")
        .await
        .unwrap();
    crate::cert::write_atomic(&folder.path("word"), b"wrong", 0o600).unwrap();
    let (json, human) = folder.ca("revoke bob --wait 1ms").await.unwrap();
    assert_eq!(
        (&json["status"], &json["crl"]),
        (&"revoked".into(), &Value::Null)
    );
    assert!(human.contains("the CRL was not written"), "{human}");
}

#[tokio::test]
async fn mistakes_have_a_hint() {
    let folder = Folder::new();
    let refused = async |line: &str| {
        let error = folder.ca(line).await.unwrap_err();
        (error.to_string(), error.hint().unwrap_or_default())
    };
    let (error, hint) = refused("list").await;
    assert!(
        error.contains("registry.db") && hint.contains("ca init"),
        "{error} {hint}"
    );
    folder.ca("init").await.unwrap();
    assert!(refused("init").await.1.contains("--dir"));
    let (error, hint) = refused("issue bob").await;
    assert!(
        error.contains("at least one grant") && hint.contains("--grant"),
        "{error} {hint}"
    );
    assert!(
        refused("issue s --profile server")
            .await
            .1
            .contains("--dns")
    );
    assert!(
        refused("issue spiffe://other/bob --grant tools:a")
            .await
            .1
            .contains("spiffe://countersign.internal/")
    );
    assert!(refused("show nobody").await.1.contains("ca list"));
    folder
        .ca("issue bob --grant tools:a --out HERE/bob")
        .await
        .unwrap();
    assert!(
        refused("issue bob --grant tools:a --out HERE/bob")
            .await
            .1
            .contains("--replace")
    );
    folder
        .ca("issue bob --grant tools:a --out HERE/bob --replace")
        .await
        .unwrap();
}

#[tokio::test]
async fn pins_come_and_go() {
    let folder = Folder::new();
    let mut parameters = rcgen::CertificateParams::new(vec!["partner.example".to_owned()]).unwrap();
    parameters.not_before = time::OffsetDateTime::from_unix_timestamp(NOW.0 - 60).unwrap();
    parameters.not_after = time::OffsetDateTime::from_unix_timestamp(NOW.0 + 7200).unwrap();
    let certificate = parameters
        .self_signed(&rcgen::KeyPair::generate().unwrap())
        .unwrap();
    std::fs::write(folder.path("partner.pem"), certificate.pem()).unwrap();

    let error = folder
        .pin("add HERE/partner.pem --grant tools:a")
        .await
        .unwrap_err();
    assert!(error.hint().unwrap().contains("--identity-from"), "{error}");
    let line = "add HERE/partner.pem --identity-from dns --grant tools:a --ttl 1h";
    let (pinned, _) = folder.pin(line).await.unwrap();
    assert_eq!(
        (&pinned["name"], &pinned["pinned"]),
        (&"partner.example".into(), &true.into())
    );
    assert_eq!(pinned["pin_grants"], serde_json::json!(["tools:a"]));
    assert_eq!(pinned["remaining_seconds"], 3600);
    let count = async || {
        folder.pin("list").await.unwrap().0["certificates"]
            .as_array()
            .unwrap()
            .len()
    };
    assert_eq!(count().await, 1);
    let (removed, human) = folder
        .pin("remove partner.example --wait 1ms")
        .await
        .unwrap();
    assert_eq!(removed["pinned"], false);
    assert!(human.contains("no server is running"), "{human}");
    assert_eq!(count().await, 0);
}

#[test]
fn the_quickstarts_passphrase_is_found_beside_its_keys() {
    let folder = Folder::new();
    let beside = |name: &str| {
        super::Passphrases::new(None)
            .without_terminal()
            .of(&folder.path(name))
    };
    assert!(beside("root.key").is_err());
    std::fs::rename(folder.path("word"), folder.path("passphrase")).unwrap();
    assert_eq!(beside("root.key").unwrap().expose(), b"correct horse");
    assert!(Path::new(&folder.path("passphrase")).exists());
}

#[tokio::test]
async fn signing_and_renewing() {
    let folder = Folder::new();
    folder.ca("init --trust-domain example.org").await.unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::new(vec!["other.example".to_owned()]).unwrap();
    let csr = csr.serialize_request(&key).unwrap().pem().unwrap();
    std::fs::write(folder.path("bob.csr"), csr).unwrap();
    let line = "sign HERE/bob.csr --name team/bob --grant tools:* --out HERE/bob";
    let (signed, human) = folder.ca(line).await.unwrap();
    assert_eq!(signed["name"], "spiffe://example.org/team/bob");
    assert_eq!(signed["files"]["key"], Value::Null);
    assert!(
        human.contains("the request asks for `other.example`"),
        "{human}"
    );
    assert!(!folder.path("bob/bob.key").exists());
    let p12 = folder
        .ca(&format!("{line} --format p12"))
        .await
        .unwrap_err();
    assert!(p12.hint().is_some(), "{p12}");

    let line = "renew bob --grant tools:files__* --out HERE/next --end-old 10m";
    let (renewed, human) = folder.ca(line).await.unwrap();
    assert_eq!(renewed["grants"], serde_json::json!(["tools:files__*"]));
    assert_eq!(renewed["old"]["remaining_seconds"], 600);
    assert!(human.contains("The one before"), "{human}");
    let ambiguous = folder.ca("revoke bob --wait 1ms").await.unwrap_err();
    assert!(ambiguous.hint().unwrap().contains("--all"), "{ambiguous}");
    folder.path("next/bob.key").metadata().unwrap();
    let taken = folder.ca("renew bob --out HERE/next").await.unwrap_err();
    assert!(taken.hint().unwrap().contains("--replace"), "{taken}");
    let line = "renew bob --out HERE/next --replace --end-old now --wait 1ms";
    let (again, human) = folder.ca(line).await.unwrap();
    assert_eq!(again["old"]["fingerprint"], renewed["fingerprint"]);
    assert_eq!(again["old"]["revocation"]["reason"], "superseded");
    assert!(
        again["old"]["crl"]["number"].is_u64() && human.contains("is revoked"),
        "{human}"
    );

    let json = "renew bob --out HERE/next --format json";
    let (json, _) = folder.ca(json).await.unwrap();
    assert!(
        json["files"]["certificate"]
            .as_str()
            .unwrap()
            .ends_with("bob.json")
    );
    let p12 = "renew bob --out HERE/next --format p12 --p12-passphrase-file HERE/word";
    folder.ca(p12).await.unwrap();
    assert!(folder.path("next/bob.p12").exists());
    let (all, _) = folder.ca("revoke bob --all --wait 1ms").await.unwrap();
    assert_eq!(all.as_array().unwrap().len(), 4);
    assert_eq!(all[3]["crl"]["entries"], 5);
    let (list, _) = folder.ca("list").await.unwrap();
    assert_eq!(
        list["certificates"].as_array().unwrap().len(),
        1,
        "the issuing CA"
    );
}
