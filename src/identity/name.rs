//! The name that an admitted peer goes by.

use std::fmt;
use std::sync::Arc;

/// The name of a peer: a SPIFFE ID for our own CA, a URI, DNS name or CN for other anchors.
/// Sessions, limits and audit are keyed by it, because it survives renewal. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

/// The text cannot be a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing but an empty string.
    #[error("a name is empty")]
    Empty,
    /// Longer than 2048 bytes, the limit of a SPIFFE ID.
    #[error("a name is longer than 2048 bytes")]
    TooLong,
    /// Control characters would forge lines in a log and cells in a table.
    #[error("a name holds a control character")]
    Control,
}

impl Name {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// Empty, longer than 2048 bytes, or with a control character.
    pub fn new(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > 2048 {
            return Err(NameError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(NameError::Control);
        }
        Ok(Self(text.into()))
    }

    /// The whole name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last segment after `/`: the short form of a SPIFFE ID.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({})", self.0)
    }
}
