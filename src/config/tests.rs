//! The configuration as a whole: what is taken, and every mistake with its place.

use std::path::Path;
use std::time::Duration;

use super::example::dev_paths;
use super::*;
use crate::grant::Kind;

const GOOD: &str = r#"
[listen]
address = ["127.0.0.1:9000", "[::1]:9000"]
drain = "3s"

[tls]
certificate = "server.pem"
key = "/etc/keys/server.key"

[[anchor]]
name = "own"
bundle = "root.pem"
ceiling = ["role:reader"]

[policy.roles]
reader = ["tools:read_*"]

[limits]
max_message_bytes = "1MiB"
calls_per_second = 5
"#;

fn parse(text: &str) -> Result<Config, Vec<Mistake>> {
    with(text, &[])
}

fn with(text: &str, environment: &[(&str, &str)]) -> Result<Config, Vec<Mistake>> {
    let variables = environment
        .iter()
        .map(|(name, value)| ((*name).into(), (*value).into()));
    Config::parse(text, Path::new("/srv/countersign.toml"), variables)
}

/// `line:column message`, or the variable in place of the line.
fn told(result: Result<Config, Vec<Mistake>>) -> Vec<String> {
    let short = |m: Mistake| match m.variable {
        Some(variable) => format!("{variable} {}", m.message),
        None => format!("{}:{} {}", m.line, m.column, m.message),
    };
    result
        .expect_err("mistakes were expected")
        .into_iter()
        .map(short)
        .collect()
}

/// `GOOD` with one text replaced by another.
fn changed(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    GOOD.replacen(from, to, 1)
}

#[test]
fn a_good_document_is_resolved() {
    let config = parse(GOOD).unwrap();
    assert_eq!(config.listen.address.len(), 2);
    assert_eq!(config.listen.drain, Duration::from_secs(3));
    assert_eq!(config.tls.certificate, Path::new("/srv/server.pem"));
    assert_eq!(config.tls.key, Path::new("/etc/keys/server.key"));
    assert_eq!(config.tls.profile, crate::tls::Profile::Modern);
    assert_eq!(config.anchors[0].bundle, Path::new("/srv/root.pem"));
    assert_eq!(
        config.registry.place.file(),
        Some(Path::new("/srv/registry.sqlite"))
    );
    assert_eq!(config.limits.max_message_bytes, 1 << 20);
    assert_eq!(config.limits.calls_per_second, Some(5));
    assert!(config.policy.roles["reader"].allows(Kind::Tools, "read_file"));
    assert!(config.policy.ceilings["own"].allows(Kind::Tools, "read_file"));
    assert_eq!(config.permission_oid, crate::cert::DEFAULT_PERMISSION_OID);
    assert_eq!(config.source, Path::new("/srv/countersign.toml"));
}

#[test]
fn defaults_are_those_of_the_floors() {
    let minimal = "[tls]\ncertificate = 'c'\nkey = 'k'\n[[anchor]]\nname = 'a'\nbundle = 'b'\n";
    let config = parse(minimal).unwrap();
    assert_eq!(config.limits, crate::session::limits::Limits::default());
    assert_eq!(config.listen.address, ["127.0.0.1:8443".parse().unwrap()]);
}

#[test]
fn every_mistake_of_shape_is_told_at_once_in_the_order_of_the_file() {
    let text = r#"
colour = "red"
[lisetn]
[listen]
adress = ["127.0.0.1:1"]
drain = "soon"
handshakes = 0
connections = "many"
[tls]
certificate = "server.pem"
[[anchor]]
name = "own"
bundle = 7
identity_from = "dsn"
profile = "compatible"
[limits]
max_message_bytes = "4MB"
"#;
    let told = told(parse(text));
    let expected = [
        "2:1 unknown key `colour`",
        "3:2 unknown key `lisetn`",
        "5:1 unknown key `listen.adress`",
        "6:9 `soon` is not a span of time",
        "7:14 `0` is less than 1, the least that is possible",
        "8:15 must be an integer, and is a string",
        "9:1 `tls.key` is missing",
        "13:10 must be a string, and is an integer",
        "14:17 `dsn` is not possible here",
        "15:1 unknown key `anchor[0].profile`",
        "17:21 `4MB` is not a size",
    ];
    assert_eq!(told, expected);
    let hints: Vec<_> = parse(text)
        .unwrap_err()
        .into_iter()
        .filter_map(|m| m.hint)
        .collect();
    for hint in [
        "did you mean `listen`?",
        "did you mean `address`?",
        "did you mean `dns`?",
    ] {
        assert!(
            hints.iter().any(|said| said == hint),
            "{hint} in {hints:#?}"
        );
    }
    assert!(
        hints
            .iter()
            .any(|said| said == "there is a key `tls.profile`"),
        "{hints:#?}"
    );
}

#[test]
fn every_mistake_of_meaning_is_told_at_once() {
    let text = r#"
permission_oid = "1.3.six"
anchor = []
[listen]
address = ["localhost", "127.0.0.1:1", "127.0.0.1:1"]
connections = 10
handshake_timeout = "0s"
[tls]
certificate = ""
key = "k"
[policy.roles]
reader = ["tool:x"]
[[policy.rule]]
name = "r"
who = []
deny = ["role:nobody"]
[audit]
path = "same"
[registry]
path = "same"
[limits]
in_flight_per_connection = 300
call_burst = 3
[[files]]
name = "self"
root = "x"
[[files]]
name = "a__b"
root = "x"
"#;
    let expected = [
        "2:18 `1.3.six` is not an object identifier",
        "3:10 no trust anchor: nobody could ever be admitted",
        "4:1 1024 connections of one identity are more than `listen.connections`, 10, lets in",
        "5:12 `localhost` is not an address",
        "5:40 `127.0.0.1:1` is there twice",
        "7:21 must be longer than nothing",
        "9:15 is empty",
        "12:11 `tool:x` is not a grant: it is written `kind:pattern` with a kind of tools, resources, prompts or admin",
        "15:7 the rule `r` is about nobody: `who` is empty",
        "16:9 role `nobody` is not defined",
        "18:8 the audit log and the registry cannot be one file",
        "22:28 300 is more than `limits.in_flight_per_identity`, 256, allows",
        "23:14 a burst means nothing without `limits.calls_per_second`",
        "25:8 `self` is a provider of the server's own",
        "28:8 `a__b` cannot be the name of a provider",
    ];
    assert_eq!(told(parse(text)), expected);
}

#[test]
fn anchors_are_checked_one_by_one() {
    let wrong = changed(
        "ceiling = [\"role:reader\"]",
        "ceiling = [\"role:raeder\", \"tools:\"]\ncrl = \"require\"\n[[anchor]]\nname = \"own\"\nbundle = \"\"\nceiling = []",
    );
    let expected = [
        "13:12 role `raeder` is not defined",
        "13:27 grant `tools:`: a pattern is empty",
        "14:7 a CRL is required and `crl_file` names none",
        "16:8 two anchors are called `own`",
        "17:10 is empty",
        "18:11 an empty list lets nothing pass",
    ];
    assert_eq!(told(parse(&wrong)), expected);
}

#[test]
fn prompts_are_checked_as_their_provider_checks_them() {
    let prompt = |text: &str| {
        format!(
            "{GOOD}\n[[prompt]]\nname = 'p'\nargument = [{{ name = 'path' }}]\nmessage = [{{ text = '{text}' }}]\n"
        )
    };
    assert_eq!(parse(&prompt("read {{path}}")).unwrap().prompts.len(), 1);
    let told = told(parse(&prompt("read {{file}}")));
    assert_eq!(
        told,
        ["22:1 prompt `p`: `{{file}}` is not one of its arguments"]
    );
}

#[test]
fn what_is_no_toml_is_told_with_its_place() {
    let told = told(parse(&changed("drain = \"3s\"", "drain = = \"3s\"")));
    assert_eq!(told.len(), 1);
    assert!(told[0].starts_with("4:9 "), "{told:?}");
}

#[test]
fn a_file_that_is_not_there_is_told_with_a_hint() {
    let path = Path::new("/nowhere/at/all/countersign.toml");
    let mistakes = Config::load(path, std::iter::empty()).unwrap_err();
    assert_eq!(mistakes.len(), 1);
    assert!(
        mistakes[0]
            .to_string()
            .starts_with("/nowhere/at/all/countersign.toml: cannot be read")
    );
    assert!(mistakes[0].hint.is_some());
}

#[test]
fn the_environment_stands_in_for_keys() {
    let config = with(
        GOOD,
        &[
            ("COUNTERSIGN_LISTEN__ADDRESS", "127.0.0.1:1, 127.0.0.1:2"),
            ("COUNTERSIGN_LIMITS__MAX_DEPTH", "32"),
            ("COUNTERSIGN_LIMITS__MAX_MESSAGE_BYTES", "2MiB"),
            ("COUNTERSIGN_AUDIT__ARGUMENTS", "true"),
            ("COUNTERSIGN_ANCHOR__0__BUNDLE", "other.pem"),
            ("COUNTERSIGN_POLICY__ROLES__READER", "tools:a,tools:b"),
            ("COUNTERSIGN_PERMISSION_OID", "1.2.3"),
            // Not for the configuration.
            ("COUNTERSIGN_CONFIG", "x"),
            ("COUNTERSIGN_LOG", "debug"),
            ("HOME__X", "y"),
        ],
    )
    .unwrap();
    assert_eq!(config.listen.address[1].port(), 2);
    assert_eq!(config.limits.max_depth, 32);
    assert_eq!(config.limits.max_message_bytes, 2 << 20);
    assert!(config.audit.arguments);
    assert_eq!(config.anchors[0].bundle, Path::new("/srv/other.pem"));
    assert!(config.policy.roles["reader"].allows(Kind::Tools, "b"));
    assert_eq!(config.permission_oid, "1.2.3");
}

#[test]
fn a_wrong_variable_is_named() {
    let wrong = [
        ("COUNTERSIGN_LISTEN__ADRESS", "127.0.0.1:1"),
        ("COUNTERSIGN_LISTEN__DRAIN", "soon"),
        ("COUNTERSIGN_LIMITS__MAX_DEPTH", "deep"),
        ("COUNTERSIGN_FILES__0__ROOT", "x"),
        ("COUNTERSIGN_ANCHOR", "own"),
    ];
    let mut told_all = told(with(GOOD, &wrong));
    told_all.sort();
    let expected = [
        "COUNTERSIGN_ANCHOR a table cannot be given whole: name one of its keys",
        "COUNTERSIGN_FILES__0__ROOT the file has no `files` of which to change an element",
        "COUNTERSIGN_LIMITS__MAX_DEPTH must be an integer, and is a string",
        "COUNTERSIGN_LISTEN__ADRESS there is no key `listen.adress`",
        "COUNTERSIGN_LISTEN__DRAIN `soon` is not a span of time",
    ];
    assert_eq!(told_all, expected);
    let address = told(with(
        GOOD,
        &[("COUNTERSIGN_LISTEN__ADDRESS", "127.0.0.1:1,here")],
    ));
    assert_eq!(
        address,
        ["COUNTERSIGN_LISTEN__ADDRESS `here` is not an address"]
    );
}

#[test]
fn the_example_is_taken_with_every_key_switched_on_and_off() {
    let example = example();
    parse(&example).unwrap_or_else(|mistakes| panic!("{mistakes:#?}\n{example}"));
    let mut keys = 0;
    let switched_on: String = example
        .lines()
        .map(|line| {
            // A registry is either a file or a database.
            let database = line.starts_with("#url = ") || line.starts_with("#password_file = ");
            let key = line
                .strip_prefix('#')
                .filter(|_| !database)
                .filter(|key| key.starts_with(|c: char| c.is_ascii_lowercase()));
            keys += usize::from(key.is_some());
            format!("{}\n", key.unwrap_or(line))
        })
        .collect();
    assert!(keys > 25, "{keys}");
    parse(&switched_on).unwrap_or_else(|mistakes| panic!("{mistakes:#?}\n{switched_on}"));
}

#[test]
fn a_registry_is_a_file_or_a_database() {
    let database = |table: &str| parse(&format!("{GOOD}\n[registry]\n{table}"));
    let url = "url = 'postgres://ca@db.example.org/registry?sslrootcert=/db.pem'\n";
    let place = database(&format!("{url}password_file = 'db.password'"))
        .unwrap()
        .registry
        .place;
    let expected = crate::registry::RegistryPlace::Database {
        url: "postgres://ca@db.example.org/registry?sslrootcert=/db.pem".into(),
        password_file: Some("/srv/db.password".into()),
    };
    assert_eq!(place, expected);
    assert_eq!(
        told(database(&format!("path = 'r.db'\n{url}"))),
        ["24:7 the registry is either a file or a database, and `registry.path` names a file"]
    );
    assert_eq!(
        told(database("password_file = 'p'")),
        ["23:17 only the database of `registry.url` has a password"]
    );
    let mistakes = told(database("url = 'postgres://ca:s3cret@db/registry'"));
    assert_eq!(
        mistakes,
        ["23:7 a password does not belong in the URL of a registry"]
    );
    assert_eq!(
        told(database("max_staleness = '2s'")),
        ["23:17 must be at least 3s: a registry in good health is heard of every 2s"]
    );
    assert_eq!(
        told(database("url = 'mysql://db/registry'")),
        ["23:7 a registry's URL begins with `postgres://`"]
    );
}

#[test]
fn the_example_has_every_key_of_the_schema() {
    fn keys(schema: &serde_json::Value, found: &mut Vec<String>) {
        for (name, part) in schema["properties"].as_object().into_iter().flatten() {
            found.push(name.clone());
            keys(part, found);
            keys(&part["items"], found);
        }
    }
    let mut found = Vec::new();
    keys(&schema(), &mut found);
    let example = example();
    for key in found {
        let shown = example.lines().any(|line| {
            let line = line.trim_start_matches(['#', '[']);
            line.starts_with(&format!("{key} = ")) || line.split([']', '.']).any(|part| part == key)
        });
        assert!(shown, "{key} is not in the example");
    }
}

#[test]
fn the_configuration_of_up_is_taken() {
    let text = Config::dev_example(&dev_paths(Path::new("")));
    let config = parse(&text).unwrap_or_else(|mistakes| panic!("{mistakes:#?}\n{text}"));
    assert_eq!(config.files[0].root, Path::new("/srv/files"));
    assert!(config.files[0].writable);
    let reader = &config.policy.roles["reader"];
    assert!(reader.allows(Kind::Tools, "files__read_file"));
    assert!(!reader.allows(Kind::Tools, "files__write_file"));
    assert!(!reader.allows(Kind::Tools, "files__delete_file"));
    assert!(config.policy.roles["operator"].allows(Kind::Admin, "status"));
}

#[test]
fn a_look_names_what_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let text = Config::dev_example(&dev_paths(folder.path()));
    let config = parse(&text).unwrap();
    let seen = look(&config);
    assert_eq!(seen.len(), 4, "{seen:#?}");
    for file in ["server.pem", "server.key", "root.pem"] {
        std::fs::write(folder.path().join(file), "x").unwrap();
    }
    std::fs::create_dir(folder.path().join("files")).unwrap();
    assert_eq!(look(&config), Vec::<String>::new());
}
