//! Bytes on a connection to whole messages and back. Knows framing, nothing of MCP.

mod pipe;
mod raw;
mod websocket;
mod wire;

pub use raw::RawWire;
pub use websocket::WsWire;
pub use wire::{Goodbye, Wire, WireError};
