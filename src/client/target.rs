//! Where the server is, as people write it: `host:port` or `mcps://host:port`.

use std::fmt;
use std::str::FromStr;

/// The port when none is written.
pub const DEFAULT_PORT: u16 = 8443;

/// The address of a server: a name or an IP address, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    host: String,
    port: u16,
}

/// The text is no address of a server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Another scheme than `mcps`.
    #[error("`{0}` has the scheme `{1}`; only `mcps://host:port` or `host:port` is understood")]
    Scheme(String, String),
    /// No host, or one with characters that no host has.
    #[error("`{0}` names no host; write `host:port`, and an IPv6 address in brackets")]
    Host(String),
    /// Not a number of 1 to 65535.
    #[error("`{0}`: `{1}` is not a port")]
    Port(String, String),
}

impl Target {
    /// The host without brackets: what the server's certificate must be for.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `host:port`, an IPv6 address in brackets: what a resolver takes.
    #[must_use]
    pub fn address(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let rest = match text.split_once("://") {
            None => text,
            Some(("mcps", rest)) => rest.strip_suffix('/').unwrap_or(rest),
            Some((scheme, _)) => {
                return Err(TargetError::Scheme(text.to_owned(), scheme.to_owned()));
            }
        };
        let (host, port) = split(rest).ok_or_else(|| TargetError::Host(text.to_owned()))?;
        let port = match port {
            None => DEFAULT_PORT,
            Some(digits) => digits
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(|| TargetError::Port(text.to_owned(), digits.to_owned()))?,
        };
        let fits = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
        if host.is_empty() || !host.chars().all(fits) {
            return Err(TargetError::Host(text.to_owned()));
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

/// Host and, where one is written, the port's text.
fn split(text: &str) -> Option<(&str, Option<&str>)> {
    if let Some(bracketed) = text.strip_prefix('[') {
        let (host, rest) = bracketed.split_once(']')?;
        return match rest {
            "" => Some((host, None)),
            _ => Some((host, Some(rest.strip_prefix(':')?))),
        };
    }
    match text.split_once(':') {
        None => Some((text, None)),
        // A second colon is an IPv6 address without brackets: where its port begins is a guess.
        Some((_, port)) if port.contains(':') => None,
        Some((host, port)) => Some((host, Some(port))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_forms_that_people_write() {
        for (text, host, port, shown) in [
            ("localhost:9000", "localhost", 9000, "localhost:9000"),
            (
                "mcps://mcp.example.com:443",
                "mcp.example.com",
                443,
                "mcp.example.com:443",
            ),
            (
                "mcps://mcp.example.com/",
                "mcp.example.com",
                8443,
                "mcp.example.com:8443",
            ),
            ("127.0.0.1", "127.0.0.1", 8443, "127.0.0.1:8443"),
            ("[::1]:8443", "::1", 8443, "[::1]:8443"),
            (
                "mcps://[fe80::1%eth0]",
                "fe80::1%eth0",
                8443,
                "[fe80::1%eth0]:8443",
            ),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!((target.host(), target.port()), (host, port), "{text}");
            assert_eq!(target.address(), shown);
        }
    }

    #[test]
    fn refuses_what_would_be_a_guess() {
        assert!(
            matches!("https://a:1".parse::<Target>(), Err(TargetError::Scheme(_, s)) if s == "https")
        );
        for text in [
            "", ":8443", "::1", "a b:1", "[::1", "[::1]x", "a/b:1", "mcps://",
        ] {
            assert!(
                matches!(text.parse::<Target>(), Err(TargetError::Host(_))),
                "{text}"
            );
        }
        for text in ["a:", "a:0", "a:65536", "a:http", "a:-1"] {
            assert!(
                matches!(text.parse::<Target>(), Err(TargetError::Port(..))),
                "{text}"
            );
        }
    }
}
