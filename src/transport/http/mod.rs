//! HTTP/1.1 and HTTP/2 over an admitted connection: what a request's head says, its body within
//! bounds, answers with the headers that every answer carries, and the pace of the connection.
//! Knows the names of MCP's headers and nothing of what they mean.

mod answer;
mod bare;
mod beside;
mod body;
mod connection;
mod encoded;
mod fields;
mod gathered;
mod pace;
mod preface;
mod unparsed;

pub use answer::{allow, empty, event_stream, fault, json, json_again, secure, text};
pub use body::{BodyError, Collecting, ReplyBody};
pub use connection::{Bounds, Connection, Gone};
pub use encoded::{NotText, decoded};
pub use fields::{Accepts, Fields, is_json, is_media_type};
pub use pace::{Busy, Late, Pace, Paced, Patience};
