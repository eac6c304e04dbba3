//! Arguments against a JSON Schema, before the tool runs.
//!
//! Dialects: 2020-12 where `$schema` is absent, and those that `$schema` may name: 2020-12,
//! 2019-09 and draft-07. Nothing is ever fetched: a `$ref` that leads out of the document is a
//! mistake of the schema. Regular expressions that backtrack are stopped after a bounded number
//! of steps.

use std::fmt;

use bytes::Bytes;
use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{PatternOptions, ValidationError, Validator};
use serde_json::Value;

use crate::jsonrpc::fields;

use super::outline::{is_blind_to_text, outline};
use super::result::Failure;
use super::unique;

/// At most so many mistakes are told at once.
const MAX_ERRORS: usize = 8;
/// Above so many bytes of arguments only the first mistake is told: collecting all of them costs
/// memory in proportion to their number.
const MAX_FULL_REPORT: usize = 64 * 1024;
/// Steps that a backtracking expression may take before it counts as not matching.
const BACKTRACK_LIMIT: usize = 100_000;
/// A message is cut to so many bytes.
const MAX_MESSAGE: usize = 400;

/// A compiled input schema; its text is what `tools/list` shows, byte for byte (but for line
/// breaks between tokens, which a message of one line cannot have).
pub struct Schema {
    text: String,
    /// None: whoever runs the tool checks for itself.
    validator: Option<Validator>,
    takes_nothing: bool,
    /// Whether it judges the same whatever the strings of the arguments hold.
    blind_to_text: bool,
    /// Names of the root's `properties`, for hints.
    known: Vec<String>,
}

/// What is wrong with some arguments: the tool error names the field and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ArgumentError {
    /// JSON Pointer (RFC 6901) of the field; empty for the whole.
    pub field: String,
    /// A sentence that names the field.
    pub message: String,
}

/// Arguments that fit their schema: raw JSON of an object (`{}` where the caller gave none).
#[derive(Clone, Debug)]
pub struct Arguments {
    raw: Bytes,
}

impl Schema {
    /// Compiles a schema of an object (`"type":"object"` at its root, as MCP wants it).
    ///
    /// # Errors
    /// Not JSON, not an object schema, not a schema of a known dialect, or with an external `$ref`.
    pub fn new(text: &str) -> Result<Self, String> {
        let value: Value =
            serde_json::from_str(text).map_err(|e| format!("a schema is not JSON: {e}"))?;
        if value.get("type").and_then(Value::as_str) != Some("object") {
            return Err("a tool's schema has `\"type\":\"object\"` at its root".to_owned());
        }
        let known = known_properties(&value);
        let validator = compile(&value)?;
        let takes_nothing = validator.is_valid(&Value::Object(serde_json::Map::new()));
        Ok(Self {
            text: one_line(text),
            validator: Some(validator),
            takes_nothing,
            blind_to_text: is_blind_to_text(&value),
            known,
        })
    }

    /// A schema that is shown and not applied: for a provider that passes arguments on to somebody
    /// who checks them. `text`: valid JSON.
    #[must_use]
    pub fn unchecked(text: &str) -> Self {
        Self {
            text: one_line(text),
            validator: None,
            takes_nothing: true,
            blind_to_text: false,
            known: Vec::new(),
        }
    }

    /// The schema of a tool without arguments.
    ///
    /// # Panics
    /// Never: the text is a constant, and a test compiles it.
    #[must_use]
    pub fn empty() -> Self {
        Self::new(r#"{"type":"object","additionalProperties":false}"#)
            .expect("invariant: the constant is a schema")
    }

    /// The text, on one line.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// `raw`: JSON that the envelope scan found valid and within its limits; `None` stands for
    /// `{}`. An empty object against a schema that takes one costs no parse.
    ///
    /// # Errors
    /// Every mistake that the validator finds, at most 8; the first one for very long arguments.
    pub fn check(&self, raw: Option<Bytes>) -> Result<Arguments, Vec<ArgumentError>> {
        let raw = raw.unwrap_or(Bytes::from_static(b"{}"));
        let Some(validator) = &self.validator else {
            return Ok(Arguments { raw });
        };
        if self.takes_nothing && is_empty_object(&raw) {
            return Ok(Arguments {
                raw: Bytes::from_static(b"{}"),
            });
        }
        if self.blind_to_text && outline(&raw).is_some_and(|value| validator.is_valid(&value)) {
            return Ok(Arguments { raw });
        }
        let value = unique::parse(&raw).map_err(|error| {
            let message = format!("the arguments cannot be read: {error}");
            vec![ArgumentError {
                field: String::new(),
                message: cut(message),
            }]
        })?;
        if validator.is_valid(&value) {
            return Ok(Arguments { raw });
        }
        Err(self.mistakes(validator, &value, raw.len()))
    }

    fn mistakes(&self, validator: &Validator, value: &Value, len: usize) -> Vec<ArgumentError> {
        let mut found = Vec::new();
        if len <= MAX_FULL_REPORT {
            for error in validator.iter_errors(value) {
                self.describe(&error, &mut found);
                if found.len() >= MAX_ERRORS {
                    break;
                }
            }
        } else if let Err(error) = validator.validate(value) {
            self.describe(&error, &mut found);
        }
        found.truncate(MAX_ERRORS);
        if found.is_empty() {
            let message = "the arguments do not fit the tool's schema".to_owned();
            found.push(ArgumentError {
                field: String::new(),
                message,
            });
        }
        found
    }

    fn describe(&self, error: &ValidationError<'_>, found: &mut Vec<ArgumentError>) {
        let at = error.instance_path().as_str();
        let mut tell = |field: String, message: String| {
            found.push(ArgumentError {
                field,
                message: cut(message),
            });
        };
        match error.kind() {
            ValidationErrorKind::Required { property } => {
                let name = property.as_str().unwrap_or_default();
                let field = child(at, name);
                let message = format!("`{}` is required and missing", shown(&field));
                tell(field, message);
            }
            ValidationErrorKind::AdditionalProperties { unexpected }
            | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
                for name in unexpected.iter().take(MAX_ERRORS) {
                    let field = child(at, name);
                    let mut message = format!("`{}` is not expected", shown(&field));
                    if at.is_empty() && !self.known.is_empty() {
                        message.push_str(&format!("; known are: {}", self.known.join(", ")));
                    }
                    tell(field, message);
                }
            }
            ValidationErrorKind::Type { kind } => {
                let message = format!(
                    "{} must be {}, and is {}",
                    subject(at),
                    types(kind),
                    type_name(error.instance())
                );
                tell(at.to_owned(), message);
            }
            _ => {
                let message = error.masked_with(subject(at)).to_string();
                let named = message.contains(&subject(at));
                let message = if named {
                    message
                } else {
                    format!("{}: {message}", subject(at))
                };
                tell(at.to_owned(), message);
            }
        }
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Schema").field(&self.text).finish()
    }
}

impl Arguments {
    /// Arguments that nobody checked: for tests, and for a provider that checks for itself.
    #[must_use]
    pub fn unchecked(raw: Bytes) -> Self {
        Self { raw }
    }

    /// The JSON as it came.
    #[must_use]
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// The raw value of one member; the others are stepped over, however long they are.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&[u8]> {
        let mut members = fields(&self.raw).ok()?.flatten();
        members.find_map(|(key, value)| (key == name).then_some(value))
    }

    /// # Errors
    /// The type does not fit although the schema did: a mistake of the provider.
    pub fn parse<'a, T: serde::Deserialize<'a>>(&'a self) -> Result<T, Failure> {
        serde_json::from_slice(&self.raw)
            .map_err(|e| Failure::Internal(format!("arguments fit the schema, not the type: {e}")))
    }
}

fn compile(value: &Value) -> Result<Validator, String> {
    let mut options = jsonschema::options()
        .offline()
        .with_pattern_options(PatternOptions::fancy_regex().backtrack_limit(BACKTRACK_LIMIT));
    if value.get("$schema").is_none() {
        options = options.with_draft(jsonschema::Draft::Draft202012);
    } else if !known_dialect(value) {
        let dialect = value["$schema"].as_str().unwrap_or_default();
        return Err(cut(format!(
            "a schema is written in the unknown dialect `{dialect}`"
        )));
    }
    options
        .build(value)
        .map_err(|e| cut(format!("a schema is not one: {e}")))
}

fn known_dialect(value: &Value) -> bool {
    const KNOWN: [&str; 5] = [
        "https://json-schema.org/draft/2020-12/schema",
        "https://json-schema.org/draft/2019-09/schema",
        "http://json-schema.org/draft-07/schema",
        "https://json-schema.org/draft-07/schema",
        "http://json-schema.org/schema",
    ];
    let dialect = value
        .get("$schema")
        .and_then(Value::as_str)
        .unwrap_or_default();
    KNOWN.contains(&dialect.trim_end_matches('#'))
}

fn known_properties(value: &Value) -> Vec<String> {
    let names = value.get("properties").and_then(Value::as_object);
    names
        .map(|map| map.keys().take(32).cloned().collect())
        .unwrap_or_default()
}

fn one_line(text: &str) -> String {
    text.chars().filter(|c| !matches!(c, '\n' | '\r')).collect()
}

fn is_empty_object(raw: &[u8]) -> bool {
    raw == b"{}"
        || raw
            .trim_ascii()
            .strip_prefix(b"{")
            .and_then(|rest| rest.strip_suffix(b"}"))
            .is_some_and(|inside| inside.trim_ascii().is_empty())
}

/// A pointer one step deeper.
fn child(at: &str, name: &str) -> String {
    format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// A pointer as people read it: the bare name at the first level, else the pointer.
fn shown(pointer: &str) -> &str {
    match pointer.strip_prefix('/') {
        Some(name) if !name.contains('/') => name,
        _ => pointer,
    }
}

fn subject(at: &str) -> String {
    if at.is_empty() {
        "the argument object".to_owned()
    } else {
        format!("`{}`", shown(at))
    }
}

fn types(kind: &TypeKind) -> String {
    match kind {
        TypeKind::Single(one) => one.to_string(),
        TypeKind::Multiple(several) => several
            .iter()
            .map(|one| one.to_string())
            .collect::<Vec<_>>()
            .join(" or "),
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn cut(mut text: String) -> String {
    if text.len() > MAX_MESSAGE {
        let mut end = MAX_MESSAGE;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: &str = r#"{"type":"object","properties":{
        "path":{"type":"string","minLength":1},
        "limit":{"type":"integer","minimum":1,"maximum":9},
        "how":{"enum":["a","b"]},
        "deep":{"type":"object","properties":{"x":{"type":"string"}},"required":["x"]}},
        "required":["path"],"additionalProperties":false}"#;

    fn check(schema: &str, raw: &str) -> Result<(), Vec<(String, String)>> {
        let schema = Schema::new(schema).unwrap();
        match schema.check(Some(Bytes::copy_from_slice(raw.as_bytes()))) {
            Ok(arguments) => {
                assert_eq!(arguments.raw(), raw);
                Ok(())
            }
            Err(errors) => Err(errors.into_iter().map(|e| (e.field, e.message)).collect()),
        }
    }

    fn refused(raw: &str, field: &str, word: &str) {
        let errors = check(READ, raw).unwrap_err();
        let told = errors
            .iter()
            .any(|(at, message)| at == field && message.contains(word));
        assert!(told, "{raw}: {errors:?}");
    }

    #[test]
    fn what_fits_passes_untouched_and_what_does_not_is_named() {
        assert_eq!(
            check(READ, r#"{"path":"a","limit":3,"how":"a","deep":{"x":""}}"#),
            Ok(())
        );
        refused("{}", "/path", "`path` is required");
        refused(
            r#"{"path":"a","pth":1}"#,
            "/pth",
            "`pth` is not expected; known are:",
        );
        refused(
            r#"{"path":1}"#,
            "/path",
            "`path` must be string, and is integer",
        );
        refused(r#"{"path":"a","limit":10}"#, "/limit", "`limit` is greater");
        refused(r#"{"path":""}"#, "/path", "`path` is shorter");
        refused(r#"{"path":"a","how":"c"}"#, "/how", "`how`");
        refused(
            r#"{"path":"a","deep":{}}"#,
            "/deep/x",
            "`/deep/x` is required",
        );
        refused(
            r#"{"path":"a","deep":{"x":1}}"#,
            "/deep/x",
            "`/deep/x` must be string",
        );
        refused(r#"{"path":"a","path":"b"}"#, "", "`path` twice");
        refused("[]", "", "the argument object must be object");
        refused(r#"{"path":"a","limit":1e999}"#, "", "cannot be read");
    }

    #[test]
    fn several_mistakes_are_told_at_once_but_not_too_many() {
        let errors = check(READ, r#"{"limit":"x","how":"c"}"#).unwrap_err();
        assert_eq!(errors.len(), 3, "{errors:?}");
        let many: Vec<String> = (0..100).map(|n| format!("\"k{n}\":1")).collect();
        let errors = check(READ, &format!("{{{}}}", many.join(","))).unwrap_err();
        assert_eq!(errors.len(), MAX_ERRORS);
        let long = format!(r#"{{"path":1,"limit":"{}"}}"#, "x".repeat(MAX_FULL_REPORT));
        let errors = check(READ, &long).unwrap_err();
        assert_eq!(errors.len(), 1);
        assert!(
            errors.iter().all(|(_, message)| message.len() < 500),
            "no echo of long values"
        );
    }

    #[test]
    fn nothing_is_taken_where_the_schema_takes_nothing() {
        let open = Schema::new(r#"{"type":"object"}"#).unwrap();
        assert_eq!(open.check(None).unwrap().raw(), "{}");
        assert_eq!(
            open.check(Some(Bytes::from_static(b" { } ")))
                .unwrap()
                .raw(),
            "{}"
        );
        assert!(Schema::empty().check(None).is_ok());
        assert!(
            Schema::empty()
                .check(Some(Bytes::from_static(br#"{"a":1}"#)))
                .is_err()
        );
        let needs = Schema::new(READ).unwrap();
        assert!(needs.check(None).is_err());
        let unchecked = Schema::unchecked(READ);
        assert!(unchecked.check(None).is_ok());
    }

    #[test]
    fn dialects_and_references() {
        let seven = r##"{"$schema":"http://json-schema.org/draft-07/schema#","type":"object",
            "definitions":{"n":{"type":"integer"}},"properties":{"a":{"$ref":"#/definitions/n"}}}"##;
        assert_eq!(check(seven, r#"{"a":1}"#), Ok(()));
        assert!(check(seven, r#"{"a":"x"}"#).is_err());
        let anchors = r##"{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object",
            "$defs":{"n":{"$anchor":"n","type":"integer"}},"properties":{"a":{"$ref":"#n"}}}"##;
        assert_eq!(check(anchors, r#"{"a":1}"#), Ok(()));
        assert!(check(anchors, r#"{"a":"x"}"#).is_err());
        let bad = |text: &str| Schema::new(text).unwrap_err();
        assert!(
            bad(r#"{"$schema":"https://example.org/own","type":"object"}"#).contains("dialect")
        );
        bad(r#"{"type":"object","properties":{"a":{"$ref":"https://example.org/a.json"}}}"#);
        bad(r#"{"type":"object","properties":{"a":{"$ref":"file:///etc/passwd"}}}"#);
        bad(r#"{"type":"object","properties":{"a":{"type":"strng"}}}"#);
        bad(r#"{"type":"array"}"#);
        bad("{");
        assert!(!Schema::new(READ).unwrap().text().contains('\n'));
    }

    #[test]
    fn a_backtracking_expression_is_stopped() {
        let schema = r#"{"type":"object","properties":{"a":{"pattern":"^(?=(a+)+$)(a|a)*\\1b$"}}}"#;
        let errors = check(schema, &format!(r#"{{"a":"{}"}}"#, "a".repeat(60))).unwrap_err();
        assert_eq!(errors[0].0, "/a");
    }
}
