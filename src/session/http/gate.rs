//! What a request's head must satisfy before anything is read of it: whom it speaks to (`Host`),
//! where it comes from (`Origin`), and that it can be understood in one way only.

use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};

use crate::jsonrpc::code;
use crate::transport::http::{Fields, ReplyBody, fault};

use super::options::HttpOptions;

/// The `Origin` that was let in, for the answer's headers.
pub type Allowed = Option<HeaderValue>;

/// Looks at the head.
///
/// # Errors
/// The refusal.
#[expect(
    clippy::result_large_err,
    reason = "the answer is moved once, and only where the request is refused"
)]
pub fn gate(
    options: &HttpOptions,
    head: &Parts,
    fields: &Fields<'_>,
) -> Result<Allowed, Response<ReplyBody>> {
    let bad = |message: &str| fault(StatusCode::BAD_REQUEST, code::INVALID_REQUEST, message);
    // Two readers of such a request could see two bodies (RFC 9112, section 6.1).
    if fields.content_length.is_some() && fields.transfer_encoding.is_some() {
        return Err(closing(bad(
            "`Content-Length` and `Transfer-Encoding` exclude each other",
        )));
    }
    if let Some(name) = fields.twice(&["Host", "Origin", "Content-Length", "Content-Type"]) {
        return Err(closing(bad(&format!("`{name}` stands twice"))));
    }
    let host = host_of(head, fields).map_err(|message| closing(bad(message)))?;
    if !options.allowed_hosts.is_empty() && !host_is_allowed(options, host) {
        let message = "this host is not served here";
        return Err(fault(
            StatusCode::MISDIRECTED_REQUEST,
            code::INVALID_REQUEST,
            message,
        ));
    }
    let Some(origin) = fields.origin else {
        return Ok(None);
    };
    let listed = origin.to_str().is_ok_and(|origin| {
        options
            .allowed_origins
            .iter()
            .any(|known| known.eq_ignore_ascii_case(origin))
    });
    if !listed {
        let message = "this origin may not call";
        return Err(fault(StatusCode::FORBIDDEN, code::INVALID_REQUEST, message));
    }
    Ok(Some(origin.clone()))
}

/// The host that a request names, in the target or in the header, which must not differ.
fn host_of<'a>(head: &'a Parts, fields: &Fields<'a>) -> Result<&'a str, &'static str> {
    let authority = head
        .uri
        .authority()
        .map(hyper::http::uri::Authority::as_str);
    let host = match fields.host {
        None => None,
        Some(host) => Some(host.to_str().map_err(|_| "`Host` is not readable")?),
    };
    match (authority, host) {
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => {
            Err("`Host` and the request's target differ")
        }
        (Some(authority), _) => Ok(authority),
        (None, Some(host)) => Ok(host),
        (None, None) => Err("`Host` is missing"),
    }
}

fn host_is_allowed(options: &HttpOptions, host: &str) -> bool {
    let end_of_name = if host.starts_with('[') {
        host.find(']').map_or(host.len(), |at| at + 1)
    } else {
        host.find(':').unwrap_or(host.len())
    };
    let name = &host[..end_of_name];
    let is = |known: &String| known.eq_ignore_ascii_case(host) || known.eq_ignore_ascii_case(name);
    options.allowed_hosts.iter().any(is)
}

/// Has HTTP/1.1 close the connection after this answer: what follows cannot be told apart from the
/// body that was not read.
#[must_use]
pub fn closing(mut response: Response<ReplyBody>) -> Response<ReplyBody> {
    response
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Lets the page of a listed origin read the answer.
pub fn share_with(origin: HeaderValue, response: &mut Response<ReplyBody>) {
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    let exposed = HeaderValue::from_static("Mcp-Session-Id");
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
}

/// What a listed origin may send, asked for beforehand by its browser.
pub fn preflight(response: &mut Response<ReplyBody>) {
    let headers = response.headers_mut();
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, POST, DELETE"),
    );
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static(
            "Accept, Content-Type, Last-Event-ID, MCP-Protocol-Version, Mcp-Method, Mcp-Name, Mcp-Session-Id",
        ),
    );
    headers.insert(
        header::ACCESS_CONTROL_MAX_AGE,
        HeaderValue::from_static("600"),
    );
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    fn status(options: &HttpOptions, request: &Request<()>) -> u16 {
        let (head, ()) = request.clone().into_parts();
        let fields = Fields::read(&head.headers);
        gate(options, &head, &fields).map_or_else(|refusal| refusal.status().as_u16(), |_| 200)
    }

    fn request(target: &str, fields: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().uri(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    #[test]
    fn one_host_is_named_and_it_is_ours() {
        let mut options = HttpOptions::default();
        let of = |options: &HttpOptions, target: &str, fields: &[(&str, &str)]| {
            status(options, &request(target, fields))
        };
        assert_eq!(of(&options, "/mcp", &[("host", "a")]), 200);
        assert_eq!(of(&options, "/mcp", &[]), 400);
        assert_eq!(of(&options, "/mcp", &[("host", "a"), ("host", "a")]), 400);
        assert_eq!(of(&options, "https://a/mcp", &[("host", "A")]), 200);
        assert_eq!(of(&options, "https://a/mcp", &[("host", "b")]), 400);
        options.allowed_hosts = vec!["a".into(), "b:8443".into(), "[::1]".into()];
        for (host, expect) in [
            ("a", 200),
            ("A:1", 200),
            ("b:8443", 200),
            ("b", 421),
            ("c", 421),
            ("[::1]:9", 200),
        ] {
            assert_eq!(of(&options, "/mcp", &[("host", host)]), expect, "{host}");
        }
    }

    #[test]
    fn an_origin_is_absent_or_listed() {
        let mut options = HttpOptions::default();
        let with = |origin| request("/mcp", &[("host", "a"), ("origin", origin)]);
        assert_eq!(status(&options, &with("https://a")), 403);
        options.allowed_origins = vec!["https://a".into()];
        assert_eq!(status(&options, &with("https://A")), 200);
        assert_eq!(status(&options, &with("https://a.evil")), 403);
        assert_eq!(status(&options, &with("null")), 403);
    }

    #[test]
    fn a_body_has_one_length() {
        let options = HttpOptions::default();
        let both = [
            ("host", "a"),
            ("content-length", "3"),
            ("transfer-encoding", "chunked"),
        ];
        assert_eq!(status(&options, &request("/mcp", &both)), 400);
        let two = [
            ("host", "a"),
            ("content-length", "3"),
            ("content-length", "3"),
        ];
        assert_eq!(status(&options, &request("/mcp", &two)), 400);
    }
}
