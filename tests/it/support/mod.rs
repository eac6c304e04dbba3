//! What the tests of all boundaries share: a CA of their own, clients by role, a server that echoes.

pub mod client;
pub mod http;
pub mod echo;
pub mod pki;
pub mod program;
pub mod served;
