//! What travels in an enrolment (RFC 7030): the invitation, the answer (certs-only PKCS#7), and
//! bodies in base64. Bytes in, values out: no I/O, no clock, no decision.

mod body;
mod certs_only;
mod invitation;

pub use body::{BodyError, from_body, to_body};
pub use certs_only::{CertsOnlyError, read_certs_only, write_certs_only};
pub use invitation::{Invitation, InvitationError, SECRET_BYTES};

/// The folder of an EST server (RFC 7030 section 3.2.2).
pub const ROOT: &str = "/.well-known/est/";

/// The content type of a request, RFC 5967.
pub const PKCS10: &str = "application/pkcs10";

/// The content type of an answer, RFC 5751 section 3.2.
pub const CERTS_ONLY: &str = "application/pkcs7-mime; smime-type=certs-only";

/// The content type of a refusal, RFC 9457.
pub const PROBLEM: &str = "application/problem+json";
