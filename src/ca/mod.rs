//! The certificate authority: makes its two keys, signs certificates, records and pins them before
//! they leave, revokes, and writes CRLs. Judges no connection: it meets `tls` only through the
//! registry, certificate files and CRLs. Nothing on the data path imports it.

mod authority;
mod certificate;
mod create;
mod crl;
pub mod dev;
mod enrol;
mod facts;
mod files;
mod issue;
mod lock;
mod passphrase;
mod pem;
mod pin;
mod profile;
mod remaining;
mod revoke;
mod serial;
mod sign;
mod signer;
#[cfg(test)]
mod tests;

pub use authority::{Authority, AuthorityError, Unlock};
pub use certificate::BuildError;
pub use create::{CreateError, Created, NewAuthority, create};
pub use crl::{CrlError, WrittenCrl, write_crl};
pub use enrol::{Hosts, Outside, hosts, issue_by_token, issue_in_place_of, narrow};
pub use facts::Facts;
pub use files::{CaFiles, State};
pub use issue::{IssueError, Issued, Output, Written, issue, prepare_output, write_out};
pub use lock::LockError;
pub use passphrase::{PassphraseError, read_passphrase};
pub use pem::certificate as certificate_pem;
pub use pin::{NameFrom, NewPin, PinError, Pinned, pin, unpin};
pub use profile::{Profile, ProfileError, Profiles, Usage};
pub use remaining::remaining;
pub use revoke::{RevokeError, Revoked, revoke};
pub use sign::{Request, Rules, SignError, Signed};
pub use signer::{KeyKind, Signer, SignerError};
