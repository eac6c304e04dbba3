//! Bytes on a connection to whole messages and back. Knows framing, nothing of MCP.

mod raw;
mod wire;

pub use raw::RawWire;
pub use wire::{Wire, WireError};
