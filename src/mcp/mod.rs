//! The Model Context Protocol's table: revisions, methods with the field that is authorized, what a
//! request asks for, and the shapes of what is answered. Decides nothing and does no I/O.

mod call;
mod meta;
mod method;
mod params;
mod revision;
mod shape;

pub use call::{Call, CallError, Detail, Filter, Reference, Retry, read_call};
pub use meta::{Meta, Severity};
pub use method::{Method, Note};
pub use params::ParamsError;
pub use revision::{Era, Revision};
pub use shape::{Finish, ServerInfo, unsupported_version};
