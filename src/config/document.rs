//! The TOML text as a JSON value, and where in the text each key and value stands.

use std::collections::HashMap;
use std::ops::Range;

use serde_json::{Map, Number, Value};
use toml_edit::{Document, InlineTable, Item, Key, Table};

use super::mistake::token;

/// A document that is TOML; nothing else is known of it.
#[derive(Debug)]
pub(super) struct Parsed {
    pub value: Value,
    pub places: Places,
}

/// Byte ranges by JSON pointer.
#[derive(Debug, Default)]
pub(super) struct Places {
    text: String,
    keys: HashMap<String, Range<usize>>,
    values: HashMap<String, Range<usize>>,
}

/// The text is no TOML: message, line, column.
#[derive(Debug)]
pub(super) struct Syntax {
    pub message: String,
    pub line: usize,
    pub column: usize,
}

pub(super) fn parse(text: &str) -> Result<Parsed, Syntax> {
    let document = Document::parse(text).map_err(|error| {
        let (line, column) = position(text, error.span().map_or(0, |span| span.start));
        Syntax {
            message: error.message().replace('\n', ", "),
            line,
            column,
        }
    })?;
    let mut places = Places {
        text: text.to_owned(),
        ..Places::default()
    };
    let value = table(document.as_table(), "", &mut places);
    Ok(Parsed { value, places })
}

impl Places {
    /// Line and column of a key or value; of what holds it, where it is not in the text itself.
    pub fn find(&self, pointer: &str, on_key: bool) -> (usize, usize) {
        let (first, second) = if on_key {
            (&self.keys, &self.values)
        } else {
            (&self.values, &self.keys)
        };
        let mut pointer = pointer;
        loop {
            if let Some(range) = first.get(pointer).or_else(|| second.get(pointer)) {
                return position(&self.text, range.start);
            }
            match pointer.rfind('/') {
                Some(end) => pointer = &pointer[..end],
                None => return (1, 1),
            }
        }
    }

    fn note(&mut self, pointer: &str, key: Option<Range<usize>>, value: Option<Range<usize>>) {
        if let Some(range) = key {
            self.keys.entry(pointer.to_owned()).or_insert(range);
        }
        if let Some(range) = value {
            self.values.entry(pointer.to_owned()).or_insert(range);
        }
    }
}

/// Line and column of a byte offset, in characters, from 1.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(offset.min(text.len()))];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (
        before.matches('\n').count() + 1,
        before[line_start..].chars().count() + 1,
    )
}

fn table(table: &Table, pointer: &str, places: &mut Places) -> Value {
    let entries = table
        .iter()
        .filter_map(|(name, item)| Some((name, table.key(name)?, item)));
    let mut object = Map::new();
    for (name, key, item) in entries {
        let value = entry(pointer, name, key, item, places);
        object.insert(name.to_owned(), value);
    }
    Value::Object(object)
}

fn inline_table(table: &InlineTable, pointer: &str, places: &mut Places) -> Value {
    let mut object = Map::new();
    for (name, value) in table {
        let inner = format!("{pointer}/{}", token(name));
        places.note(&inner, table.key(name).and_then(Key::span), value.span());
        object.insert(name.to_owned(), scalar(value, &inner, places));
    }
    Value::Object(object)
}

fn entry(pointer: &str, name: &str, key: &Key, item: &Item, places: &mut Places) -> Value {
    let inner = format!("{pointer}/{}", token(name));
    places.note(&inner, key.span(), item.span());
    match item {
        Item::None => Value::Null,
        Item::Value(value) => scalar(value, &inner, places),
        Item::Table(inside) => table(inside, &inner, places),
        Item::ArrayOfTables(tables) => {
            let each = tables.iter().enumerate().map(|(index, inside)| {
                let element = format!("{inner}/{index}");
                places.note(&element, None, inside.span());
                table(inside, &element, places)
            });
            Value::Array(each.collect())
        }
    }
}

fn scalar(value: &toml_edit::Value, pointer: &str, places: &mut Places) -> Value {
    use toml_edit::Value as Toml;
    match value {
        Toml::String(text) => Value::String(text.value().clone()),
        Toml::Integer(number) => Value::Number((*number.value()).into()),
        // What JSON cannot say (`nan`, `inf`) becomes null, which fits no type of ours.
        Toml::Float(number) => Number::from_f64(*number.value()).map_or(Value::Null, Value::Number),
        Toml::Boolean(yes) => Value::Bool(*yes.value()),
        // No key of ours is a date; an empty object fits no key that a date could stand for.
        Toml::Datetime(_) => Value::Object(Map::new()),
        Toml::Array(values) => {
            let each = values.iter().enumerate().map(|(index, value)| {
                let element = format!("{pointer}/{index}");
                places.note(&element, None, value.span());
                scalar(value, &element, places)
            });
            Value::Array(each.collect())
        }
        Toml::InlineTable(inside) => inline_table(inside, pointer, places),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_their_places_are_found() {
        let text = "x = 1\n\n[listen]\n  'é'.b = [\"a\",\n  'b']\n[[anchor]]\nname = \"n\"\n[[anchor]]\nin = {q = 1.5}\n";
        let parsed = parse(text).unwrap();
        assert_eq!(parsed.value["listen"]["é"]["b"][1], "b");
        assert_eq!(parsed.value["anchor"][1]["in"]["q"], 1.5);
        let at = |pointer: &str| parsed.places.find(pointer, false);
        assert_eq!(at("/x"), (1, 5));
        assert_eq!(parsed.places.find("/x", true), (1, 1));
        assert_eq!(at("/listen"), (3, 1));
        assert_eq!(at("/listen/missing"), (3, 1));
        assert_eq!(at("/listen/é/b/0"), (4, 12));
        assert_eq!(at("/listen/é/b/1"), (5, 3));
        assert_eq!(at("/anchor/0/name"), (7, 8));
        assert_eq!(at("/anchor/1"), (8, 1));
        assert_eq!(at("/anchor/1/in/q"), (9, 11));
        assert_eq!(at("/nothing"), (1, 1));
    }

    #[test]
    fn what_is_no_toml_is_refused_with_its_place() {
        assert!(parse("a = 1\nb = 2\n").is_ok());
        let error = parse("a = 1\nb = = 2\n").unwrap_err();
        assert_eq!((error.line, error.column), (2, 5));
        let error = parse("a = 1\na = 2\n").unwrap_err();
        assert_eq!(
            (error.line, error.message.contains("duplicate")),
            (2, true),
            "{error:?}"
        );
    }
}
