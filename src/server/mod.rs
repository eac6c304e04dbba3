//! The server put together: registry, trust, audit log, providers, sessions, listener; reloading
//! and stopping. The one place that knows all of them; it holds no rule of its own.

mod assemble;
mod door;
mod health;
mod reload;
mod run;
mod status;

pub use assemble::{Assembled, ServerError, assemble};
pub use run::{Again, Ready, host, run, serve};
