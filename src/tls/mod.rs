//! Mutual TLS: the verifier, admission after every handshake, the server's and the client's
//! configuration. Decides who comes in, never what they may do there.

mod admission;
mod anchor;
mod cache;
mod client;
mod crl;
mod either_usage;
mod identity;
mod known_root;
mod open;
mod path;
mod profile;
mod provider;
mod refusal;
mod server;
mod signatures;
mod socket;
mod token;
mod trust;
mod verifier;

pub use anchor::{Anchor, AnchorOptions, CrlMode, NameFrom};
pub use client::{ClientTls, ClientTlsError, agreed_with, explain_alert};
pub use crl::own_revocations;
pub use identity::{Identity, IdentityError};
pub use open::OpenTls;
pub use profile::Profile;
pub use refusal::{Class, Refusal};
pub use server::{Accepted, ServerTls, ServerTlsError, ServerTlsOptions};
pub use socket::Socket;
pub use trust::{Trust, TrustError};
