//! Bytes to messages and back, without I/O: lines, and the reading side of server-sent events.

mod events;
mod lines;

pub use events::{Event, EventTooLong, Events};
pub use lines::{LineTooLong, Lines};
