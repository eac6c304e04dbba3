//! The stdio bridge: lines of any MCP client to the server and back, byte for byte.
//!
//! Looks at each line's envelope to know which requests are waiting for an answer, and changes
//! nothing in it. What it writes itself is only: an error for each request that was waiting when the
//! connection broke, and the opening of a legacy session again after a reconnect. What a legacy
//! session set up otherwise (`resources/subscribe`, `logging/setLevel`) ends with the connection.

mod backoff;
mod carry;
mod ledger;
mod run;

pub use backoff::Backoff;
pub(super) use ledger::error;
pub use run::{Bridge, BridgeOptions, Dial};
