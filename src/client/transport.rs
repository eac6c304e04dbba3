//! Which way a client goes in.

use std::fmt;
use std::str::FromStr;

/// The transports of one server port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// One message a line over TLS.
    #[default]
    Raw,
    /// One message a text message, after an upgrade of HTTP/1.1.
    WebSocket,
    /// Streamable HTTP, HTTP/2 where the server has it.
    Http,
}

impl Transport {
    /// The names, as they are typed.
    pub const NAMES: [&str; 3] = ["raw", "ws", "http"];

    /// What is offered by ALPN, in order of preference.
    #[must_use]
    pub const fn alpn(self) -> &'static [&'static [u8]] {
        match self {
            Self::Raw => &[b"mcp"],
            Self::WebSocket => &[b"http/1.1"],
            Self::Http => &[b"h2", b"http/1.1"],
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::NAMES[*self as usize])
    }
}

/// No transport has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no transport; there are `raw`, `ws` and `http`")]
pub struct UnknownTransport(String);

impl FromStr for Transport {
    type Err = UnknownTransport;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Raw, Self::WebSocket, Self::Http]
            .into_iter()
            .find(|transport| transport.to_string() == text)
            .ok_or_else(|| UnknownTransport(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_as_it_is_written() {
        for name in Transport::NAMES {
            assert_eq!(name.parse::<Transport>().unwrap().to_string(), name);
        }
        assert!("tcp".parse::<Transport>().is_err());
    }
}
