//! The audit log: the third proof. Recording only; what is recorded was decided elsewhere.
//!
//! One JSON object a line, each with the SHA-256 of the line before. A decision is with the
//! operating system before its call runs; a log that cannot be written refuses calls.

mod chain;
mod checker;
mod committer;
mod counts;
mod decision;
mod encode;
mod event;
mod files;
#[cfg(test)]
mod fixture;
mod follow;
mod gather;
mod log;
mod open;
mod verify;
mod writer;

pub use checker::{Edge, Finding};
pub use committer::OUTCOME_DELAY;
pub use counts::Counts;
pub use encode::misleading;
pub use event::{ConnectionFacts, Enrolled, Event, Outcome, Revoked};
pub use files::log_files;
pub use follow::{Follow, last_lines};
pub use gather::Ticket;
pub use log::{AuditLog, Pending, Recorded, Written};
pub use open::{AuditError, AuditOptions, Recovery, SyncMode};
pub use verify::{Report, verify_files, verify_files_holding};
