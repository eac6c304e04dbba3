//! Bytes to messages and back, without I/O: lines, and server-sent events in both directions.

mod events;
mod lines;
mod sse;

pub use events::{Event, EventTooLong, Events};
pub use lines::{LineTooLong, Lines};
pub use sse::{KEEP_ALIVE, write_event, write_priming};
