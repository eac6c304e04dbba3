//! What travels in an enrolment (RFC 7030): the invitation, the answer (certs-only PKCS#7), and
//! bodies in base64. Bytes in, values out: no I/O, no clock, no decision.

mod body;
mod certs_only;
mod invitation;
mod words;

pub use body::{BodyError, from_body, to_body};
pub use certs_only::{CertsOnlyError, read_certs_only, write_certs_only};
pub use invitation::{Invitation, InvitationError, SECRET_BYTES};
pub use words::{CERTS_ONLY, PKCS10, PROBLEM, ROOT};
