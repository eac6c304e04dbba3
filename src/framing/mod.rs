//! Bytes to messages and back, without I/O: lines now, server-sent events with the HTTP transport.

mod lines;

pub use lines::{LineTooLong, Lines};
