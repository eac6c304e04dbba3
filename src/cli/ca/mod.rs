//! `countersign ca …`: reads arguments, environment and terminal, calls `ca`, shows what came out.
//! Decides nothing about certificates itself.

mod actor;
mod arguments;
mod authorities;
mod error;
mod invite;
mod keeping;
mod making;
mod outcome;
mod passphrase;
mod place;
pub(super) mod run;
mod serve;
#[cfg(test)]
mod tests;
mod view;

pub use actor::actor;
pub use arguments::{CaAction, CaCommand};
pub use error::{CaCommandError, token_hint};
pub use outcome::{
    CaOutcome, InitReport, InviteReport, IssueReport, ListReport, RevokeReport, ShowReport,
};
pub use passphrase::Passphrases;
pub use place::{Place, Settings};
pub use serve::Serve;
pub use view::{CertificateView, ConfirmationView, table};
