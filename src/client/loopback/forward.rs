//! One request of this machine as a request of ours, and its answer back. Bodies stream in both
//! directions; whoever goes away takes the other side with it.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{Either, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{
    ALLOW, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, FORWARDED,
    HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION,
    SET_COOKIE, STRICT_TRANSPORT_SECURITY, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
    WWW_AUTHENTICATE,
};
use hyper::{Method, Request, Response, StatusCode, Uri};

use super::guard::{Guard, Refusal};
use crate::client::http::{HttpClient, io_error};
use crate::client::lines::MAX_LINE;
use crate::client::websocket::ENDPOINT;

/// What is answered: the server's stream, or our own words.
pub type Answer = Response<Either<Incoming, Full<Bytes>>>;

/// Of one connection or for one hop only (RFC 9110, section 7.6.1).
const HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];
/// What belongs to this machine, or would make the server take us for somebody else.
const OURS: [HeaderName; 9] = [
    AUTHORIZATION,
    COOKIE,
    HOST,
    ORIGIN,
    EXPECT,
    FORWARDED,
    // The body's own length is written again; a second opinion is how requests are smuggled.
    CONTENT_LENGTH,
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
];
/// What is about the server's own name and port, not about this one.
const THEIRS: [HeaderName; 3] = [SET_COOKIE, STRICT_TRANSPORT_SECURITY, WWW_AUTHENTICATE];
/// Headers of ours begin so.
const PREFIX: &str = "x-countersign-";

/// Carries requests to one server.
pub struct Forward {
    pub guard: Guard,
    pub http: HttpClient<Limited<Incoming>>,
    pub uri: Uri,
    pub peer: String,
    /// Told when the server cannot be reached.
    pub report: Box<dyn Fn(&str) + Send + Sync>,
}

impl Forward {
    /// Answers one request.
    pub async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        let (mut parts, body) = request.into_parts();
        if let Err(refusal) = self.guard.check(&parts) {
            return refused(refusal);
        }
        if parts.uri.path() != ENDPOINT {
            return say(StatusCode::NOT_FOUND, "the endpoint is `/mcp`");
        }
        if !matches!(parts.method, Method::POST | Method::GET | Method::DELETE) {
            let mut answer = say(StatusCode::METHOD_NOT_ALLOWED, "only POST, GET and DELETE");
            answer
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("POST, GET, DELETE"));
            return answer;
        }
        if body.size_hint().lower() > MAX_LINE as u64 {
            return say(StatusCode::PAYLOAD_TOO_LARGE, "the message is too long");
        }
        strip(&mut parts.headers, &OURS);
        let mut request = Request::new(Limited::new(body, MAX_LINE));
        *request.method_mut() = parts.method;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = parts.headers;
        match self.http.request(request).await {
            Ok(response) => {
                let (mut parts, body) = response.into_parts();
                strip(&mut parts.headers, &THEIRS);
                Response::from_parts(parts, Either::Left(body))
            }
            Err(error) if is_too_long(&error) => {
                say(StatusCode::PAYLOAD_TOO_LARGE, "the message is too long")
            }
            Err(error) => {
                let cause = io_error(&error);
                (self.report)(&format!("cannot reach `{}`: {cause}", self.peer));
                say(StatusCode::BAD_GATEWAY, "the server cannot be reached")
            }
        }
    }
}

fn is_too_long(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(cause) = next {
        if cause.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        next = cause.source();
    }
    false
}

/// Takes off what must not go on, what `Connection` names included.
fn strip(headers: &mut HeaderMap, more: &[HeaderName]) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .collect();
    let prefixed = headers
        .keys()
        .filter(|name| name.as_str().starts_with(PREFIX));
    let prefixed: Vec<HeaderName> = prefixed.cloned().collect();
    for name in HOP.iter().chain(more).chain(&named).chain(&prefixed) {
        headers.remove(name);
    }
}

fn refused(refusal: Refusal) -> Answer {
    match refusal {
        Refusal::Origin => say(StatusCode::FORBIDDEN, "this origin may not come here"),
        Refusal::Host => say(StatusCode::MISDIRECTED_REQUEST, "this is another host"),
        Refusal::Token => {
            let mut answer = say(
                StatusCode::UNAUTHORIZED,
                "the bearer token is missing or wrong",
            );
            answer
                .headers_mut()
                .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            answer
        }
    }
}

/// An error without an id, as JSON-RPC.
fn say(status: StatusCode, text: &'static str) -> Answer {
    let body = serde_json::json!({"jsonrpc": "2.0", "error": {"code": 4503, "message": text}});
    let mut answer = Response::new(Either::Right(Full::from(body.to_string())));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_one_side_stays_there() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("accept", "application/json"),
            ("mcp-session-id", "s"),
            ("authorization", "Bearer x"),
            ("cookie", "a=b"),
            ("connection", "close, X-Mine"),
            ("x-mine", "1"),
            ("keep-alive", "1"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("content-length", "5"),
            ("x-countersign-identity", "root"),
            ("origin", "http://localhost:1"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        strip(&mut headers, &OURS);
        let left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["accept", "mcp-session-id"]);
    }
}
