//! The audit log: the third proof. Recording only; what is recorded was decided elsewhere.

mod chain;
mod event;
mod log;
mod verify;

pub use event::{ConnectionFacts, Event, Outcome};
pub use log::{AuditError, AuditLog, AuditOptions, Pending, Recorded, Recovery, Ticket, Written};
pub use verify::{Finding, Report, verify_files};
