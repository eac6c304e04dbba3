//! The quickstart's folder: a CA, a server's certificate and two clients', a registry. Made once,
//! reused after that; what has run out, or does not fit together, is made anew. Opens no CA key
//! while everything is in order.

mod ensure;
mod fits;
mod member;

pub use ensure::{Dev, DevError, ensure};
pub use member::{Member, Step, Verb};
