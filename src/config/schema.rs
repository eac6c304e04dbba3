//! The JSON Schema of the document: what `config schema` prints and what checks the shape.

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::written::Written;

/// JSON Schema, draft 2020-12, everything in place. Spans of time and sizes have the formats
/// `period` and `size`, which other validators pass over.
#[must_use]
pub fn schema() -> Value {
    let settings =
        SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<Written>();
    schema.insert("title".into(), "countersign.toml".into());
    flow(schema.as_value().clone())
}

/// Descriptions come from source lines: what was broken there for width flows again.
fn flow(mut value: Value) -> Value {
    match &mut value {
        Value::Object(object) => {
            for (key, inside) in object.iter_mut() {
                match inside {
                    Value::String(text) if key == "description" => {
                        *text = text
                            .split("\n\n")
                            .map(|p| p.replace('\n', " "))
                            .collect::<Vec<_>>()
                            .join("\n\n");
                    }
                    _ => *inside = flow(inside.take()),
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                *item = flow(item.take());
            }
        }
        _ => {}
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every key at every depth, with its schema.
    fn keys(schema: &Value, path: &str, found: &mut Vec<(String, Value)>) {
        for (name, part) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            found.push((path.clone(), part.clone()));
            keys(part, &path, found);
            keys(&part["items"], &path, found);
        }
    }

    #[test]
    fn every_key_is_documented_and_unknown_ones_are_refused_everywhere() {
        let schema = schema();
        let mut found = Vec::new();
        keys(&schema, "", &mut found);
        assert!(found.len() > 50, "{}", found.len());
        for (path, part) in found {
            let description = part["description"].as_str().unwrap_or_default();
            assert!(description.len() > 10, "{path} has no description");
            assert!(
                description.ends_with('.') || description.ends_with('`'),
                "{path}: {description}"
            );
            for table in [&part, &part["items"]] {
                if table.get("properties").is_some() {
                    assert_eq!(table["additionalProperties"], false, "{path}");
                }
            }
        }
        assert_eq!(schema["additionalProperties"], false);
    }
}
