//! Commented documents: the complete example, and the one that `countersign up` writes.
//!
//! The comments come from the schema and the values from the same types that are read, so neither
//! can drift from what the program does.

use std::path::PathBuf;

use serde_json::Value;
use toml_edit::Value as Toml;

use crate::backend::files::FilesOptions;
use crate::backend::prompts::{ArgumentOptions, ArgumentType, MessageOptions, PromptOptions, Role};
use crate::policy::{Denials, PolicyOptions, RuleOptions};
use crate::tls::{AnchorOptions, CrlMode, NameFrom};

use super::resolve::Config;
use super::schema::schema;
use super::shape::part;
use super::written::{
    AuditSection, CaSection, LimitsSection, ListenSection, MinVersion, RegistrySection,
    ServerSection, TlsSection, Written, WrittenRoles,
};

/// Where `countersign up` keeps what it made, as the configuration beside it names it.
#[derive(Clone, Debug)]
pub struct DevPaths {
    /// Where to listen.
    pub address: String,
    /// The server's chain.
    pub certificate: PathBuf,
    /// The server's key.
    pub key: PathBuf,
    /// The root certificate.
    pub bundle: PathBuf,
    /// The registry.
    pub registry: PathBuf,
    /// The audit log.
    pub audit: PathBuf,
    /// The folder whose files are offered.
    pub files: PathBuf,
    /// The CA's folder.
    pub ca: PathBuf,
}

/// The complete example: every key there is, with its meaning, those with a default commented out.
#[must_use]
pub fn example() -> String {
    let head = "# countersign.toml: every key there is. What is commented out is either the default or an\n\
                # example of a key that is usually left out.\n";
    render(&sample(), head, true)
}

impl Config {
    /// The commented `countersign.toml` that `countersign up` writes.
    #[must_use]
    pub fn dev_example(paths: &DevPaths) -> String {
        let head = "# Made by `countersign up`, for trying things out on this machine. It is read again when it\n\
                    # changes. `countersign config check` tells what is wrong with it, `countersign config\n\
                    # example` shows every key there is.\n";
        render(&dev(paths), head, false)
    }
}

/// Values for the complete example. Everything that can be there is there.
pub(super) fn sample() -> Written {
    let some = |text: &str| Some(text.to_owned());
    Written {
        permission_oid: String::from("1.3.6.1.4.1.32473.8.1"),
        listen: ListenSection::default(),
        tls: TlsSection {
            certificate: "server.pem".into(),
            key: "server.key".into(),
            key_passphrase_file: Some("server.passphrase".into()),
            min_version: MinVersion::Tls13,
        },
        anchor: vec![AnchorOptions {
            name: String::from("own"),
            bundle: "root.pem".into(),
            mode: some("pinned"),
            identity_from: NameFrom::Spiffe,
            crl: Some(CrlMode::Require),
            crl_file: Some("root.crl".into()),
            ceiling: Some(vec!["tools:*".into(), "resources:*".into()]),
        }],
        registry: RegistrySection::default(),
        policy: PolicyOptions {
            denials: Denials::Hide,
            roles: roles(),
            rule: vec![RuleOptions {
                name: String::from("agents do not delete"),
                who: vec!["spiffe://countersign.internal/agents/*".into()],
                deny: vec!["tools:files__delete_*".into()],
            }],
        },
        audit: AuditSection::default(),
        limits: LimitsSection {
            calls_per_second: Some(50),
            call_burst: Some(100),
            idle_timeout: "1h".parse().ok(),
            ..LimitsSection::default()
        },
        server: ServerSection {
            title: some("Files of the docs team"),
            instructions: some("Read before you write."),
            ..ServerSection::default()
        },
        files: vec![FilesOptions {
            writable: true,
            ..FilesOptions::new("files")
        }],
        prompt: vec![prompt()],
        ca: CaSection {
            dir: Some("ca".into()),
            profiles: Some("profiles".into()),
        },
    }
}

fn dev(paths: &DevPaths) -> Written {
    Written {
        permission_oid: String::from("1.3.6.1.4.1.32473.8.1"),
        listen: ListenSection {
            address: vec![paths.address.clone()],
            ..ListenSection::default()
        },
        tls: TlsSection {
            certificate: paths.certificate.clone(),
            key: paths.key.clone(),
            key_passphrase_file: None,
            min_version: MinVersion::Tls13,
        },
        anchor: vec![AnchorOptions {
            name: String::from("dev"),
            bundle: paths.bundle.clone(),
            mode: None,
            identity_from: NameFrom::Spiffe,
            crl: None,
            crl_file: None,
            ceiling: None,
        }],
        registry: RegistrySection {
            path: paths.registry.clone(),
            ..RegistrySection::default()
        },
        // A reader should see why it was refused while somebody tries things out.
        policy: PolicyOptions {
            denials: Denials::Explain,
            roles: roles(),
            rule: Vec::new(),
        },
        audit: AuditSection {
            path: paths.audit.clone(),
            ..AuditSection::default()
        },
        limits: LimitsSection::default(),
        server: ServerSection::default(),
        files: vec![FilesOptions {
            writable: true,
            ..FilesOptions::new(&paths.files)
        }],
        prompt: vec![prompt()],
        ca: CaSection {
            dir: Some(paths.ca.clone()),
            profiles: None,
        },
    }
}

fn roles() -> WrittenRoles {
    let reader = [
        "tools:*__list_*",
        "tools:*__read_*",
        "tools:*__search_*",
        "tools:*__file_info",
    ];
    let mut reader: Vec<String> = reader.map(str::to_owned).into();
    reader.extend(["tools:self__whoami", "resources:*", "prompts:*"].map(str::to_owned));
    WrittenRoles::from([
        (String::from("operator"), vec!["*".into(), "admin:*".into()]),
        (String::from("reader"), reader),
    ])
}

fn prompt() -> PromptOptions {
    let argument = |name: &str, description: &str| ArgumentOptions {
        name: name.to_owned(),
        title: None,
        description: Some(description.to_owned()),
        required: false,
        kind: ArgumentType::String,
        values: Vec::new(),
        default: None,
    };
    let length = argument("length", "How long the summary may be");
    PromptOptions {
        name: String::from("summarize"),
        title: Some(String::from("Summarize a file")),
        description: Some(String::from("Asks for a summary of one file")),
        arguments: vec![
            ArgumentOptions {
                required: true,
                ..argument("path", "The file, relative to the folder")
            },
            ArgumentOptions {
                title: Some(String::from("Length")),
                kind: ArgumentType::Enum,
                values: ["short", "long"].map(str::to_owned).into(),
                default: Some(String::from("short")),
                ..length
            },
        ],
        messages: vec![MessageOptions {
            role: Role::User,
            text: String::from("Read the file {{path}} and give me a {{length}} summary of it."),
        }],
    }
}

/// One document being written.
struct Writer<'a> {
    schema: &'a Value,
    text: String,
    /// Whether optional keys are shown commented out.
    complete: bool,
}

fn render(written: &Written, head: &str, complete: bool) -> String {
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

/// Paths as `countersign up` would give them.
#[cfg(test)]
pub(super) fn dev_paths(folder: &std::path::Path) -> DevPaths {
    DevPaths {
        address: String::from("127.0.0.1:8443"),
        certificate: folder.join("server.pem"),
        key: folder.join("server.key"),
        bundle: folder.join("root.pem"),
        registry: folder.join("registry.sqlite"),
        audit: folder.join("audit.jsonl"),
        files: folder.join("files"),
        ca: folder.join("ca"),
    }
}
