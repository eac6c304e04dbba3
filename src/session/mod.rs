//! One connection's life: era, calls in flight, cancellation, subscriptions, back-pressure; and the
//! one map from any error to a reply, an audit verdict, and whether the connection goes on.

mod answer;
mod asks;
mod end;
pub mod http;
mod identities;
mod judge;
pub mod limits;
mod notes;
mod running;
mod service;
mod stream;
mod subscriptions;

pub use answer::Cause;
pub use end::End;
pub use http::{HttpOptions, HttpStream, serve_http};
pub use limits::Limits;
pub use service::{Service, ServiceParts};
pub use stream::serve;
