//! What the tests of all boundaries share: a CA of their own, clients by role, a server that echoes.

pub mod client;
pub mod echo;
pub mod fixture;
pub mod http;
pub mod pki;
pub mod program;
pub mod served;
pub mod ws;
