//! What was recorded so far, by kind; `server_status` tells.

use super::event::Outcome;

/// Counts of this process. They lie with what gathers, under its lock, which whoever counts holds
/// anyway: a counter of their own would move from one thread's cache to the other's with each call.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    allowed: u64,
    denied: u64,
    failed: u64,
}

impl Counts {
    pub(super) const fn permitted(&mut self) {
        self.allowed += 1;
    }

    pub(super) const fn refused(&mut self) {
        self.denied += 1;
    }

    pub(super) fn ended(&mut self, outcome: Outcome) {
        if outcome != Outcome::Ok {
            self.failed += 1;
        }
    }

    /// Decisions that allowed something.
    #[must_use]
    pub const fn allowed(&self) -> u64 {
        self.allowed
    }

    /// Decisions that did not.
    #[must_use]
    pub const fn denied(&self) -> u64 {
        self.denied
    }

    /// Allowed calls that came to something else than a good result: an error, a limit, a cancellation.
    #[must_use]
    pub const fn failed(&self) -> u64 {
        self.failed
    }
}
