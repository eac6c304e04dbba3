//! The certificate authority: makes its two keys, signs certificates, records and pins them before
//! they leave, revokes, and writes CRLs. Judges no connection: it meets `tls` only through the
//! registry, certificate files and CRLs. Nothing on the data path imports it.

mod authority;
mod bundle;
mod certificate;
mod create;
mod crl;
mod csr;
mod delegate;
pub mod dev;
mod enrol;
mod facts;
mod files;
mod issue;
mod keeping;
mod lock;
mod output;
mod pin;
mod pkcs12;
mod profile;
mod remaining;
mod renew;
mod revoke;
mod rotate;
mod serial;
mod sign;
mod signer;
mod subject_key;
#[cfg(test)]
mod tests;

pub use authority::{Authority, AuthorityError, Unlock};
pub use bundle::write_bundle;
pub use certificate::BuildError;
pub use create::{CreateError, Created, NewAuthority, create};
pub use crl::{CrlError, WrittenCrl, refresh_crl, refresh_crls, write_crl, write_crl_at};
pub use csr::{CertificateRequest, CsrError};
pub use delegate::{
    DelegateError, Delegation, LONGEST_DELEGATION, prepare_delegate, write_delegate,
};
pub use enrol::{Hosts, Outside, hosts, narrow};
pub use facts::Facts;
pub use files::{CaFiles, SettleError, State};
pub use issue::{IssueError, Issued, issue, issue_offline, issue_with_token};
pub use keeping::Keeping;
pub use lock::LockError;
pub use output::{
    Form, FormError, Holding, KeyPart, Output, Written, prepare_output, prepare_output_in,
    write_in_form, write_offline, write_out,
};
pub use pin::{NameFrom, NewPin, PinError, Pinned, pin, unpin};
pub use pkcs12::Pkcs12Error;
pub use profile::{Profile, ProfileError, Profiles, Usage};
pub use remaining::remaining;
pub use renew::{RenewError, Renewal, end_old, find_newest, issue_renewal};
pub use revoke::{RevokeError, Revoked, revoke, revoke_all};
pub use rotate::{Rotated, rotate_issuing, rotate_root};
pub use sign::{Request, Rules, SignError, Signed};
pub use signer::{Signer, SignerError};
pub use subject_key::SubjectKeyError;
