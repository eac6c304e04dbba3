//! Streamable HTTP, both eras, over an admitted connection. Each request is decided, recorded and
//! dispatched by the same steps as on a stream; here is what HTTP adds: header and body must agree,
//! the status waits for the outcome, answers may be streams of events, and the older revisions have
//! sessions.

mod agree;
mod call;
mod conn;
mod events;
mod flight;
mod gate;
mod handler;
mod legacy;
mod listen;
mod news;
mod options;
mod post;
mod serve;
mod sessions;
mod status;
mod websocket;

pub use options::HttpOptions;
pub use serve::{HttpStream, serve_http};
pub(super) use sessions::Sessions;
