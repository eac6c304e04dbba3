//! Bytes on a connection to whole messages and back, and which way they are framed. Knows framing
//! and headers, nothing of MCP.

pub mod choose;
pub mod http;
mod pipe;
mod raw;
mod websocket;
mod wire;

pub use choose::{ChooseError, Way, choose};
pub use raw::RawWire;
pub use websocket::WsWire;
pub use wire::{Goodbye, Wire, WireError};
