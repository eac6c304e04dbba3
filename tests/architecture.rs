//! The floors: a module imports only from floors below its own. Reads the sources and fails on an
//! import that runs sideways or upwards, on a proof made in the wrong place, and on module names
//! that attract everything.
//!
//! The scan is by lines and knows no Rust grammar beyond comments, strings and `#[cfg(test)] mod`.
//! The tests at the end show it failing.
#![expect(
    clippy::unwrap_used,
    reason = "a test that panics is a test that fails"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Every root module with its floor, in the order of `lib.rs`.
const FLOORS: &[(u8, &str)] = &[
    (0, "clock"),
    (0, "framing"),
    (0, "grant"),
    (0, "identity"),
    (0, "jsonrpc"),
    (0, "secret"),
    (1, "cert"),
    (1, "est"),
    (1, "peer"),
    (2, "policy"),
    (2, "registry"),
    (3, "audit"),
    (3, "mcp"),
    (4, "ca"),
    (4, "tls"),
    (4, "transport"),
    (5, "backend"),
    (5, "enrol"),
    (5, "listener"),
    (6, "dispatch"),
    (7, "session"),
    (8, "config"),
    (9, "authority_server"),
    (9, "client"),
    (9, "server"),
    (10, "cli"),
];

/// From the socket to the tools: a serving process has no way to the CA's key.
const DATA_PATH: &[&str] = &[
    "listener",
    "tls",
    "transport",
    "session",
    "dispatch",
    "backend",
    "server",
];

/// Names under which everything and nothing fits.
const NO_NAMES: &[&str] = &[
    "utils", "util", "common", "helpers", "types", "prelude", "misc",
];

fn floor(module: &str) -> Option<u8> {
    FLOORS
        .iter()
        .find(|(_, name)| *name == module)
        .map(|(floor, _)| *floor)
}

/// One source file of a root module.
struct Source {
    /// Below `src`, with `/`.
    path: String,
    /// The root module that it belongs to; empty for `lib.rs` and `main.rs`.
    module: String,
    /// Whether only tests use it.
    in_tests: bool,
    /// As written.
    text: String,
    /// Without comments, the contents of strings, and test modules.
    code: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self::told(path, text, false)
    }

    /// `in_tests`: whether the module above declares it for tests only.
    fn told(path: &str, text: &str, in_tests: bool) -> Self {
        let first = path
            .split('/')
            .next()
            .unwrap_or_default()
            .trim_end_matches(".rs");
        let module = if ["lib", "main"].contains(&first) {
            ""
        } else {
            first
        };
        let code = if in_tests {
            String::new()
        } else {
            without_tests(&bare(text))
        };
        Self {
            path: path.into(),
            module: module.into(),
            in_tests,
            text: text.into(),
            code,
        }
    }
}

/// Paths, without `.rs`, of the modules that this file declares for tests only.
fn test_modules(path: &str, text: &str) -> Vec<String> {
    let folder = match path.strip_suffix("mod.rs") {
        Some(folder) => folder.to_owned(),
        None => format!("{}/", path.trim_end_matches(".rs")),
    };
    let mut lines = text.lines().map(str::trim);
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        if line != "#[cfg(test)]" {
            continue;
        }
        let declared = lines.next().unwrap_or_default();
        let name = declared
            .split("mod ")
            .nth(1)
            .and_then(|rest| rest.strip_suffix(';'));
        found.extend(name.map(|name| format!("{folder}{name}")));
    }
    found
}

/// Blanks comments and what stands in strings and characters; lines stay where they are.
fn bare(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let bytes: Vec<char> = text.chars().collect();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let length = match rest {
            ['/', '/', ..] => rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()),
            ['/', '*', ..] => block_comment(rest),
            ['r', '"' | '#', ..] if !before_is_word(&bytes, at) => raw_string(rest),
            ['"', ..] => quoted(rest),
            ['\'', '\\', ..] => quoted_char(rest),
            ['\'', _, '\'', ..] => 3,
            _ => 0,
        };
        if length == 0 {
            out.push(bytes[at]);
            at += 1;
        } else {
            out.extend(rest[..length].iter().filter(|c| **c == '\n'));
            at += length;
        }
    }
    out
}

fn before_is_word(all: &[char], at: usize) -> bool {
    at > 0 && (all[at - 1].is_alphanumeric() || all[at - 1] == '_')
}

fn block_comment(rest: &[char]) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at + 1 < rest.len() {
        match (rest[at], rest[at + 1]) {
            ('/', '*') => (depth, at) = (depth + 1, at + 2),
            ('*', '/') => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

fn raw_string(rest: &[char]) -> usize {
    let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
    if rest.get(1 + hashes) != Some(&'"') {
        return 0;
    }
    let closes = |at: usize| {
        rest[at] == '"'
            && rest[at + 1..]
                .iter()
                .take(hashes)
                .filter(|c| **c == '#')
                .count()
                == hashes
    };
    let from = 2 + hashes;
    (from..rest.len())
        .find(|at| closes(*at))
        .map_or(rest.len(), |at| at + 1 + hashes)
}

fn quoted(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != '"' {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

fn quoted_char(rest: &[char]) -> usize {
    rest.iter()
        .skip(3)
        .position(|c| *c == '\'')
        .map_or(1, |at| at + 4)
}

/// Blanks what `#[cfg(test)]` stands before: an inline module with its braces, or one line.
fn without_tests(code: &str) -> String {
    let mut out = String::new();
    let mut lines = code.lines();
    while let Some(line) = lines.next() {
        if line.trim_start().starts_with("#[cfg(test)]") || line.contains("#[cfg(all(test") {
            skip_item(&mut lines);
        } else {
            out.push_str(line);
        }
        out.push('\n');
    }
    out
}

fn skip_item<'a>(lines: &mut impl Iterator<Item = &'a str>) {
    let mut depth = 0_i32;
    for line in lines {
        if line.trim_start().starts_with("#[") && depth == 0 {
            continue;
        }
        for c in line.chars() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
        }
        if depth <= 0 && (line.contains('}') || line.contains(';')) {
            return;
        }
    }
}

/// The root modules that code names by `crate::…`, also in nested braces.
fn imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at]
            .chars()
            .next_back()
            .is_some_and(|c| c.is_alphanumeric() || c == '_')
        {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            found.extend(group_heads(group));
        } else {
            found.insert(word(rest));
        }
    }
    found.remove("");
    found
}

fn word(text: &str) -> String {
    text.chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

/// The first words of the parts of `{a::b, c::{d, e}}`, from behind the first brace.
fn group_heads(group: &str) -> Vec<String> {
    let (mut depth, mut heads, mut fresh) = (0, Vec::new(), true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => fresh = true,
            c if fresh && !c.is_whitespace() => {
                heads.push(word(&group[at..]));
                fresh = false;
            }
            _ => {}
        }
    }
    heads
}

/// Everything that is wrong with these sources.
fn violations(sources: &[Source]) -> Vec<String> {
    sources.iter().flat_map(check).collect()
}

fn check(source: &Source) -> Vec<String> {
    let mut wrong = Vec::new();
    let path = &source.path;
    check_names(source, &mut wrong);
    if path.ends_with("mod.rs") {
        wrong.extend(logic(&source.code).map(|line| format!("{path}: logic in mod.rs: `{line}`")));
    }
    if source.code.contains("Peer::admitted(") && source.module != "tls" {
        wrong.push(format!("{path}: only `tls` makes a `Peer`"));
    }
    let Some(own) = floor(&source.module) else {
        if !source.module.is_empty() {
            wrong.push(format!("{path}: module `{}` has no floor", source.module));
        }
        return wrong;
    };
    for import in imports(&source.code) {
        if import == source.module {
            continue;
        }
        match floor(&import) {
            Some(theirs) if theirs < own => {}
            Some(theirs) => wrong.push(format!(
                "{path}: `{}` (floor {own}) imports `{import}` (floor {theirs})",
                source.module
            )),
            None => wrong.push(format!(
                "{path}: imports `crate::{import}`, which is no module"
            )),
        }
        if import == "ca" && DATA_PATH.contains(&source.module.as_str()) {
            wrong.push(format!("{path}: the data path imports `ca`"));
        }
    }
    wrong
}

fn check_names(source: &Source, wrong: &mut Vec<String>) {
    let path = &source.path;
    for part in path.split('/').map(|part| part.trim_end_matches(".rs")) {
        if NO_NAMES.contains(&part) {
            wrong.push(format!("{path}: `{part}` is no name for a module"));
        }
    }
    if path == "error.rs" || path == "error/mod.rs" {
        wrong.push(format!(
            "{path}: errors stand beside the code that raises them"
        ));
    }
}

/// Lines of a `mod.rs` that are neither attributes, `mod` nor `use`.
fn logic(code: &str) -> impl Iterator<Item = &str> {
    let mut in_use = false;
    let mut in_attribute = false;
    code.lines().map(str::trim).filter(move |line| {
        if in_use {
            in_use = !line.contains(';');
            return false;
        }
        if in_attribute || line.starts_with("#[") || line.starts_with("#![") {
            in_attribute = !line.ends_with(']');
            return false;
        }
        let item = ["pub(crate) ", "pub(super) ", "pub(in crate::cli) ", "pub "]
            .iter()
            .find_map(|public| line.strip_prefix(public))
            .unwrap_or(line);
        if item.starts_with("use ") {
            in_use = !line.contains(';');
            return false;
        }
        !(line.is_empty() || item.starts_with("mod ") && line.ends_with(';'))
    })
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    let relative = |file: &Path| {
        let path = file.strip_prefix(&root).unwrap();
        path.components()
            .map(|part| part.as_os_str().to_str().unwrap())
            .collect::<Vec<_>>()
            .join("/")
    };
    let read: Vec<(String, String)> = files
        .iter()
        .map(|file| (relative(file), fs::read_to_string(file).unwrap()))
        .collect();
    let for_tests: Vec<String> = read
        .iter()
        .flat_map(|(path, text)| test_modules(path, text))
        .collect();
    let is_for_tests = |path: &str| {
        for_tests.iter().any(|module| {
            path.strip_prefix(module.as_str())
                .is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        })
    };
    read.iter()
        .map(|(path, text)| Source::told(path, text, is_for_tests(path)))
        .collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
}

#[test]
fn the_sources_keep_to_their_floors() {
    let sources = sources();
    assert!(sources.len() > 50, "the sources were not found");
    let wrong = violations(&sources);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_module_of_the_library_has_its_floor_and_stands_in_order() {
    let lib = sources()
        .into_iter()
        .find(|source| source.path == "lib.rs")
        .unwrap();
    let lines = lib.code.lines();
    let listed: Vec<&str> = lines
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .collect();
    let table: Vec<&str> = FLOORS.iter().map(|(_, module)| *module).collect();
    assert_eq!(listed, table);
    let floors: Vec<u8> = FLOORS.iter().map(|(floor, _)| *floor).collect();
    assert!(floors.is_sorted());
}

#[test]
fn every_module_says_what_it_is() {
    let silent: Vec<String> = sources()
        .into_iter()
        .filter(|source| !source.in_tests && !source.text.starts_with("//!"))
        .map(|source| source.path)
        .collect();
    assert!(silent.is_empty(), "no header: {silent:?}");
}

#[test]
fn the_environment_and_the_clock_have_their_places() {
    let named = |needle: &str, allowed: &[&str]| -> Vec<String> {
        sources()
            .iter()
            .filter(|source| source.code.contains(needle) && !allowed.contains(&&*source.module))
            .map(|source| format!("{}: {needle}", source.path))
            .collect()
    };
    let mut wrong = named("env::var", &["config", "cli"]);
    wrong.extend(named("SystemTime::now", &["clock"]));
    wrong.extend(named("Instant::now", &["clock"]));
    wrong.extend(named("unbounded_channel", &[]));
    wrong.extend(named("install_default", &[]));
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What the checker says of one file.
fn said(path: &str, text: &str) -> Vec<String> {
    violations(&[Source::new(path, text)])
}

#[test]
fn an_import_from_below_passes() {
    for (path, text) in [
        ("policy/decide.rs", "use crate::grant::Kind;"),
        (
            "policy/decide.rs",
            "use super::rules::Policy;\nuse crate::policy::Rule;",
        ),
        (
            "tls/server.rs",
            "use crate::{peer::Peer, registry::{View, Pin}};\nfn f() { Peer::admitted(x) }",
        ),
        (
            "cli/mod.rs",
            "//! Doc.\nmod a;\npub use a::{\n    B,\n    C,\n};\n#[cfg(test)]\nmod tests;\n",
        ),
        (
            "grant/set.rs",
            "// use crate::cli::x;\n/* crate::cli */\nconst A: &str = \"crate::cli\";",
        ),
        (
            "grant/set.rs",
            "const A: &str = r#\"\"crate::cli\"#; const B: char = '\"';",
        ),
        (
            "grant/set.rs",
            "fn f() {}\n#[cfg(test)]\nmod tests {\n use crate::cli::X;\n fn g() {}\n}\n",
        ),
        (
            "grant/set.rs",
            "fn f<'a>(x: &'a str) -> &'a str { other_crate::cli(x) }",
        ),
        ("main.rs", "fn main() { countersign::cli::main() }"),
    ] {
        assert_eq!(said(path, text), Vec::<String>::new(), "{path}: {text}");
    }
}

#[test]
fn modules_for_tests_are_known_by_their_declaration() {
    let declared = "#[cfg(test)]\nmod tests;\nmod run;\n#[cfg(test)]\npub(crate) mod fixture;\n";
    assert_eq!(
        test_modules("ca/mod.rs", declared),
        ["ca/tests", "ca/fixture"]
    );
    assert_eq!(
        test_modules("ca/run.rs", declared),
        ["ca/run/tests", "ca/run/fixture"]
    );
    assert_eq!(
        test_modules("ca/mod.rs", "mod tests;\n#[cfg(test)]\nmod tests {"),
        [""; 0]
    );
    let told = Source::told("ca/fixture.rs", "use crate::cli::X;", true);
    assert_eq!(violations(&[told]), [""; 0]);
    assert_eq!(said("ca/fixture.rs", "use crate::cli::X;").len(), 1);
}

#[test]
fn an_import_sideways_or_upwards_fails() {
    for (path, text, module) in [
        ("grant/set.rs", "use crate::identity::Name;", "identity"),
        ("grant/set.rs", "use crate::policy::Policy;", "policy"),
        (
            "policy/decide.rs",
            "fn f() -> crate::audit::Ticket { x }",
            "audit",
        ),
        (
            "policy/decide.rs",
            "use crate::{\n    grant::{Kind, Grant},\n    registry::View,\n};",
            "registry",
        ),
        (
            "grant/set.rs",
            "#[cfg(test)]\nmod tests {\n fn g() {}\n}\nuse crate::cli::X;",
            "cli",
        ),
        (
            "grant/set.rs",
            "const A: &str = \"\\\"\"; use crate::cli::X;",
            "cli",
        ),
        (
            "grant/set.rs",
            "#[cfg(test)]\nmod chance;\nuse crate::cli::X;",
            "cli",
        ),
        (
            "session/stream.rs",
            "pub(crate) use crate::server::X;",
            "server",
        ),
        ("peer.rs", "use crate::cert::Parsed;", "cert"),
    ] {
        let said = said(path, text);
        assert_eq!(said.len(), 1, "{path}: {text}: {said:?}");
        assert!(said[0].contains(&format!("imports `{module}`")), "{said:?}");
    }
    assert!(said("grant/set.rs", "use crate::nowhere::X;")[0].contains("no module"));
    assert!(said("newcomer.rs", "")[0].contains("has no floor"));
}

#[test]
fn the_data_path_may_not_reach_the_ca() {
    assert!(said("cli/run.rs", "use crate::ca::Authority;").is_empty());
    let said = said("session/stream.rs", "use crate::ca::Authority;");
    assert_eq!(said, ["session/stream.rs: the data path imports `ca`"]);
}

#[test]
fn a_peer_made_elsewhere_fails() {
    assert!(said("tls/server.rs", "fn f() { Peer::admitted(a, b, c) }").is_empty());
    assert_eq!(
        said("listener.rs", "fn f() { Peer::admitted(a, b, c) }").len(),
        1
    );
}

#[test]
fn names_for_everything_and_logic_in_mod_rs_fail() {
    assert!(said("grant/pattern.rs", "fn f() {}").is_empty());
    for path in [
        "grant/utils.rs",
        "grant/common/pattern.rs",
        "grant/types.rs",
    ] {
        assert!(
            said(path, "fn f() {}")[0].contains("no name for a module"),
            "{path}"
        );
    }
    assert!(
        said("error.rs", "")
            .iter()
            .any(|line| line.contains("errors stand beside"))
    );
    assert!(said("grant/mod.rs", "//! Doc.\nmod a;\npub use a::A;\n").is_empty());
    assert!(said("grant/mod.rs", "//! Doc.\nmod a;\nfn f() {}\n")[0].contains("logic in mod.rs"));
    assert!(said("grant/mod.rs", "//! Doc.\nmod a { fn f() {} }\n")[0].contains("logic in mod.rs"));
}

/// TLS alone runs on aws-lc: one file of ours names it, one feature brings it, and no crate but TLS
/// asks for it.
#[test]
fn everything_outside_tls_is_ring() {
    let named: Vec<String> = sources()
        .into_iter()
        .filter(|source| source.code.contains("aws_lc"))
        .map(|source| source.path)
        .collect();
    assert_eq!(named, ["tls/provider.rs"]);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let asks: Vec<&str> = manifest
        .lines()
        .filter(|line| line.contains("aws_lc") || line.contains("aws-lc"))
        .collect();
    assert!(
        asks.len() == 1 && asks[0].starts_with("post-quantum = "),
        "{asks:?}"
    );
    let lock = fs::read_to_string(root.join("Cargo.lock")).unwrap();
    let users: BTreeSet<&str> = lock
        .split("[[package]]")
        .filter(|package| package.contains("\n \"aws-lc-rs\""))
        .filter_map(|package| package.split('"').nth(1))
        .collect();
    assert_eq!(users, BTreeSet::from(["rustls", "rustls-webpki"]));
}
