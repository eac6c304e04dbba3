//! Environment variables that stand in for keys of the document.
//!
//! `COUNTERSIGN_LISTEN__ADDRESS=127.0.0.1:9000` is `listen.address`: the levels are separated by
//! two underscores and written in capitals. An element of a list is named by its number from 0
//! (`COUNTERSIGN_FILES__0__ROOT`). A list is given whole, separated by commas. Tables cannot be
//! given whole. Variables that start with `COUNTERSIGN_`, have no `__` in them and name no key of
//! the top level are not for the configuration and left alone.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::mistake::{Problem, token};
use super::shape::{nearest, part};

const PREFIX: &str = "COUNTERSIGN_";

/// Which variable stands at which place, and what was wrong with others.
#[derive(Debug, Default)]
pub(super) struct Applied {
    /// Variable names by JSON pointer.
    pub variables: BTreeMap<String, String>,
    /// Variable name and problem.
    pub problems: Vec<(String, Problem)>,
}

pub(super) fn apply(
    document: &mut Value,
    schema: &Value,
    environment: impl Iterator<Item = (String, String)>,
) -> Applied {
    let mut ours: Vec<_> = environment
        .filter(|(name, _)| name.starts_with(PREFIX))
        .collect();
    ours.sort();
    let mut applied = Applied::default();
    for (name, text) in ours {
        let levels = name[PREFIX.len()..].to_ascii_lowercase();
        let pointer: String = levels
            .split("__")
            .map(|level| format!("/{}", token(level)))
            .collect();
        let Some(expected) = part(schema, &pointer) else {
            if levels.contains("__") {
                let problem = Problem::at(
                    &pointer,
                    format!("there is no key `{}`", levels.replace("__", ".")),
                );
                let hint = near(schema, &levels).map(|near| format!("did you mean `{near}`?"));
                applied.problems.push((name, Problem { hint, ..problem }));
            }
            continue;
        };
        match read(&text, expected).and_then(|value| put(document, schema, &pointer, value)) {
            Ok(()) => {
                applied.variables.insert(pointer, name);
            }
            Err(message) => applied
                .problems
                .push((name, Problem::at(&pointer, message))),
        }
    }
    applied
}

/// The variable's text as the value that the schema expects. A text that does not fit is taken as
/// it is: checking the shape tells what is wrong with it.
fn read(text: &str, schema: &Value) -> Result<Value, String> {
    let own = || Value::String(text.to_owned());
    let types = types(schema);
    let is = |name: &str| types.iter().any(|known| known == name);
    if is("object") || schema.pointer("/items/properties").is_some() {
        return Err(String::from(
            "a table cannot be given whole: name one of its keys",
        ));
    }
    if is("array") {
        let items = text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty());
        return items
            .map(|item| read(item, &schema["items"]))
            .collect::<Result<_, _>>()
            .map(Value::Array);
    }
    if is("integer")
        && let Ok(number) = text.parse::<i64>()
    {
        return Ok(number.into());
    }
    if is("boolean")
        && let Ok(yes) = text.parse::<bool>()
    {
        return Ok(yes.into());
    }
    Ok(own())
}

fn types(schema: &Value) -> Vec<String> {
    match &schema["type"] {
        Value::String(name) => vec![name.clone()],
        Value::Array(names) => names
            .iter()
            .filter_map(|n| n.as_str().map(str::to_owned))
            .collect(),
        _ => {
            let several = ["anyOf", "oneOf"]
                .into_iter()
                .filter_map(|key| schema[key].as_array());
            several.flatten().flat_map(types).collect()
        }
    }
}

/// Puts a value into the document; tables on the way are made, elements of lists are not.
fn put(document: &mut Value, schema: &Value, pointer: &str, value: Value) -> Result<(), String> {
    let mut tokens: Vec<String> = super::mistake::tokens(pointer).collect();
    let last = tokens.pop().unwrap_or_default();
    let mut place = document;
    let mut schema = schema;
    for token in tokens {
        place = match place {
            Value::Array(items) => {
                schema = &schema["items"];
                element(items, &token)?
            }
            Value::Object(object) => {
                schema = &schema["properties"][&token];
                if schema.get("items").is_some() && !object.contains_key(&token) {
                    return Err(format!(
                        "the file has no `{token}` of which to change an element"
                    ));
                }
                object
                    .entry(token)
                    .or_insert_with(|| Value::Object(Map::new()))
            }
            // The file has something else there; checking the shape tells.
            _ => return Ok(()),
        };
    }
    match place {
        Value::Object(object) => drop(object.insert(last, value)),
        Value::Array(items) => *element(items, &last)? = value,
        _ => {}
    }
    Ok(())
}

fn element<'a>(items: &'a mut [Value], token: &str) -> Result<&'a mut Value, String> {
    let found = token
        .parse::<usize>()
        .ok()
        .and_then(|index| items.get_mut(index));
    found.ok_or_else(|| format!("the list in the file has no element `{token}`"))
}

/// The nearest variable name that there is, level by level.
fn near(schema: &Value, levels: &str) -> Option<String> {
    let mut schema = schema;
    let mut found = Vec::new();
    for level in levels.split("__") {
        let inside = schema.get("items").unwrap_or(schema);
        if level.bytes().all(|b| b.is_ascii_digit()) && schema.get("items").is_some() {
            found.push(level.to_owned());
            schema = inside;
            continue;
        }
        let known: Vec<String> = inside["properties"].as_object()?.keys().cloned().collect();
        let name = nearest(level, &known)?.to_owned();
        schema = &inside["properties"][&name];
        found.push(name);
    }
    Some(format!("{PREFIX}{}", found.join("__").to_ascii_uppercase()))
}
