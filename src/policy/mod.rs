//! What may be asked and who may: the second proof. Deciding is pure; it records nothing, it
//! enforces nothing, it knows no clock.

mod action;
mod decide;
mod rights;
mod rules;
mod written;

pub use action::{Action, Ask};
pub use decide::{Denied, Grounds, Permitted, decide, explain};
pub use rights::{Explanation, Step, explain_chain};
pub use rules::{Denials, Policy, Rule};
pub use written::{PolicyError, PolicyMistake, PolicyOptions, RuleOptions};
