//! `ca serve`: the process that holds the issuing key. It enrols by EST (RFC 7030) over TLS, and
//! serves CRLs over plain HTTP to other relying parties. It serves no MCP: the processes that do
//! have no way to the key.

mod crl;
mod desk;
mod http;
mod listen;
mod own;
mod rate;
mod refusal;
mod run;
mod shift;

pub use crl::CrlOptions;
pub use desk::{Desk, DeskParts};
pub use own::{Own, OwnError};
pub use rate::Rates;
pub use run::{AuthorityServer, AuthorityServerError, AuthorityServerOptions, Listening, run};
pub use shift::{PrepareError, Reopen};
