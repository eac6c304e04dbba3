//! Answers. Every one carries the security headers; they are put together once.

use std::sync::LazyLock;

use bytes::Bytes;
use futures_util::stream::{BoxStream, Stream, StreamExt};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use crate::jsonrpc::{RpcError, write_error};

use super::body::ReplyBody;

const NO_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// What every answer says: it is not to be kept, guessed at, framed or told of.
fn security() -> HeaderMap {
    let mut map = HeaderMap::with_capacity(8);
    let mut put = |name: HeaderName, value: &'static str| {
        map.insert(name, HeaderValue::from_static(value));
    };
    put(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    put(header::CACHE_CONTROL, "no-store");
    put(header::REFERRER_POLICY, "no-referrer");
    put(
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; frame-ancestors 'none'",
    );
    map
}

fn with_type(kind: &'static str) -> HeaderMap {
    let mut map = security();
    map.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    map
}

/// Puts what every answer says into one that does not say it yet.
pub fn secure(headers: &mut HeaderMap) {
    for (name, value) in BARE.iter() {
        headers.entry(name).or_insert_with(|| value.clone());
    }
}

/// The same as names and values.
pub fn security_fields() -> impl Iterator<Item = (&'static [u8], &'static [u8])> {
    BARE.iter()
        .map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
}

/// The same as lines of HTTP/1.1.
pub fn security_lines() -> String {
    let line = |(name, value): (&HeaderName, &HeaderValue)| {
        format!("{name}: {}\r\n", value.to_str().unwrap_or_default())
    };
    BARE.iter().map(line).collect()
}

static BARE: LazyLock<HeaderMap> = LazyLock::new(security);
static JSON: LazyLock<HeaderMap> = LazyLock::new(|| with_type("application/json"));
static TEXT: LazyLock<HeaderMap> = LazyLock::new(|| with_type("text/plain; charset=utf-8"));
static EVENTS: LazyLock<HeaderMap> = LazyLock::new(|| {
    let mut map = with_type("text/event-stream");
    map.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-store, no-transform"),
    );
    map.insert(NO_BUFFERING, HeaderValue::from_static("no"));
    map
});

fn response(status: StatusCode, headers: HeaderMap, body: ReplyBody) -> Response<ReplyBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// Without a body.
#[must_use]
pub fn empty(status: StatusCode) -> Response<ReplyBody> {
    response(status, BARE.clone(), ReplyBody::whole(None))
}

/// The most fields that a map may have room for to be used again, so that a request with many does
/// not have its connection keep room for as many.
const AGAIN: usize = 24;

/// These fields in a map of a request's, whose fields go.
fn again(mut map: HeaderMap, headers: &HeaderMap) -> HeaderMap {
    if !(headers.len()..=AGAIN).contains(&map.capacity()) {
        return headers.clone();
    }
    map.clear();
    for (name, value) in headers {
        map.insert(name, value.clone());
    }
    map
}

/// As [`json`], in the map of the request's fields. hyper keeps an answer's map for the next request
/// of the connection, so one goes round and none is made.
#[must_use]
pub fn json_again(map: HeaderMap, status: StatusCode, body: Bytes) -> Response<ReplyBody> {
    response(status, again(map, &JSON), ReplyBody::whole(Some(body)))
}

/// One JSON text.
#[must_use]
pub fn json(status: StatusCode, body: Bytes) -> Response<ReplyBody> {
    json_again(HeaderMap::new(), status, body)
}

/// A few words.
#[must_use]
pub fn text(status: StatusCode, body: &'static str) -> Response<ReplyBody> {
    response(
        status,
        TEXT.clone(),
        ReplyBody::whole(Some(Bytes::from_static(body.as_bytes()))),
    )
}

/// Events until the stream ends.
#[must_use]
pub fn event_stream(events: impl Stream<Item = Bytes> + Send + 'static) -> Response<ReplyBody> {
    let events: BoxStream<'static, Bytes> = events.boxed();
    response(StatusCode::OK, EVENTS.clone(), ReplyBody::events(events))
}

/// A refusal, with a JSON-RPC error without an id for clients that look into the body.
#[must_use]
pub fn fault(status: StatusCode, code: i64, message: &str) -> Response<ReplyBody> {
    let mut body = Vec::with_capacity(96 + message.len());
    write_error(&mut body, None, &RpcError::new(code, message));
    json(status, body.into())
}

/// 405 with what is allowed.
#[must_use]
pub fn allow(methods: &'static str) -> Response<ReplyBody> {
    let mut response = fault(
        StatusCode::METHOD_NOT_ALLOWED,
        crate::jsonrpc::code::INVALID_REQUEST,
        "this method is not allowed here",
    );
    response
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static(methods));
    response
}
