//! The configuration and the policy from outside: `config …` and `policy explain` as a person runs
//! them.

use std::path::Path;
use std::process::Command;

use countersign::clock::UnixTime;
use countersign::grant::WrittenGrants;
use countersign::identity::Name;
use countersign::registry::{Enrolment, EnrolmentKind, SqliteStore, Store};
use serde_json::Value;

use super::support::pki::{self, Certified, spiffe};
use super::support::program::PROGRAM;

/// Exit code, stdout, stderr.
fn run(arguments: &[&str], folder: &Path) -> (i32, String, String) {
    let mut command = Command::new(PROGRAM);
    command
        .args(arguments)
        .args(["--config"])
        .arg(folder.join("countersign.toml"));
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// A folder with a configuration, a root, an issuing CA with a ceiling and its anchor of `mode`.
struct House {
    folder: tempfile::TempDir,
    issuing: Certified,
}

impl House {
    fn new(mode: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = pki::root("root");
        let pem = pki::pem(std::slice::from_ref(&root.der));
        std::fs::write(folder.path().join("root.pem"), pem).unwrap();
        let mut ceiling = pki::ca("issuing", 0);
        ceiling.custom_extensions = vec![pki::permissions(&["tools:files__*"])];
        let text = format!(
            "[tls]\ncertificate = 's.pem'\nkey = 's.key'\n\
             [[anchor]]\nname = 'own'\nbundle = 'root.pem'\nmode = '{mode}'\nceiling = ['*']\n\
             [policy.roles]\nreader = ['tools:files__read_*']\n\
             [[policy.rule]]\nname = 'no secrets'\nwho = ['spiffe://*/agent']\ndeny = ['tools:*secret*']\n"
        );
        std::fs::write(folder.path().join("countersign.toml"), text).unwrap();
        let issuing = root.sign(ceiling);
        Self { folder, issuing }
    }

    /// A leaf of the issuing CA, and its chain as a file.
    fn leaf(&self, grants: Option<&[&str]>) -> (Certified, String) {
        let mut params = pki::client("agent");
        params.custom_extensions = grants.map(pki::permissions).into_iter().collect();
        let leaf = self.issuing.sign(params);
        let path = self.folder.path().join("agent.pem");
        std::fs::write(&path, pki::pem(&leaf.chain())).unwrap();
        (leaf, path.to_str().unwrap().to_owned())
    }

    fn explain(&self, who: &str, what: &str) -> (i32, Value) {
        let arguments = ["policy", "explain", who, what, "--json"];
        let (code, out, err) = run(&arguments, self.folder.path());
        let answer = serde_json::from_str(&out).expect(&err);
        (code, answer)
    }
}

/// The sources that stand in the way.
fn against(answer: &Value) -> Vec<&str> {
    let steps = answer["steps"].as_array().unwrap().iter();
    steps
        .filter(|step| step["allows"] == false)
        .map(|step| step["source"].as_str().unwrap())
        .collect()
}

#[test]
fn the_example_passes_the_check_and_a_slip_is_told_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let (code, example, _) = run(&["config", "example"], folder.path());
    assert_eq!(code, 0);
    let path = folder.path().join("countersign.toml");
    std::fs::write(&path, &example).unwrap();
    let (code, out, err) = run(&["config", "check"], folder.path());
    assert_eq!(code, 0, "{out}{err}");

    let line = example.lines().position(|line| line == "[audit]").unwrap() + 1;
    std::fs::write(&path, example.replace("[audit]", "[adit]")).unwrap();
    let (code, out, err) = run(&["config", "check"], folder.path());
    assert_eq!(code, 1, "{out}{err}");
    let told =
        format!("countersign.toml:{line}:2: unknown key `adit`\nhint: did you mean `audit`?\n");
    assert!(err.contains(&told), "{err}");
}

#[test]
fn what_a_variable_gets_wrong_is_told_by_its_name() {
    let house = House::new("issued");
    let check = |drain: &str| {
        let mut command = Command::new(PROGRAM);
        command.args(["config", "check", "--json", "--config"]);
        command.arg(house.folder.path().join("countersign.toml"));
        let output = command
            .env("COUNTERSIGN_LISTEN__DRAIN", drain)
            .output()
            .unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    assert_eq!(check("3s")["valid"], true);
    let wrong = check("soon");
    assert_eq!(wrong["valid"], false);
    assert_eq!(
        wrong["mistakes"][0]["variable"],
        "COUNTERSIGN_LISTEN__DRAIN"
    );
}

#[test]
fn every_layer_of_an_issued_chain_is_explained() {
    let house = House::new("issued");
    let (_, file) = house.leaf(Some(&[
        "role:reader",
        "tools:other",
        "tools:files__secret_*",
    ]));
    let (code, answer) = house.explain(&file, "tools:files__read_file");
    assert_eq!(
        (code, &answer["allowed"]),
        (0, &Value::Bool(true)),
        "{answer:#}"
    );
    assert_eq!(answer["who"], spiffe("agent"));
    assert_eq!(answer["steps"].as_array().unwrap().len(), 4, "{answer:#}");

    let (code, answer) = house.explain(&file, "tools:files__write_file");
    assert_eq!((code, &answer["allowed"]), (1, &Value::Bool(false)));
    assert_eq!(against(&answer).len(), 1, "{answer:#}");
    let (_, answer) = house.explain(&file, "tools:other");
    assert_eq!(against(&answer), ["certificate `issuing`"]);
    let (_, answer) = house.explain(&file, "tools:files__secret_x");
    assert_eq!(against(&answer), ["rule `no secrets`"]);
}

#[test]
fn who_would_not_be_let_in_is_told_why() {
    let house = House::new("issued");
    let (_, file) = house.leaf(Some(&["tools:files__a"]));
    assert_eq!(house.explain(&file, "tools:files__a").0, 0);
    let (_, file) = house.leaf(None);
    let (code, answer) = house.explain(&file, "tools:files__a");
    assert_eq!(code, 1);
    assert!(answer["refused"].is_string(), "{answer:#}");
    let stranger = House::new("issued").leaf(Some(&["tools:files__a"]));
    let path = house.folder.path().join("stranger.pem");
    std::fs::write(&path, pki::pem(&stranger.0.chain())).unwrap();
    let (code, answer) = house.explain(path.to_str().unwrap(), "tools:files__a");
    assert_eq!(
        (code, answer["refused"].is_string()),
        (1, true),
        "{answer:#}"
    );
}

#[tokio::test]
async fn an_enrolled_name_is_explained_by_its_pin() {
    let house = House::new("pinned");
    let (leaf, file) = house.leaf(None);
    // Not in the registry: not let in.
    assert_eq!(house.explain(&file, "tools:files__a").0, 1);
    let registry = house.folder.path().join("registry.sqlite");
    let store = SqliteStore::open(&registry, true).await.unwrap();
    for (certified, name, grants) in [
        (&house.issuing, "issuing", None),
        (
            &leaf,
            "agent",
            Some(WrittenGrants::parse(&["tools:files__a", "role:gone"]).unwrap()),
        ),
    ] {
        let authority = name == "issuing";
        let enrolment = Enrolment {
            fingerprint: certified.fingerprint(),
            kind: if authority {
                EnrolmentKind::Authority
            } else {
                EnrolmentKind::Leaf
            },
            name: Name::new(&spiffe(name)).unwrap(),
            serial: hex::encode(certified.serial().to_bytes()),
            issuer: (!authority).then(|| house.issuing.fingerprint()),
            profile: String::from("agent"),
            grants,
            not_before: UnixTime(0),
            not_after: certified.not_after(),
            pinned: !authority,
            revocation: None,
            created_at: UnixTime(0),
            created_by: String::from("test"),
            der: certified.der.to_vec(),
        };
        store.enrol(&enrolment).await.unwrap();
    }
    let (code, answer) = house.explain("agent", "tools:files__a");
    assert_eq!(code, 0, "{answer:#}");
    assert_eq!(answer["fingerprint"], leaf.fingerprint().to_string());
    let (code, answer) = house.explain("agent", "tools:files__b");
    assert_eq!(code, 1);
    assert_eq!(
        against(&answer),
        [format!("pin {}", leaf.fingerprint().short())]
    );
    let pin = answer["steps"]
        .as_array()
        .unwrap()
        .iter()
        .find(|s| s["allows"] == false)
        .unwrap();
    assert_eq!(pin["unknown_roles"][0], "gone");
    let (code, _, err) = run(
        &["policy", "explain", "nobody", "tools:a"],
        house.folder.path(),
    );
    assert_ne!(code, 0);
    assert!(
        err.contains("error: `nobody` is not enrolled") && err.contains("hint: "),
        "{err}"
    );
}
