//! The loopback endpoint: ordinary Streamable HTTP clients of this machine go into the server with
//! one certificate. It decides only who on this machine may use that certificate; what a request may
//! do is the server's to decide.

mod forward;
mod guard;
mod serve;

pub use guard::Token;
pub use serve::{Loopback, LoopbackError};
