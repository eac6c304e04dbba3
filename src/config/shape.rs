//! The document's shape against the JSON Schema: unknown and missing keys, wrong types and words.

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{Draft, ValidationError, Validator};
use serde_json::Value;

use super::amount::{AmountError, PERIOD, Period, SIZE, Size};
use super::mistake::{Problem, dotted, token, tokens};

/// Everything that the schema refuses.
pub(super) fn check(value: &Value, schema: &Value) -> Vec<Problem> {
    let checker = match validator(schema) {
        Ok(checker) => checker,
        Err(error) => {
            return vec![Problem::at(
                "",
                format!("the schema cannot be used: {error}"),
            )];
        }
    };
    checker
        .iter_errors(value)
        .flat_map(|error| problems(&error, schema))
        .collect()
}

fn validator(schema: &Value) -> Result<Validator, ValidationError<'static>> {
    jsonschema::options()
        .with_draft(Draft::Draft202012)
        .with_format(PERIOD, |text: &str| text.parse::<Period>().is_ok())
        .with_format(SIZE, |text: &str| text.parse::<Size>().is_ok())
        .should_validate_formats(true)
        .build(schema)
}

fn problems(error: &ValidationError<'_>, schema: &Value) -> Vec<Problem> {
    let pointer = error.instance_path().to_string();
    let value = error.instance();
    if let ValidationErrorKind::AdditionalProperties { unexpected } = error.kind() {
        let keys = known_keys(error, schema);
        return unexpected
            .iter()
            .map(|key| unknown_key(&pointer, key, &keys, schema))
            .collect();
    }
    let problem = |message: String| Problem::at(pointer.as_str(), message);
    vec![match error.kind() {
        ValidationErrorKind::Required { property } => {
            let key = property.as_str().unwrap_or_default();
            let whole = format!("{pointer}/{}", token(key));
            Problem::at(&whole, format!("`{}` is missing", dotted(&whole)))
        }
        ValidationErrorKind::Type { kind } => problem(format!(
            "must be {}, and is {}",
            expected(kind),
            kind_of(value)
        )),
        ValidationErrorKind::Format { format } => problem(format!(
            "{} is not a {}",
            shown(value),
            if format == PERIOD {
                "span of time"
            } else {
                format
            }
        ))
        .hint(AmountError::hint(format)),
        ValidationErrorKind::AnyOf { .. }
        | ValidationErrorKind::OneOfNotValid { .. }
        | ValidationErrorKind::Enum { .. }
        | ValidationErrorKind::Constant { .. } => word(&pointer, value, &words(error, schema)),
        ValidationErrorKind::Minimum { limit } => problem(format!(
            "{} is less than {limit}, the least that is possible",
            shown(value)
        )),
        ValidationErrorKind::Maximum { limit } => problem(format!(
            "{} is more than {limit}, the most that is possible",
            shown(value)
        )),
        ValidationErrorKind::MinItems { .. } => problem("is an empty list".into()),
        ValidationErrorKind::MinLength { .. } => problem("is empty".into()),
        ValidationErrorKind::MaxLength { limit } => {
            problem(format!("is longer than {limit} characters"))
        }
        ValidationErrorKind::Pattern { pattern } => problem(format!(
            "{} does not fit the pattern `{pattern}`",
            shown(value)
        )),
        _ => problem(error.to_string()),
    }]
}

fn unknown_key(pointer: &str, key: &str, known: &[String], schema: &Value) -> Problem {
    let whole = format!("{pointer}/{}", token(key));
    let problem = Problem::at(&whole, format!("unknown key `{}`", dotted(&whole))).on_key();
    if let Some(near) = nearest(key, known) {
        return problem.hint(format!("did you mean `{near}`?"));
    }
    if let Some(elsewhere) = find_key(schema, key, "") {
        return problem.hint(format!("there is a key `{elsewhere}`"));
    }
    problem.hint(format!("the keys here are {}", list(known)))
}

fn word(pointer: &str, value: &Value, words: &[String]) -> Problem {
    let problem = Problem::at(pointer, format!("{} is not possible here", shown(value)));
    match value.as_str().and_then(|text| nearest(text, words)) {
        Some(near) => problem.hint(format!("did you mean `{near}`?")),
        None if words.is_empty() => problem,
        None => problem.hint(format!("write {}", list(words))),
    }
}

/// The keys that the schema knows where this error arose.
fn known_keys(error: &ValidationError<'_>, schema: &Value) -> Vec<String> {
    let object = holder(error, schema).and_then(|holder| holder["properties"].as_object());
    object
        .map(|keys| keys.keys().cloned().collect())
        .unwrap_or_default()
}

fn words(error: &ValidationError<'_>, schema: &Value) -> Vec<String> {
    holder(error, schema)
        .map(possible_words)
        .unwrap_or_default()
}

/// The part of the schema that holds the keyword which failed.
fn holder<'a>(error: &ValidationError<'_>, schema: &'a Value) -> Option<&'a Value> {
    let keyword = error.schema_path().to_string();
    schema.pointer(&keyword[..keyword.rfind('/')?])
}

/// Every word that a schema of words allows.
pub(super) fn possible_words(schema: &Value) -> Vec<String> {
    let own = schema["const"].as_str().map(str::to_owned).into_iter();
    let several = ["enum", "oneOf", "anyOf"]
        .into_iter()
        .filter_map(|key| schema[key].as_array());
    let inside = several.flatten().flat_map(|part| match part.as_str() {
        Some(word) => vec![word.to_owned()],
        None => possible_words(part),
    });
    own.chain(inside).collect()
}

/// The dotted path of a key of this name anywhere in the schema.
fn find_key(schema: &Value, name: &str, path: &str) -> Option<String> {
    if let Some(keys) = schema["properties"].as_object() {
        if !path.is_empty() && keys.contains_key(name) {
            return Some(format!("{path}.{name}"));
        }
        let dot = if path.is_empty() { "" } else { "." };
        return keys
            .iter()
            .find_map(|(key, part)| find_key(part, name, &format!("{path}{dot}{key}")));
    }
    schema
        .get("items")
        .and_then(|part| find_key(part, name, path))
}

/// The known word that is so near that it was probably meant.
pub(super) fn nearest<'a>(word: &str, known: &'a [String]) -> Option<&'a str> {
    let near = known
        .iter()
        .map(|candidate| (distance(word, candidate), candidate));
    let (steps, candidate) = near.min()?;
    (steps <= (word.chars().count() / 3).max(1)).then_some(candidate.as_str())
}

/// Insertions, deletions, replacements and swaps of neighbours that turn one word into the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let same = usize::from(a[i - 1] != b[j - 1]);
            let mut least = (rows[i - 1][j] + 1)
                .min(row[j - 1] + 1)
                .min(rows[i - 1][j - 1] + same);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

fn expected(kind: &TypeKind) -> String {
    let name = |kind: &dyn std::fmt::Display| match kind.to_string().as_str() {
        "object" => String::from("a table"),
        "array" => String::from("a list"),
        "integer" => String::from("an integer"),
        other => format!("a {other}"),
    };
    match kind {
        TypeKind::Single(kind) => name(kind),
        TypeKind::Multiple(kinds) => {
            let names = kinds
                .iter()
                .map(|kind| name(&kind))
                .filter(|name| name != "a null");
            names.collect::<Vec<_>>().join(" or ")
        }
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "not a number",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a fraction",
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    }
}

fn shown(value: &Value) -> String {
    let text = value
        .as_str()
        .map_or_else(|| value.to_string(), |text| text.escape_debug().to_string());
    let short: String = text.chars().take(80).collect();
    if short.len() < text.len() {
        format!("`{short}…`")
    } else {
        format!("`{text}`")
    }
}

fn list(words: &[String]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    quoted.join(", ")
}

/// The part of the schema for a pointer of the document, where there is one.
pub(super) fn part<'a>(schema: &'a Value, pointer: &str) -> Option<&'a Value> {
    tokens(pointer).try_fold(schema, |schema, token| {
        schema["properties"]
            .get(&token)
            .or_else(|| schema.get("items"))
            .or_else(|| {
                schema
                    .get("additionalProperties")
                    .filter(|schema| schema.is_object())
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_near_and_other_words_are_not() {
        assert_eq!(distance("listen", "listen"), 0);
        assert_eq!(distance("lisetn", "listen"), 1);
        assert_eq!(distance("", "abc"), 3);
        let known = ["address", "drain", "handshakes"].map(String::from);
        assert_eq!(nearest("adress", &known), Some("address"));
        assert_eq!(nearest("handshake", &known), Some("handshakes"));
        assert_eq!(nearest("colour", &known), None);
    }
}
