//! The arguments of the tools, as they are read after the schema was satisfied.

use serde::{Deserialize, Deserializer};

/// How the bytes of a file stand in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    #[default]
    Text,
    Base64,
}

#[derive(Deserialize)]
pub struct List {
    #[serde(default)]
    pub path: String,
    #[serde(default, deserialize_with = "whole")]
    pub limit: Option<u64>,
    pub after: Option<String>,
}

#[derive(Deserialize)]
pub struct Read {
    pub path: String,
    #[serde(default, deserialize_with = "whole")]
    pub offset: Option<u64>,
    #[serde(default, deserialize_with = "whole")]
    pub length: Option<u64>,
    #[serde(default)]
    pub encoding: Encoding,
}

#[derive(Deserialize)]
pub struct Search {
    #[serde(default)]
    pub path: String,
    pub glob: Option<String>,
    pub content: Option<String>,
    #[serde(default, deserialize_with = "whole")]
    pub limit: Option<u64>,
    #[serde(default = "yes")]
    pub case_sensitive: bool,
}

#[derive(Deserialize)]
pub struct One {
    pub path: String,
}

#[derive(Deserialize)]
pub struct Write {
    pub path: String,
    pub content: String,
    #[serde(default)]
    pub encoding: Encoding,
    #[serde(default)]
    pub create_directories: bool,
}

impl Encoding {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Base64 => "base64",
        }
    }
}

const fn yes() -> bool {
    true
}

/// A whole number in either spelling: JSON Schema counts `2.0` as an integer.
fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Number {
        Whole(u64),
        Float(f64),
    }
    match Option::<Number>::deserialize(deserializer)? {
        None => Ok(None),
        Some(Number::Whole(value)) => Ok(Some(value)),
        Some(Number::Float(value)) if (0.0..9_007_199_254_740_992.0).contains(&value) =>
        {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "checked"
            )]
            Ok(Some(value as u64))
        }
        Some(Number::Float(_)) => Err(serde::de::Error::custom("not a whole number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_read_in_either_spelling() {
        let limit = |text: &str| serde_json::from_str::<List>(text).map(|list| list.limit);
        assert_eq!(limit("{}").unwrap(), None);
        assert_eq!(limit(r#"{"limit":3}"#).unwrap(), Some(3));
        assert_eq!(limit(r#"{"limit":3.0}"#).unwrap(), Some(3));
        assert!(limit(r#"{"limit":-3.0}"#).is_err());
    }
}
