//! `_meta`: the keys of a request that the server acts on.

use bytes::Bytes;

use crate::jsonrpc::{Outline, RequestId, string_value};

use super::params::{ParamsError, pick_noted, slice};
use super::revision::Revision;

/// RFC 5424 severities as MCP names them, least severe first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// `debug`
    Debug,
    /// `info`
    Info,
    /// `notice`
    Notice,
    /// `warning`
    Warning,
    /// `error`
    Error,
    /// `critical`
    Critical,
    /// `alert`
    Alert,
    /// `emergency`
    Emergency,
}

impl Severity {
    const NAMES: [(&'static str, Self); 8] = [
        ("debug", Self::Debug),
        ("info", Self::Info),
        ("notice", Self::Notice),
        ("warning", Self::Warning),
        ("error", Self::Error),
        ("critical", Self::Critical),
        ("alert", Self::Alert),
        ("emergency", Self::Emergency),
    ];

    /// The severity of that name.
    #[must_use]
    pub fn named(text: &str) -> Option<Self> {
        Self::NAMES
            .iter()
            .find(|(name, _)| *name == text)
            .map(|(_, level)| *level)
    }

    /// Its name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        Self::NAMES[self as usize].0
    }
}

/// What `_meta` says.
#[derive(Clone, Debug, Default)]
pub struct Meta {
    /// `io.modelcontextprotocol/protocolVersion`: its presence makes the request modern.
    /// `Err` with what is not served.
    pub version: Option<Result<Revision, String>>,
    /// `io.modelcontextprotocol/clientCapabilities`, a raw object.
    pub capabilities: Option<Bytes>,
    /// `io.modelcontextprotocol/logLevel`.
    pub log_level: Option<Severity>,
    /// `progressToken`, a raw string or integer.
    pub progress_token: Option<Bytes>,
}

const VERSION: &str = "io.modelcontextprotocol/protocolVersion";
const CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";

impl Meta {
    /// Reads the raw `_meta` object; `frame` is the message that it is a slice of, `outline` what the
    /// scan noted of that.
    ///
    /// # Errors
    /// A key that stands twice or has a value of the wrong type.
    pub fn read<'a>(
        raw: Option<&'a [u8]>,
        outline: &Outline<'a>,
        frame: &Bytes,
    ) -> Result<Self, ParamsError> {
        let [version, capabilities, log_level, token] = pick_noted(
            outline,
            raw,
            "_meta",
            [VERSION, CAPABILITIES, LOG_LEVEL, "progressToken"],
        )?;
        let version = match version {
            None => None,
            Some(raw) => {
                let text = string_value(raw).ok_or(ParamsError::Shape(VERSION, "a string"))?;
                Some(Revision::named(&text).ok_or_else(|| text.into_owned()))
            }
        };
        let capabilities = super::params::object(capabilities, CAPABILITIES)?;
        let log_level = match log_level {
            None => None,
            Some(raw) => Some(
                string_value(raw)
                    .and_then(|text| Severity::named(&text))
                    .ok_or(ParamsError::Shape(LOG_LEVEL, "one of the eight severities"))?,
            ),
        };
        if token.is_some_and(|raw| RequestId::read(raw).is_none()) {
            return Err(ParamsError::Shape(
                "progressToken",
                "a string or an integer",
            ));
        }
        Ok(Self {
            version,
            capabilities: capabilities.map(|raw| slice(frame, raw)),
            log_level,
            progress_token: token.map(|raw| frame.slice_ref(raw)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn severities_are_ordered_and_named() {
        for (name, level) in Severity::NAMES {
            assert_eq!(level.as_str(), name);
            assert_eq!(Severity::named(name), Some(level));
        }
        assert!(Severity::Debug < Severity::Emergency);
        assert_eq!(Severity::named("Debug"), None);
    }
}
