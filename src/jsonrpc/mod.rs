//! JSON-RPC 2.0 envelopes, borrowed: what a message is, found without building a tree, and replies
//! spliced together from raw slices. Knows nothing of MCP methods.

mod id;
mod object;
mod outline;
mod plain;
mod reply;
mod scan;

pub use id::{OwnedId, RequestId};
pub use object::{Fields, ObjectError, array_items, fields, slots, string_value};
pub use outline::Outline;
pub use plain::plain;
pub use reply::{
    AROUND_RESULT, RpcError, begin_result, code, end_result, write_error, write_notification,
    write_string,
};
pub use scan::{Fault, Message, ScanError, scan, scan_into};
