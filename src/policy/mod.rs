//! What may be asked and who may: the second proof. Deciding is pure; it records nothing, it
//! enforces nothing, it knows no clock.

mod action;
mod decide;
mod rules;
mod written;

pub use action::{Action, Ask};
pub use decide::{Denied, Explanation, Grounds, Permitted, Step, decide, explain};
pub use rules::{Denials, Policy, Rule};
pub use written::{PolicyError, PolicyOptions, RuleOptions};
