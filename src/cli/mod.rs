//! The command line: arguments, rendering, exit codes. Decides nothing and holds no protocol.
//!
//! stdout carries data only; messages, hints and progress go to stderr. A command that ends badly
//! says `error:` and, where something can be done, `hint:`, and never shows a stack trace.

mod administer;
mod args;
mod arguments;
pub mod audit;
pub mod ca;
mod call;
mod completions;
pub mod config;
mod configured;
mod connect;
mod content;
mod doctor;
mod dumps;
mod exit;
mod join;
mod listen;
mod lists;
mod man;
mod meter;
pub mod pin;
mod ping;
pub mod policy;
mod prompt;
mod reach;
mod read;
mod render;
mod renew;
mod run;
mod serve;
mod snippet;
mod up;
mod whoami;

pub use exit::{Exit, Failure};
pub use render::{Out, plain, table};
pub use run::main;
