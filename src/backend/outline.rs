//! Large arguments as a schema sees them that does not look into text: long strings stand empty.
//!
//! Sixty-four kilobytes of text would be copied, checked and thrown away only to learn that they
//! are a string. Whatever this cannot read it leaves to the whole parse, which says why.

use serde_json::{Map, Value};

use crate::jsonrpc::{array_items, fields, string_value};

/// Bytes of arguments below which the whole parse is as quick.
const LARGE: usize = 4096;
/// Bytes of a raw string above which its text is left out.
const LONG: usize = 256;
/// As deep as the whole parse goes.
const DEPTH: usize = 128;

/// Whether a schema judges arguments the same whatever their strings hold. Only keywords that are
/// known to be blind are let pass; below `properties` everything is a name.
pub fn is_blind_to_text(schema: &Value) -> bool {
    let Value::Object(keywords) = schema else {
        return schema.is_boolean();
    };
    keywords
        .iter()
        .all(|(keyword, value)| match keyword.as_str() {
            "$schema" | "$comment" | "title" | "description" | "default" | "examples" | "type"
            | "required" | "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum"
            | "multipleOf" | "minItems" | "maxItems" | "minProperties" | "maxProperties" => true,
            "items" | "additionalProperties" => is_blind_to_text(value),
            "properties" => value
                .as_object()
                .is_some_and(|properties| properties.values().all(is_blind_to_text)),
            _ => false,
        })
}

/// The outline of `raw`, JSON that the envelope scan found valid. None: it is small, or it is for
/// the whole parse to say what is wrong with it.
pub fn outline(raw: &[u8]) -> Option<Value> {
    if raw.len() < LARGE {
        return None;
    }
    value(raw, DEPTH)
}

fn value(raw: &[u8], depth: usize) -> Option<Value> {
    let depth = depth.checked_sub(1)?;
    match raw.first()? {
        b'{' => {
            let mut object = Map::new();
            for field in fields(raw).ok()? {
                let (key, inner) = field.ok()?;
                // A key that stands twice is a mistake; the whole parse names it.
                if object
                    .insert(key.into_owned(), value(inner, depth)?)
                    .is_some()
                {
                    return None;
                }
            }
            Some(Value::Object(object))
        }
        b'[' => array_items(raw).map(|item| value(item, depth)).collect(),
        b'"' if raw.len() > LONG && memchr::memchr(b'\\', raw).is_none() => {
            Some(Value::String(String::new()))
        }
        b'"' => string_value(raw).map(|text| Value::String(text.into_owned())),
        _ => serde_json::from_slice(raw).ok(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_schemas_that_do_not_look_into_text_are_blind() {
        let of = |inner: Value| json!({"type": "object", "properties": {"pattern": inner}});
        for blind in [
            json!({"type": "string", "description": "any"}),
            json!({"type": ["integer", "null"], "minimum": 1}),
            json!({"type": "array", "items": {"type": "string"}, "maxItems": 3}),
            json!(true),
        ] {
            assert!(is_blind_to_text(&of(blind.clone())), "{blind}");
        }
        for looking in [
            json!({"type": "string", "maxLength": 3}),
            json!({"enum": ["a"]}),
            json!({"type": "string", "format": "uri"}),
            json!({"type": "array", "uniqueItems": true}),
            json!({"anyOf": [{"type": "string", "pattern": "a"}]}),
            json!({"$ref": "#/x"}),
        ] {
            assert!(!is_blind_to_text(&of(looking.clone())), "{looking}");
        }
    }

    #[test]
    fn an_outline_is_the_value_without_its_long_texts() {
        let (long, escaped) = ("x".repeat(5000), "\\n".repeat(300));
        let raw = format!(
            r#"{{"a":"{long}","b":["{long}",1.5,{{"c":null}}],"d":"short","e":"{escaped}"}}"#
        );
        assert_eq!(
            outline(raw.as_bytes()).unwrap(),
            json!({"a": "", "b": ["", 1.5, {"c": null}], "d": "short", "e": "\n".repeat(300)})
        );
    }

    #[test]
    fn what_it_cannot_read_is_left_to_the_whole_parse() {
        let long = "x".repeat(5000);
        for raw in [
            String::from(r#"{"a":1}"#),
            format!(r#"{{"a":"{long}","a":1}}"#),
            format!(r#"{{"a":"{long}","b":1e999}}"#),
            format!(r#"{{"a":"{long}\ud800"}}"#),
            format!("{}\"{long}\"{}", "[".repeat(200), "]".repeat(200)),
        ] {
            assert_eq!(outline(raw.as_bytes()), None);
        }
    }
}
