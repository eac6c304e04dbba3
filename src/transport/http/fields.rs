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
    /// `Upgrade`.
    pub upgrade: Option<&'a HeaderValue>,
    /// The first field that stands twice and must not.
    pub twice: Option<&'static str>,
}

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
            let (slot, known) = match name.as_str() {
                "content-type" => (&mut fields.content_type, "Content-Type"),
                "content-length" => (&mut fields.content_length, "Content-Length"),
                "origin" => (&mut fields.origin, "Origin"),
                "host" => (&mut fields.host, "Host"),
                "mcp-protocol-version" => (&mut fields.version, "MCP-Protocol-Version"),
                "mcp-method" => (&mut fields.method, "Mcp-Method"),
                "mcp-name" => (&mut fields.name, "Mcp-Name"),
                "mcp-session-id" => (&mut fields.session, "Mcp-Session-Id"),
                "last-event-id" => (&mut fields.last_event, "Last-Event-ID"),
                "upgrade" => (&mut fields.upgrade, "Upgrade"),
                _ => continue,
            };
            if slot.replace(value).is_some() {
                fields.twice.get_or_insert(known);
            }
        }
        fields
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
            (None, &b"a"[..])
        );
        let twice = map(&[("mcp-name", "a"), ("mcp-name", "a")]);
        assert_eq!(Fields::read(&twice).twice, Some("Mcp-Name"));
    }

    #[test]
    fn json_is_utf_8() {
        let is = |text| is_json(&HeaderValue::from_static(text));
        assert!(is("application/json") && is("application/JSON; charset=utf-8"));
        assert!(is("application/json;charset=\"UTF-8\""));
        assert!(!is("application/json; charset=latin1") && !is("text/json") && !is(""));
    }
}
