//! What the tests of all boundaries share: a CA of their own, clients by role, a server that echoes.

pub mod authority;
pub mod client;
pub mod echo;
pub mod fixture;
#[cfg(feature = "cryptoki")]
pub mod hsm;
pub mod http;
pub mod pki;
pub mod program;
pub mod served;
pub mod ws;
