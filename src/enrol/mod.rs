//! The client's side of enrolment: keys are made here and never leave. Joins by an invitation,
//! renews by the certificate itself, and never puts a broken certificate in the place of a working
//! one. Holds no CA key and imports nothing that does.

mod error;
mod exchange;
mod files;
mod install;
mod join;
mod keep;
mod key;
mod renew;
mod verify;

pub use error::EnrolError;
pub use files::{CertFiles, Note};
pub use join::{Joined, join};
pub use keep::{keep, next_try};
pub use renew::{Renewed, due_at, is_due, renew};
