//! `countersign whoami`.

use clap::Args;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::content::{self, Members, ToolResult};
use super::exit::{Exit, Failure};
use super::reach::ReachArgs;
use super::render::{Out, plain, table};
use super::run::on_this_thread;
use crate::ca::remaining;
use crate::client::Request;
use crate::clock::{UnixTime, unix_now};

/// The tool that answers.
const TOOL: &str = "self__whoami";

/// What people ask first; the rest follows as the server tells it.
const ORDER: [&str; 7] = [
    "name",
    "permissions",
    "limited_by",
    "not_before",
    "not_after",
    "fingerprint",
    "serial",
];

/// What is typed after `whoami`.
#[derive(Debug, Args)]
pub struct WhoamiArgs {
    /// Print the result as the server's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: ReachArgs,
}

impl WhoamiArgs {
    /// Asks the server.
    ///
    /// # Errors
    /// Whatever went wrong, with its hint.
    pub fn run(self, out: &mut Out) -> Result<Exit, Failure> {
        let result = on_this_thread(async {
            let mut reach = self.reach.connect().await?;
            let request = Request::new("tools/call").with_text("name", TOOL);
            let result = reach.ask(&request, &mut |_| {}).await?;
            reach.close().await;
            Ok(result)
        })?;
        if self.json {
            out.line(result.get())?;
        }
        let answer: ToolResult = content::read(&result)?;
        if answer.is_error {
            return Err(Failure::new(
                Exit::Found,
                format!("`{TOOL}` failed: {}", answer.complaint()),
            ));
        }
        if self.json {
            return Ok(Exit::Success);
        }
        let members = answer
            .structured_content
            .as_deref()
            .map(content::read::<Members>)
            .transpose()?;
        match members {
            Some(Members(mut members)) => {
                let mut rows = Vec::new();
                members.sort_by_key(|(key, _)| {
                    ORDER
                        .iter()
                        .position(|first| first == key)
                        .unwrap_or(ORDER.len())
                });
                if let Some(left) = left(&members) {
                    members.insert(1, ("valid".to_owned(), left.into()));
                }
                flatten("", &members, &mut rows);
                out.line(&table(&[], &rows))?;
            }
            None => answer.show(out)?,
        }
        Ok(Exit::Success)
    }
}

/// How long the certificate is still good, where the server tells its end.
fn left(members: &[(String, Value)]) -> Option<String> {
    let time = |wanted: &str| {
        let (_, value) = members.iter().find(|(key, _)| key == wanted)?;
        let time = OffsetDateTime::parse(value.as_str()?, &Rfc3339).ok()?;
        Some(UnixTime(time.unix_timestamp()))
    };
    Some(remaining(
        time("not_before")?,
        time("not_after")?,
        unix_now(),
    ))
}

/// One row a fact; a list of facts takes a row each, an object's members are indented below it.
fn flatten(indent: &str, members: &[(String, Value)], rows: &mut Vec<Vec<String>>) {
    for (key, value) in members {
        let label = format!("{indent}{}", plain(&spaced(key)));
        match value {
            Value::Null => {}
            Value::Array(items) if items.is_empty() => rows.push(vec![label, "none".to_owned()]),
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    let label = if index == 0 {
                        label.clone()
                    } else {
                        String::new()
                    };
                    rows.push(vec![label, said(item)]);
                }
            }
            Value::Object(inner) => {
                rows.push(vec![label, String::new()]);
                let inner: Vec<_> = inner
                    .iter()
                    .map(|(key, value)| (key.clone(), value.clone()))
                    .collect();
                flatten(&format!("{indent}  "), &inner, rows);
            }
            other => rows.push(vec![label, said(other)]),
        }
    }
}

fn said(value: &Value) -> String {
    match value {
        Value::String(text) => plain(text),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        // A layer of the permission set, as `self__whoami` writes it.
        Value::Object(members)
            if members.contains_key("grants") && members.contains_key("source") =>
        {
            let part = |key| members.get(key).map(said).unwrap_or_default();
            format!("{} {} {}", part("source"), part("effect"), part("grants"))
        }
        Value::Object(members) => {
            let parts: Vec<String> = members
                .iter()
                .map(|(key, value)| format!("{}: {}", spaced(key), said(value)))
                .collect();
            parts.join(", ")
        }
        Value::Array(items) => items.iter().map(said).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// `notAfter` and `not_after` as `not after`.
fn spaced(key: &str) -> String {
    let mut text = String::with_capacity(key.len() + 4);
    for c in key.chars() {
        match c {
            '_' | '-' => text.push(' '),
            c if c.is_uppercase() => {
                text.push(' ');
                text.extend(c.to_lowercase());
            }
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn facts_become_rows() {
        let members = vec![
            ("name".to_owned(), json!("spiffe://d/operator")),
            ("notAfter".to_owned(), json!("2026-11-28T00:00:00Z")),
            ("permissions".to_owned(), json!(["tools:*", "resources:*"])),
            (
                "tls".to_owned(),
                json!({"version": "TLSv1.3", "resumed": false}),
            ),
            (
                "layers".to_owned(),
                json!([{"source": "pin ab", "effect": "allows", "grants": ["tools:*", "prompts:*"]}]),
            ),
            ("pin".to_owned(), Value::Null),
            ("roles".to_owned(), json!([])),
        ];
        let mut rows = Vec::new();
        flatten("", &members, &mut rows);
        let rows: Vec<String> = rows.iter().map(|row| row.join("|")).collect();
        assert_eq!(
            rows,
            [
                "name|spiffe://d/operator",
                "not after|2026-11-28T00:00:00Z",
                "permissions|tools:*",
                "|resources:*",
                "tls|",
                "  resumed|no",
                "  version|TLSv1.3",
                "layers|pin ab allows tools:*, prompts:*",
                "roles|none",
            ]
        );
    }
}
