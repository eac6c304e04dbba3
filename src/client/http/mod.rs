//! Streamable HTTP from the client's side: connections, headers, and the lines of the bridge as
//! requests and event streams.

mod answer;
mod connector;
mod engine;
mod mirror;
mod session;

pub use connector::{HttpClient, client, endpoint, io_error};
pub use engine::{HttpLines, open};
