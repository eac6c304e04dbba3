//! `docs/configuration.md`, made from the schema.

use std::fmt::Write as _;

use serde_json::Value;

use super::example::sample;
use super::render::described;
use super::schema::schema;
use super::shape::possible_words;

const HEAD: &str = "# Configuration

<!-- Made from the program's own types: `BLESS=1 cargo test configuration_reference` writes it anew. -->

One TOML file, `countersign.toml`. `countersign config check` tells every mistake at once, with line
and column; `countersign config example` prints a complete example, `countersign config schema` the
JSON Schema. Unknown keys are refused. Relative paths are resolved against the folder of the file.

Spans of time are written like `500ms`, `10s`, `12h` or `1h 30m`, at most 366 days. Sizes are a number
of bytes, or written like `64KiB`, `4MiB` or `1GiB`.

A running server reads the file again when it changes or on SIGHUP. A file with mistakes changes
nothing: the old configuration stays in force and the log says so.

## Environment

`COUNTERSIGN_LISTEN__ADDRESS=127.0.0.1:9000` stands in for `listen.address`: capitals, and two
underscores between the levels. An element of a list is named by its number from 0, as in
`COUNTERSIGN_FILES__0__ROOT`. A list of texts is given whole, separated by commas; a table cannot be
given whole. A variable with `__` that names no key is a mistake like an unknown key.
";

/// The reference of every key, as Markdown.
#[must_use]
pub fn reference() -> String {
    let schema = schema();
    let document =
        toml_edit::ser::to_document(&sample()).expect("the types of the document are TOML's");
    let mut text = HEAD.to_owned();
    text += "\n## The top level\n\n";
    let order: Vec<&str> = document.iter().map(|(key, _)| key).collect();
    let scalars = order
        .iter()
        .copied()
        .filter(|key| !is_section(&schema["properties"][key]));
    table(&mut text, &schema, scalars);
    for key in order
        .iter()
        .copied()
        .filter(|key| is_section(&schema["properties"][key]))
    {
        section(&mut text, key, &schema["properties"][key]);
    }
    text
}

fn section(text: &mut String, path: &str, about: &Value) {
    let (title, inside) = match about.get("items") {
        Some(items) => (format!("[[{path}]]"), items),
        None => (format!("[{path}]"), about),
    };
    let description = about["description"].as_str().unwrap_or_default();
    // Writing to a string cannot fail.
    let _ = write!(text, "\n## `{title}`\n\n{description}\n\n");
    let keys: Vec<&str> = inside["properties"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, _)| key.as_str())
        .collect();
    let required = |key: &&str| is_required(inside, key);
    let (first, rest): (Vec<&str>, Vec<&str>) = keys.iter().copied().partition(required);
    let plain = first
        .into_iter()
        .chain(rest)
        .filter(|key| !is_section(&inside["properties"][key]));
    table(text, inside, plain);
    for key in keys
        .iter()
        .filter(|key| is_section(&inside["properties"][key]))
    {
        section(text, &format!("{path}.{key}"), &inside["properties"][key]);
    }
}

fn table<'a>(text: &mut String, holder: &Value, keys: impl Iterator<Item = &'a str>) {
    *text += "| key | type | meaning |\n|---|---|---|\n";
    for key in keys {
        let about = &holder["properties"][key];
        let must = if is_required(holder, key) {
            " **Required.**"
        } else {
            ""
        };
        let meaning = described(about).replace('|', "\\|");
        let _ = writeln!(text, "| `{key}` | {} | {meaning}{must} |", kind(about));
    }
}

fn is_required(holder: &Value, key: &str) -> bool {
    holder["required"]
        .as_array()
        .is_some_and(|keys| keys.iter().any(|name| name == key))
}

fn is_section(about: &Value) -> bool {
    about.get("properties").is_some() || about.pointer("/items/properties").is_some()
}

fn kind(about: &Value) -> String {
    let words = possible_words(about);
    if !words.is_empty() {
        let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
        return quoted.join(", ");
    }
    match about["format"].as_str() {
        Some("period") => return String::from("span of time"),
        Some("size") => return String::from("size"),
        _ => {}
    }
    if let Some(inside) = about["anyOf"]
        .as_array()
        .and_then(|several| several.first())
    {
        return kind(inside);
    }
    let name = match &about["type"] {
        Value::Array(names) => names
            .iter()
            .find(|name| *name != "null")
            .and_then(Value::as_str),
        name => name.as_str(),
    };
    match name {
        Some("array") => format!("list of {}s", kind(&about["items"])),
        Some("object") => format!("table; each a {}", kind(&about["additionalProperties"])),
        other => other.unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a switch of this test alone")]
    fn configuration_reference() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
        if std::env::var_os("BLESS").is_some() {
            std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/docs")).unwrap();
            std::fs::write(path, reference()).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        let same = committed == reference();
        assert!(
            same,
            "docs/configuration.md is out of date: run this test with BLESS=1"
        );
    }
}
