//! Paths inside the folder, and the one URI that each has.
//!
//! A URI is `file://` and the absolute path of the file, percent-encoded: everything but RFC 3986
//! `pchar` and `/`, with upper-case digits. Only this spelling is accepted.

use std::fmt;

/// Deeper is neither listed nor found: it bounds the open directories of a walk.
pub const MAX_DEPTH: usize = 64;
const MAX_PATH: usize = 4_096;
const MAX_SEGMENT: usize = 255;

/// A checked path relative to the folder: segments between slashes, none of them empty, `.` or
/// `..`; empty for the folder itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelPath(String);

/// Why a text is no path inside the folder.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("`{0}` is absolute: paths are relative to the folder, `.` is the folder itself")]
    Absolute(String),
    #[error("`{0}` holds `..`, which leads out of where it begins")]
    Parent(String),
    #[error("a path holds a NUL byte")]
    Nul,
    #[error(
        "a path is longer than {MAX_PATH} bytes, a segment longer than {MAX_SEGMENT}, or the path deeper than {MAX_DEPTH} folders"
    )]
    TooLong,
}

impl RelPath {
    /// Takes a path as a caller writes it: `docs/a.txt`, also `./docs//a.txt/`.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        if text.len() > MAX_PATH {
            return Err(PathError::TooLong);
        }
        if text.contains('\0') {
            return Err(PathError::Nul);
        }
        if text.starts_with('/') {
            return Err(PathError::Absolute(text.to_owned()));
        }
        let segments: Vec<&str> = text
            .split('/')
            .filter(|s| !matches!(*s, "" | "."))
            .collect();
        if segments.contains(&"..") {
            return Err(PathError::Parent(text.to_owned()));
        }
        if segments.len() > MAX_DEPTH || segments.iter().any(|s| s.len() > MAX_SEGMENT) {
            return Err(PathError::TooLong);
        }
        Ok(Self(segments.join("/")))
    }

    /// The folder itself.
    pub const fn root() -> Self {
        Self(String::new())
    }

    /// The path of something in this directory. `name`: one segment, from the file system.
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() {
            Self(name.to_owned())
        } else {
            Self(format!("{}/{name}", self.0))
        }
    }

    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|segment| !segment.is_empty())
    }

    /// The directory and the name in it; none for the folder itself.
    pub fn split(&self) -> Option<(Self, &str)> {
        match self.0.rsplit_once('/') {
            Some((parent, name)) => Some((Self(parent.to_owned()), name)),
            None if self.0.is_empty() => None,
            None => Some((Self::root(), &self.0)),
        }
    }

    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RelPath {
    /// `.` for the folder itself.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "." } else { &self.0 })
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RelPath({})", self.0)
    }
}

/// `file://` and the encoded path of a folder, with a slash at its end. `absolute`: with a slash at
/// its beginning.
pub fn uri_prefix(absolute: &str) -> String {
    let mut uri = "file://".to_owned();
    encode_into(&mut uri, absolute.trim_end_matches('/'));
    uri.push('/');
    uri
}

/// The URI of a path under a prefix.
pub fn uri(prefix: &str, path: &RelPath) -> String {
    let mut uri = String::with_capacity(prefix.len() + path.0.len() + 8);
    uri.push_str(prefix);
    encode_into(&mut uri, &path.0);
    uri
}

/// The path that this URI names, only where the URI is spelled exactly as [`uri`] spells it.
pub fn from_uri(prefix: &str, text: &str) -> Option<RelPath> {
    let rest = text.strip_prefix(prefix)?;
    let path = RelPath::parse(&decode(rest)?).ok()?;
    (!path.is_root() && uri(prefix, &path) == text).then_some(path)
}

/// A name as it stands in a URI.
pub fn encoded(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    encode_into(&mut text, name);
    text
}

/// Undoes percent-encoding; none where it is malformed or not UTF-8.
pub fn decode(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'%' {
            let digits = tail.get(..2)?;
            let mut decoded = [0];
            hex::decode_to_slice(digits, &mut decoded).ok()?;
            bytes.push(decoded[0]);
            rest = &tail[2..];
        } else {
            bytes.push(byte);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

fn encode_into(out: &mut String, text: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in text.as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_callers_are_made_plain_or_refused() {
        let plain = |text: &str| RelPath::parse(text).unwrap().0;
        assert_eq!(plain("docs/a.txt"), "docs/a.txt");
        assert_eq!(plain("./docs//a.txt/"), "docs/a.txt");
        assert_eq!(plain("."), "");
        assert_eq!(plain(""), "");
        assert_eq!(plain("a..b/..c"), "a..b/..c");
        for text in ["..", "a/..", "../a", "a/../../b", "./.."] {
            assert_eq!(RelPath::parse(text), Err(PathError::Parent(text.into())));
        }
        assert!(matches!(
            RelPath::parse("/etc/passwd"),
            Err(PathError::Absolute(_))
        ));
        assert_eq!(RelPath::parse("a\0b"), Err(PathError::Nul));
        assert!(RelPath::parse(&"a".repeat(MAX_SEGMENT)).is_ok());
        assert_eq!(
            RelPath::parse(&"a".repeat(MAX_SEGMENT + 1)),
            Err(PathError::TooLong)
        );
        assert!(RelPath::parse(&"a/".repeat(MAX_DEPTH)).is_ok());
        assert_eq!(
            RelPath::parse(&"a/".repeat(MAX_DEPTH + 1)),
            Err(PathError::TooLong)
        );
        assert_eq!(
            RelPath::parse(&"a/".repeat(MAX_PATH)),
            Err(PathError::TooLong)
        );
    }

    #[test]
    fn a_file_has_one_spelling() {
        let prefix = uri_prefix("/srv/my docs");
        assert_eq!(prefix, "file:///srv/my%20docs/");
        for (path, text) in [
            ("a.txt", "file:///srv/my%20docs/a.txt"),
            ("a/b (1)*.txt", "file:///srv/my%20docs/a/b%20(1)*.txt"),
            ("é%?#[]", "file:///srv/my%20docs/%C3%A9%25%3F%23%5B%5D"),
        ] {
            let path = RelPath::parse(path).unwrap();
            assert_eq!(uri(&prefix, &path), text);
            assert_eq!(from_uri(&prefix, text), Some(path));
        }
        for other in [
            "file:///srv/my%20docs/%61.txt",
            "file:///srv/my%20docs/%c3%a9",
            "file:///srv/my%20docs/a%2Fb",
            "file:///srv/my%20docs/a/%2e%2e/b",
            "file:///srv/my%20docs/../b",
            "file:///srv/my%20docs/./b",
            "file:///srv/my%20docs//b",
            "file:///srv/my%20docs/a/",
            "file:///srv/my%20docs/",
            "file:///srv/my%20docs/a b",
            "file:///srv/my%20docs/é",
            "file:///srv/my%20docs/a%00",
            "file:///srv/my%20docs/a%",
            "file:///srv/my%20docs/a%zz",
            "file:///srv/my%20docs/%FF",
            "file:///srv/my%20docs/a?b",
            "file:///srv/my%20docs/a#b",
            "file:///srv/my docs/a",
            "FILE:///srv/my%20docs/a",
            "file://localhost/srv/my%20docs/a",
            "file:/srv/my%20docs/a",
            "file:///srv/other/a",
        ] {
            assert_eq!(from_uri(&prefix, other), None, "{other}");
        }
        assert_eq!(uri_prefix("/"), "file:///");
    }

    #[test]
    fn the_parent_of_a_path() {
        let split = |text: &str| {
            let path = RelPath::parse(text).unwrap();
            path.split()
                .map(|(parent, name)| (parent.to_string(), name.to_owned()))
        };
        assert_eq!(split("a/b/c"), Some(("a/b".into(), "c".into())));
        assert_eq!(split("a"), Some((".".into(), "a".into())));
        assert_eq!(split("."), None);
    }
}
