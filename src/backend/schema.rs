//! Arguments against a JSON Schema (2020-12), before the tool runs.

use bytes::Bytes;

/// A compiled input schema; its text is what `tools/list` shows, byte for byte.
#[derive(Debug)]
pub struct Schema { text: String }

/// What is wrong with some arguments: the tool error names the field and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ArgumentError { /** JSON Pointer of the field; empty for the whole. */ pub field: String, pub message: String }

/// Arguments that fit their schema: raw JSON of an object (`{}` where the caller gave none).
#[derive(Clone, Debug)]
pub struct Arguments { raw: Bytes }

impl Schema {
    /// # Errors
    /// Not JSON, not a schema of dialect 2020-12 or draft-07, or with an external `$ref`.
    pub fn new(text: &str) -> Result<Self, String> { Ok(Self { text: text.to_owned() }) }
    #[must_use] pub fn text(&self) -> &str { &self.text }
    /// `raw`: JSON that the envelope scan found valid; `None` stands for `{}`. An empty object
    /// against a schema that takes one costs no parse.
    /// # Errors
    /// Every mistake that the validator finds, at most 8.
    pub fn check(&self, raw: Option<Bytes>) -> Result<Arguments, Vec<ArgumentError>> { todo!("{raw:?}") }
}

impl Arguments {
    #[must_use] pub fn raw(&self) -> &Bytes { &self.raw }
    /// # Errors
    /// The type does not fit although the schema did: a mistake of the provider.
    pub fn parse<'a, T: serde::Deserialize<'a>>(&'a self) -> Result<T, super::result::Failure> { serde_json::from_slice(&self.raw).map_err(|e| super::result::Failure::Internal(e.to_string())) }
}
