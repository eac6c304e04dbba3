//! From a reply to the status that it goes out with (revision 2026-07-28; before it every reply to
//! a request is 200).

use hyper::StatusCode;

use crate::dispatch::Reply;
use crate::jsonrpc::code;

/// The status of a modern reply.
#[must_use]
pub const fn status_of(reply: &Reply) -> StatusCode {
    match reply {
        Reply::Error(error) => status_of_code(error.code),
        _ => StatusCode::OK,
    }
}

/// The status of an error in the modern era. What a call itself came to stays in the body.
#[must_use]
pub const fn status_of_code(number: i64) -> StatusCode {
    match number {
        code::METHOD_NOT_FOUND => StatusCode::NOT_FOUND,
        code::PARSE_ERROR
        | code::INVALID_REQUEST
        | code::HEADER_MISMATCH
        | code::MISSING_CAPABILITY
        | code::UNSUPPORTED_VERSION => StatusCode::BAD_REQUEST,
        _ => StatusCode::OK,
    }
}
