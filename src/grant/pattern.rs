//! Patterns: `*` stands for any run of characters, `\*` is a literal star.

use std::fmt;
use std::str::FromStr;

/// A checked pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern { text: String }

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("a pattern is empty")]
    Empty,
    #[error("a pattern is longer than 512 bytes")]
    TooLong,
    #[error("a pattern ends in a backslash")]
    Escape,
}

impl Pattern {
    /// Whether `text` matches; linear in `text`.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool { todo!("{text}{}", self.text) }
    /// Whether everything that `other` matches is matched by this one.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool { todo!("{other:?}") }
}

impl FromStr for Pattern { type Err = PatternError; fn from_str(text: &str) -> Result<Self, PatternError> { todo!("{text}") } }
impl fmt::Display for Pattern { fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.text) } }
