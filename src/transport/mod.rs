//! Framing over an admitted connection. Knows no MCP semantics beyond framing and headers.

pub mod choose;
pub mod http;
mod raw;
mod wire;

pub use choose::{ChooseError, Way, choose};
pub use raw::RawWire;
pub use wire::{Wire, WireError};
