//! `countersign tools`, `resources` and `prompts`.

use clap::Args;
use serde::Serialize;
use serde::ser::SerializeMap;
use serde_json::Value;
use serde_json::value::RawValue;

use super::exit::{Exit, Failure};
use super::reach::{Reach, ReachArgs};
use super::render::{Out, plain, size, table};
use super::run::on_this_thread;
use crate::client::Listing;

/// What is typed after a list command.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Print the server's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: ReachArgs,
}

/// One kind of list: what is asked, and how an element becomes a row.
#[derive(Debug)]
pub struct Kind {
    empty: &'static str,
    parts: &'static [Part],
}

#[derive(Debug)]
struct Part {
    method: &'static str,
    key: &'static str,
    header: &'static [&'static str],
    row: fn(&Value) -> Vec<String>,
}

/// Tools.
pub const TOOLS: Kind = Kind {
    empty: "there is no tool that this identity may call",
    parts: &[Part {
        method: "tools/list",
        key: "tools",
        header: &["tool", "arguments", "does", "what"],
        row: tool,
    }],
};

/// Resources and their templates.
pub const RESOURCES: Kind = Kind {
    empty: "there is no resource that this identity may read",
    parts: &[
        Part {
            method: "resources/list",
            key: "resources",
            header: &["uri", "type", "size", "what"],
            row: resource,
        },
        Part {
            method: "resources/templates/list",
            key: "resourceTemplates",
            header: &["template", "type", "what"],
            row: template,
        },
    ],
};

/// Prompts.
pub const PROMPTS: Kind = Kind {
    empty: "there is no prompt that this identity may use",
    parts: &[Part {
        method: "prompts/list",
        key: "prompts",
        header: &["prompt", "arguments", "what"],
        row: prompt,
    }],
};

impl ListArgs {
    /// Lists.
    ///
    /// # Errors
    /// Whatever went wrong, with its hint.
    pub fn run(self, out: &mut Out, kind: &Kind) -> Result<Exit, Failure> {
        let listings = on_this_thread(async {
            let mut reach = self.reach.connect().await?;
            let listings = all(&mut reach, kind).await?;
            reach.close().await;
            Ok(listings)
        })?;
        if self.json {
            print_json(out, kind, &listings)?
        } else {
            print(out, kind, &listings)?
        }
        Ok(Exit::Success)
    }
}

async fn all(reach: &mut Reach, kind: &Kind) -> Result<Vec<Listing>, Failure> {
    let mut listings = Vec::with_capacity(kind.parts.len());
    for part in kind.parts {
        listings.push(reach.list(part.method, part.key).await?);
    }
    Ok(listings)
}

/// One page of one list is printed as the server wrote it; anything else as one object that holds
/// every element as the server wrote it.
fn print_json(out: &mut Out, kind: &Kind, listings: &[Listing]) -> Result<(), Failure> {
    if let [
        Listing {
            only: Some(result), ..
        },
    ] = listings
    {
        return out.line(result.get());
    }
    struct Merged<'a>(&'a Kind, &'a [Listing]);
    impl Serialize for Merged<'_> {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut map = serializer.serialize_map(Some(self.1.len()))?;
            for (part, listing) in self.0.parts.iter().zip(self.1) {
                map.serialize_entry(part.key, &listing.items)?;
            }
            map.end()
        }
    }
    match serde_json::value::to_raw_value(&Merged(kind, listings)) {
        Ok(merged) => out.line(merged.get()),
        Err(cause) => Err(Failure::new(Exit::Protocol, cause)),
    }
}

fn print(out: &mut Out, kind: &Kind, listings: &[Listing]) -> Result<(), Failure> {
    let mut text = String::new();
    for (part, listing) in kind
        .parts
        .iter()
        .zip(listings)
        .filter(|(_, listing)| !listing.items.is_empty())
    {
        let rows: Vec<Vec<String>> = listing
            .items
            .iter()
            .map(|item| (part.row)(&value(item)))
            .collect();
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&table(part.header, &rows));
        text.push('\n');
    }
    if text.is_empty() {
        // Not data, so not on stdout.
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), "{}", kind.empty);
        return Ok(());
    }
    out.line(&text)
}

fn value(raw: &RawValue) -> Value {
    serde_json::from_str(raw.get()).unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().map(plain).unwrap_or_default()
}

/// The title, else the first sentence of the description.
fn what(item: &Value) -> String {
    let description = text(&item["description"]);
    match description.split_once(". ") {
        Some((first, _)) => first.to_owned(),
        None if description.is_empty() => text(&item["title"]),
        None => description.trim_end_matches('.').to_owned(),
    }
}

fn tool(item: &Value) -> Vec<String> {
    let schema = &item["inputSchema"];
    let required: Vec<&str> = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let mut arguments: Vec<(bool, String)> = schema["properties"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, property)| (!required.contains(&name.as_str()), argument(name, property)))
        .collect();
    arguments.sort_by_key(|(optional, _)| *optional);
    let arguments: Vec<String> = arguments
        .into_iter()
        .map(|(optional, name)| if optional { format!("[{name}]") } else { name })
        .collect();
    vec![
        text(&item["name"]),
        arguments.join(" "),
        effect(&item["annotations"]).to_owned(),
        what(item),
    ]
}

/// As it is typed after `call`.
fn argument(name: &str, property: &Value) -> String {
    let is_string = property["type"]
        .as_str()
        .is_none_or(|kind| kind == "string");
    format!("{}{}", plain(name), if is_string { "=" } else { ":=" })
}

fn effect(annotations: &Value) -> &'static str {
    let hint = |key: &str, default: bool| annotations[key].as_bool().unwrap_or(default);
    match (hint("readOnlyHint", false), hint("destructiveHint", true)) {
        _ if annotations.is_null() => "",
        (true, _) => "reads",
        (false, false) => "adds",
        (false, true) => "changes",
    }
}

fn resource(item: &Value) -> Vec<String> {
    let bytes = item["size"].as_u64().map(size).unwrap_or_default();
    vec![
        text(&item["uri"]),
        text(&item["mimeType"]),
        bytes,
        what(item),
    ]
}

fn template(item: &Value) -> Vec<String> {
    vec![
        text(&item["uriTemplate"]),
        text(&item["mimeType"]),
        what(item),
    ]
}

fn prompt(item: &Value) -> Vec<String> {
    let arguments: Vec<String> = item["arguments"]
        .as_array()
        .into_iter()
        .flatten()
        .map(
            |argument| match (text(&argument["name"]), argument["required"].as_bool()) {
                (name, Some(true)) => format!("{name}="),
                (name, _) => format!("[{name}=]"),
            },
        )
        .collect();
    vec![text(&item["name"]), arguments.join(" "), what(item)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_tools_row_shows_how_to_call_it() {
        let row = tool(&json!({
            "name": "files__read_file",
            "description": "Reads a file. Nothing else.",
            "inputSchema": {
                "type": "object",
                "properties": {"limit": {"type": "integer"}, "path": {"type": "string"}},
                "required": ["path"]
            },
            "annotations": {"readOnlyHint": true}
        }));
        assert_eq!(
            row,
            [
                "files__read_file",
                "path= [limit:=]",
                "reads",
                "Reads a file"
            ]
        );
        assert_eq!(
            tool(&json!({"name": "x\u{1b}[2J", "title": "X"})),
            ["x[2J", "", "", "X"]
        );
        assert_eq!(effect(&json!({"destructiveHint": false})), "adds");
        assert_eq!(effect(&json!({})), "changes");
    }

    #[test]
    fn other_rows_show_what_is_needed_to_use_them() {
        let row = prompt(
            &json!({"name": "p", "arguments": [{"name": "a", "required": true}, {"name": "b"}]}),
        );
        assert_eq!(row, ["p", "a= [b=]", ""]);
        let row = resource(
            &json!({"uri": "file:///x", "size": 2048, "mimeType": "text/plain", "title": "x"}),
        );
        assert_eq!(row, ["file:///x", "text/plain", "2.0 KiB", "x"]);
    }
}
