//! `x-mcp-header` in a tool's input schema: arguments that HTTP clients of revision 2026-07-28 repeat
//! in a header `Mcp-Param-…`.

use serde_json::Value;

/// One argument that is repeated in a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamHeader {
    /// The header's whole name, lower case.
    pub header: String,
    /// Member names from the arguments' top to the value.
    pub path: Vec<String>,
}

/// What clients would refuse the tool for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Not the name of a header.
    #[error("`x-mcp-header` at `{0}` is not a token")]
    Name(String),
    /// Two arguments with one header.
    #[error("two properties have the `x-mcp-header` `{0}`")]
    Twice(String),
    /// Neither string nor integer nor boolean.
    #[error("`x-mcp-header` at `{0}` belongs to no string, integer or boolean")]
    Type(String),
    /// Not reached through `properties` alone.
    #[error("`x-mcp-header` stands where no argument has a fixed place")]
    Place,
}

/// The arguments that a schema has repeated in headers.
///
/// # Errors
/// [`HeaderError`].
pub fn param_headers(schema: &str) -> Result<Vec<ParamHeader>, HeaderError> {
    // Most schemas have none: they are not parsed.
    if !schema.contains("x-mcp-header") {
        return Ok(Vec::new());
    }
    let Ok(schema) = serde_json::from_str::<Value>(schema) else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    walk(&schema, &mut Vec::new(), &mut found)?;
    if occurrences(&schema) > found.len() {
        return Err(HeaderError::Place);
    }
    Ok(found)
}

fn walk(
    schema: &Value,
    path: &mut Vec<String>,
    found: &mut Vec<ParamHeader>,
) -> Result<(), HeaderError> {
    if let Some(name) = schema.get("x-mcp-header").filter(|_| !path.is_empty()) {
        let at = path.join(".");
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let name = name
            .as_str()
            .filter(|name| !name.is_empty() && name.bytes().all(token));
        let Some(name) = name else {
            return Err(HeaderError::Name(at));
        };
        if !matches!(
            schema["type"].as_str(),
            Some("string" | "integer" | "boolean")
        ) {
            return Err(HeaderError::Type(at));
        }
        let header = format!("mcp-param-{}", name.to_ascii_lowercase());
        if found.iter().any(|known| known.header == header) {
            return Err(HeaderError::Twice(name.to_owned()));
        }
        found.push(ParamHeader {
            header,
            path: path.clone(),
        });
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        path.push(name.clone());
        walk(property, path, found)?;
        path.pop();
    }
    Ok(())
}

fn occurrences(value: &Value) -> usize {
    match value {
        Value::Object(members) => members
            .iter()
            // A property may itself be called so; then its schema is an object.
            .map(|(key, value)| {
                usize::from(key == "x-mcp-header" && !value.is_object()) + occurrences(value)
            })
            .sum(),
        Value::Array(items) => items.iter().map(occurrences).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_found_through_properties_alone() {
        let schema = r#"{"type":"object","properties":{
            "region":{"type":"string","x-mcp-header":"Region"},
            "deep":{"type":"object","properties":{"n":{"type":"integer","x-mcp-header":"N"}}}}}"#;
        let mut found = param_headers(schema).unwrap();
        found.sort_by(|a, b| a.header.cmp(&b.header));
        let path = |path: &[&str]| {
            path.iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            found,
            [
                ParamHeader {
                    header: "mcp-param-n".into(),
                    path: path(&["deep", "n"])
                },
                ParamHeader {
                    header: "mcp-param-region".into(),
                    path: path(&["region"])
                },
            ]
        );
        assert_eq!(param_headers(r#"{"type":"object"}"#), Ok(Vec::new()));
    }

    #[test]
    fn what_clients_refuse_is_refused_here() {
        let of = |property: &str| {
            param_headers(&format!(
                r#"{{"type":"object","properties":{{{property}}}}}"#
            ))
        };
        assert!(of(r#""a":{"type":"string","x-mcp-header":"A"}"#).is_ok());
        assert!(matches!(
            of(r#""a":{"type":"string","x-mcp-header":"A b"}"#),
            Err(HeaderError::Name(_))
        ));
        assert!(matches!(
            of(r#""a":{"type":"number","x-mcp-header":"A"}"#),
            Err(HeaderError::Type(_))
        ));
        let twice =
            r#""a":{"type":"string","x-mcp-header":"A"},"b":{"type":"string","x-mcp-header":"a"}"#;
        assert!(matches!(of(twice), Err(HeaderError::Twice(_))));
        let items = r#""a":{"type":"array","items":{"type":"string","x-mcp-header":"A"}}"#;
        assert_eq!(of(items), Err(HeaderError::Place));
    }
}
