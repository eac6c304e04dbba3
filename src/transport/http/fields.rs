//! The header fields of a request that are looked at, found in one pass. A field that must not stand
//! twice and does is remembered as such: two readers could take different ones.

use hyper::header::{self, HeaderMap, HeaderValue};

/// The fields, borrowed.
#[derive(Debug, Default)]
pub struct Fields<'a> {
    /// `Content-Type`.
    pub content_type: Option<&'a HeaderValue>,
    /// `Content-Length`.
    pub content_length: Option<&'a HeaderValue>,
    /// `Origin`.
    pub origin: Option<&'a HeaderValue>,
    /// `Host`.
    pub host: Option<&'a HeaderValue>,
    /// `MCP-Protocol-Version`.
    pub version: Option<&'a HeaderValue>,
    /// `Mcp-Method`.
    pub method: Option<&'a HeaderValue>,
    /// `Mcp-Name`.
    pub name: Option<&'a HeaderValue>,
    /// `Mcp-Session-Id`.
    pub session: Option<&'a HeaderValue>,
    /// `Last-Event-ID`.
    pub last_event: Option<&'a HeaderValue>,
    /// `Transfer-Encoding`.
    pub transfer_encoding: Option<&'a HeaderValue>,
    /// Which of [`NAMES`] stand twice, a bit for each.
    twice: u16,
}

/// The fields that are looked for, as they are written.
const NAMES: [&str; 10] = [
    "Content-Type",
    "Content-Length",
    "Origin",
    "Host",
    "MCP-Protocol-Version",
    "Mcp-Method",
    "Mcp-Name",
    "Mcp-Session-Id",
    "Last-Event-ID",
    "Transfer-Encoding",
];

/// What a client takes as an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepts {
    /// `application/json`.
    pub json: bool,
    /// `text/event-stream`.
    pub events: bool,
}

impl<'a> Fields<'a> {
    /// One pass over the head.
    #[must_use]
    pub fn read(headers: &'a HeaderMap) -> Self {
        let mut fields = Self::default();
        for (name, value) in headers {
            let (at, slot) = match name.as_str() {
                "content-type" => (0, &mut fields.content_type),
                "content-length" => (1, &mut fields.content_length),
                "origin" => (2, &mut fields.origin),
                "host" => (3, &mut fields.host),
                "mcp-protocol-version" => (4, &mut fields.version),
                "mcp-method" => (5, &mut fields.method),
                "mcp-name" => (6, &mut fields.name),
                "mcp-session-id" => (7, &mut fields.session),
                "last-event-id" => (8, &mut fields.last_event),
                "transfer-encoding" => (9, &mut fields.transfer_encoding),
                _ => continue,
            };
            fields.twice |= u16::from(slot.replace(value).is_some()) << at;
        }
        fields
    }

    /// The first of these fields that stands twice. Each is asked for by who must know: one that may
    /// stand twice must not hide another one that may not.
    #[must_use]
    pub fn twice(&self, names: &[&str]) -> Option<&'static str> {
        if self.twice == 0 {
            return None;
        }
        let twice = |at: usize| self.twice & 1 << at != 0;
        let mut known = NAMES.iter().enumerate();
        known
            .find(|(at, name)| twice(*at) && names.contains(name))
            .map(|(_, name)| *name)
    }
}

impl Accepts {
    /// What the client takes; everything when it does not say.
    #[must_use]
    pub fn read(headers: &HeaderMap) -> Self {
        const BOTH: Accepts = Accepts {
            json: true,
            events: true,
        };
        let mut lines = headers.get_all(header::ACCEPT).iter().peekable();
        // As the specification has it, and every client sends it.
        if lines
            .peek()
            .is_none_or(|first| first.as_bytes() == b"application/json, text/event-stream")
        {
            return BOTH;
        }
        let mut accepts = Self {
            json: false,
            events: false,
        };
        for range in lines.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')) {
            let mut parts = range.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
            let kind = parts.next().unwrap_or_default();
            if parts.any(refuses) {
                continue;
            }
            let is = |name: &str| kind.eq_ignore_ascii_case(name.as_bytes());
            accepts.json |= is("application/json") || is("application/*") || is("*/*");
            accepts.events |= is("text/event-stream") || is("text/*") || is("*/*");
        }
        accepts
    }
}

/// `q=0`, `q=0.0`, …: a range that is named to be left out.
fn refuses(parameter: &[u8]) -> bool {
    let value = parameter
        .strip_prefix(b"q=")
        .or_else(|| parameter.strip_prefix(b"Q="));
    value.is_some_and(|value| !value.is_empty() && value.iter().all(|b| matches!(b, b'0' | b'.')))
}

/// Whether a `Content-Type` is `application/json`, in UTF-8 where it names a charset.
#[must_use]
pub fn is_json(value: &HeaderValue) -> bool {
    is_media_type(value, "application/json")
}

/// Whether a `Content-Type` is this one, in UTF-8 where it names a charset.
#[must_use]
pub fn is_media_type(value: &HeaderValue, wanted: &str) -> bool {
    let mut parts = value
        .as_bytes()
        .split(|byte| *byte == b';')
        .map(<[u8]>::trim_ascii);
    let kind = parts.next().unwrap_or_default();
    let foreign = |parameter: &[u8]| {
        let lower = parameter.to_ascii_lowercase();
        let charset = lower.strip_prefix(b"charset=");
        charset.is_some_and(|name| !matches!(name.trim_ascii(), b"utf-8" | b"\"utf-8\""))
    };
    kind.eq_ignore_ascii_case(wanted.as_bytes()) && !parts.any(foreign)
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderName;

    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    fn accepts(lines: &[&'static str]) -> (bool, bool) {
        let fields: Vec<_> = lines.iter().map(|line| ("accept", *line)).collect();
        let map = map(&fields);
        let Accepts { json, events } = Accepts::read(&map);
        (json, events)
    }

    #[test]
    fn accept_is_read_as_a_list_over_all_its_lines() {
        assert_eq!(accepts(&[]), (true, true));
        assert_eq!(
            accepts(&["application/json, text/event-stream"]),
            (true, true)
        );
        assert_eq!(accepts(&["Application/JSON;q=0.5"]), (true, false));
        assert_eq!(
            accepts(&["text/event-stream", "application/json"]),
            (true, true)
        );
        assert_eq!(accepts(&["*/*"]), (true, true));
        assert_eq!(accepts(&["text/*, application/json;q=0.0"]), (false, true));
        assert_eq!(accepts(&["text/html"]), (false, false));
        assert_eq!(accepts(&[""]), (false, false));
    }

    #[test]
    fn what_stands_twice_is_told() {
        let once = map(&[("mcp-name", "a"), ("x", "1"), ("x", "2")]);
        let fields = Fields::read(&once);
        assert_eq!(
            (fields.twice, fields.name.unwrap().as_bytes()),
            (0, &b"a"[..])
        );
        // Another one before it does not hide it.
        for name in NAMES {
            for other in ["last-event-id", "content-type"] {
                let mut map = HeaderMap::new();
                for field in [other, other, name, name] {
                    let field = HeaderName::from_bytes(field.as_bytes()).unwrap();
                    map.append(field, HeaderValue::from_static("a"));
                }
                let fields = Fields::read(&map);
                assert_eq!(fields.twice(&["X", name]), Some(name));
                assert_eq!(fields.twice(&["X"]), None);
            }
        }
    }

    #[test]
    fn json_is_utf_8() {
        let is = |text| is_json(&HeaderValue::from_static(text));
        assert!(is("application/json") && is("application/JSON; charset=utf-8"));
        assert!(is("application/json;charset=\"UTF-8\""));
        assert!(!is("application/json; charset=latin1") && !is("text/json") && !is(""));
    }
}
