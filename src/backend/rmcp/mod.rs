//! A `ServerHandler` of the rmcp SDK, unchanged, as a provider: what reaches it was admitted,
//! permitted and recorded like any other call. Only with the feature `rmcp`.
//!
//! Every call runs in a session of the SDK that was made for it and ends with it. So what a handler
//! says while it works (progress, log messages, questions) can go to nobody but the caller, and a
//! handler that keeps the peer of a call has nobody to talk to afterwards. One more session lives
//! as long as the handler: it is the one that is initialized, that subscriptions run on, and that
//! lists are asked for on. It has no caller, and only changes of resources leave it.
//!
//! Not carried: tasks, skills and custom methods; changes of the lists of tools and prompts, which
//! are read once; `_meta` of requests and results (that of listed things is); what the client says
//! of itself: in its place stands the name that was proven.

mod hosted;
mod listing;
mod outcome;
mod session;
mod standing;

pub use hosted::{HostError, Hosted, caller, host};
