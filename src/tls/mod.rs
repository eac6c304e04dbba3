//! Mutual TLS: the verifier, admission after every handshake, the server's and the client's configuration.

mod admission;
mod anchor;
mod client;
mod identity;
mod provider;
mod refusal;
mod server;
mod trust;
mod verifier;

pub use anchor::{Anchor, AnchorOptions, CrlMode, NameFrom};
pub use client::{ClientTls, ClientTlsError};
pub use identity::{Identity, IdentityError};
pub use refusal::{Class, Refusal};
pub use server::{Accepted, ServerTls, ServerTlsError, ServerTlsOptions};
pub use trust::{Trust, TrustError};
