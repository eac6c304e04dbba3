//! One mistake of the configuration, and where it is.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// Something wrong in the configuration, as `config check` tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mistake {
    /// The file.
    pub path: PathBuf,
    /// The environment variable, where it is one that is wrong and not the file.
    pub variable: Option<String>,
    /// Counted from 1; 0 where the mistake has no place in the file.
    pub line: usize,
    /// In characters, counted from 1; 0 where the mistake has no place in the file.
    pub column: usize,
    /// The key, as in `listen.address[0]`; empty for the document as a whole.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl fmt::Display for Mistake {
    /// `countersign.toml:3:1: unknown key …`, without the hint.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.variable, self.line) {
            (Some(variable), _) => write!(f, "environment variable `{variable}`: ")?,
            (None, 0) => write!(f, "{}: ", self.path.display())?,
            (None, line) => write!(f, "{}:{line}:{}: ", self.path.display(), self.column)?,
        }
        let named = self.message.contains(&format!("`{}`", self.key));
        if !self.key.is_empty() && !named {
            write!(f, "`{}`: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// A mistake before it is known where in the file it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// JSON pointer of the value that is wrong.
    pub pointer: String,
    /// Whether the key itself is wrong, not its value.
    pub on_key: bool,
    pub message: String,
    pub hint: Option<String>,
}

impl Problem {
    pub fn at(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            pointer: pointer.into(),
            on_key: false,
            message: message.into(),
            hint: None,
        }
    }

    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }

    pub fn on_key(self) -> Self {
        Self {
            on_key: true,
            ..self
        }
    }

    /// The pointer as people write keys: `anchor[0].bundle`.
    pub fn key(&self) -> String {
        dotted(&self.pointer)
    }
}

/// `/anchor/0/bundle` as `anchor[0].bundle`.
pub(super) fn dotted(pointer: &str) -> String {
    let mut key = String::new();
    for token in tokens(pointer) {
        if token.bytes().all(|b| b.is_ascii_digit()) && !token.is_empty() && !key.is_empty() {
            key = format!("{key}[{token}]");
        } else {
            let dot = if key.is_empty() { "" } else { "." };
            key = format!("{key}{dot}{token}");
        }
    }
    key
}

/// The tokens of a JSON pointer (RFC 6901), unescaped.
pub(super) fn tokens(pointer: &str) -> impl Iterator<Item = String> {
    pointer
        .split('/')
        .skip(1)
        .map(|token| token.replace("~1", "/").replace("~0", "~"))
}

/// One token as it stands in a JSON pointer.
pub(super) fn token(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_shown_as_they_are_written() {
        for (pointer, key) in [
            ("", ""),
            ("/listen/address/0", "listen.address[0]"),
            ("/a~1b/x~0", "a/b.x~"),
            ("/0", "0"),
        ] {
            assert_eq!(dotted(pointer), key);
        }
    }

    #[test]
    fn a_mistake_names_its_place() {
        let mistake = Mistake {
            path: "c.toml".into(),
            variable: None,
            line: 3,
            column: 7,
            key: "listen.drain".into(),
            message: "`soon` is not a span of time".into(),
            hint: None,
        };
        assert_eq!(
            mistake.to_string(),
            "c.toml:3:7: `listen.drain`: `soon` is not a span of time"
        );
        let variable = Some("COUNTERSIGN_LISTEN__DRAIN".into());
        let mistake = Mistake {
            variable,
            ..mistake
        };
        let shown = mistake.to_string();
        assert!(
            shown.starts_with("environment variable `COUNTERSIGN_LISTEN__DRAIN`: "),
            "{shown}"
        );
    }
}
