//! A document as commented TOML: values from the document, comments from the schema.

use serde_json::Value;
use toml_edit::Value as Toml;

use super::schema::schema;
use super::shape::part;
use super::written::Written;

/// One document being written.
struct Writer<'a> {
    schema: &'a Value,
    text: String,
    /// Whether optional keys are shown commented out.
    complete: bool,
}

/// `complete`: optional keys are shown too, commented out.
pub(super) fn render(written: &Written, head: &str, complete: bool) -> String {
    let document =
        toml_edit::ser::to_document(written).expect("the types of the document are TOML's");
    let schema = schema();
    let text = format!("{head}\n");
    let mut writer = Writer {
        schema: &schema,
        text,
        complete,
    };
    let entries: Vec<(String, Toml)> = document
        .iter()
        .filter_map(|(key, item)| Some((key.to_owned(), item.clone().into_value().ok()?)))
        .collect();
    writer.table("", "", &entries);
    let mut text = writer.text;
    while text.contains("\n\n\n") {
        text = text.replace("\n\n\n", "\n\n");
    }
    text.truncate(text.trim_end().len());
    text + "\n"
}

impl Writer<'_> {
    /// Plain keys first, then what has a header of its own, as TOML wants it.
    fn table(&mut self, pointer: &str, header: &str, entries: &[(String, Toml)]) {
        let (nested, plain): (Vec<_>, Vec<_>) =
            entries.iter().partition(|(_, value)| has_header(value));
        for (key, value) in plain {
            if is_no_section(value, part(self.schema, &format!("{pointer}/{key}"))) {
                continue;
            }
            self.key(&format!("{pointer}/{key}"), key, value);
        }
        for (key, value) in nested {
            let dot = if header.is_empty() { "" } else { "." };
            let (pointer, header) = (format!("{pointer}/{key}"), format!("{header}{dot}{key}"));
            self.nested(&pointer, &header, value);
        }
    }

    fn nested(&mut self, pointer: &str, header: &str, value: &Toml) {
        let of = |table: &toml_edit::InlineTable| -> Vec<(String, Toml)> {
            table
                .iter()
                .map(|(key, value)| (key.to_owned(), value.clone()))
                .collect()
        };
        self.text.push('\n');
        self.comment(part(self.schema, pointer));
        match value {
            Toml::Array(tables) => {
                let each = tables.iter().enumerate();
                for (index, table) in
                    each.filter_map(|(i, value)| Some((i, value.as_inline_table()?)))
                {
                    if index > 0 {
                        self.text.push('\n');
                    }
                    self.text += &format!("[[{header}]]\n");
                    self.table(&format!("{pointer}/{index}"), header, &of(table));
                }
            }
            Toml::InlineTable(table) => {
                self.text += &format!("[{header}]\n");
                self.table(pointer, header, &of(table));
            }
            _ => {}
        }
    }

    fn key(&mut self, pointer: &str, key: &str, value: &Toml) {
        let about = part(self.schema, pointer);
        let documented = about.is_some_and(|about| about.get("description").is_some());
        if documented {
            self.comment(about);
        }
        let default = about.and_then(|about| about.get("default"));
        let is_default = default.is_some_and(|default| same(default, value));
        let left_out = self.complete && default.is_some_and(Value::is_null);
        let hash = if is_default || left_out { "#" } else { "" };
        self.text += &format!("{hash}{key} = {}\n", value.to_string().trim());
        if documented {
            self.text.push('\n');
        }
    }

    fn comment(&mut self, about: Option<&Value>) {
        let Some(about) = about else { return };
        for line in wrap(&described(about), 96) {
            self.text += &format!("# {line}\n");
        }
    }
}

/// The description with bounds and default, as the example and the reference tell it.
pub(super) fn described(about: &Value) -> String {
    let mut text = about["description"].as_str().unwrap_or_default().to_owned();
    match (
        about.get("minimum").filter(|least| **least != 0),
        about.get("maximum"),
    ) {
        (Some(least), Some(most)) => text += &format!(" From {least} to {most}."),
        (Some(least), None) => text += &format!(" At least {least}."),
        _ => {}
    }
    let told = text.contains("efault");
    if let Some(default) = about
        .get("default")
        .filter(|value| !told && is_plain(value))
    {
        text += &format!(" Default: `{}`.", plain(default));
    }
    text
}

fn is_plain(value: &Value) -> bool {
    match value {
        Value::Null | Value::Object(_) => false,
        Value::Array(items) => !items.is_empty() && items.iter().all(Value::is_string),
        _ => true,
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn same(default: &Value, value: &Toml) -> bool {
    match (default, value) {
        (Value::String(a), Toml::String(b)) => a == b.value(),
        (Value::Bool(a), Toml::Boolean(b)) => a == b.value(),
        (Value::Number(a), Toml::Integer(b)) => a.as_i64() == Some(*b.value()),
        (Value::Array(a), Toml::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| same(a, b))
        }
        _ => false,
    }
}

/// A list of tables without any: `[[rule]]` cannot be shown empty.
fn is_no_section(value: &Toml, about: Option<&Value>) -> bool {
    let tables = about.is_some_and(|about| about.pointer("/items/properties").is_some());
    tables && value.as_array().is_some_and(toml_edit::Array::is_empty)
}

fn has_header(value: &Toml) -> bool {
    match value {
        Toml::InlineTable(_) => true,
        Toml::Array(items) => items.iter().next().is_some_and(Toml::is_inline_table),
        _ => false,
    }
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
