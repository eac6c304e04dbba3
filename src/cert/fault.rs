//! For tests: the disk fails, or the process ends, at a chosen step. A process that ends is a panic
//! that nothing below the test catches: whatever would have been done after it is not done.

use std::cell::Cell;
use std::io;

/// What happens at the chosen step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The step fails, as a full disk makes it fail.
    Error,
    /// The process is gone.
    Kill,
}

thread_local! {
    static ARMED: Cell<Option<(usize, Fault)>> = const { Cell::new(None) };
}

/// The step after `steps` others goes wrong, once.
pub(crate) fn arm(steps: usize, fault: Fault) {
    ARMED.set(Some((steps, fault)));
}

/// Nothing goes wrong from here; whether something did.
pub(crate) fn disarm() -> bool {
    ARMED.take().is_none()
}

/// One step.
pub(crate) fn point() -> io::Result<()> {
    match ARMED.get() {
        None => Ok(()),
        Some((0, fault)) => {
            ARMED.set(None);
            match fault {
                Fault::Error => Err(io::Error::other("the disk is full")),
                Fault::Kill => panic!("killed"),
            }
        }
        Some((left, fault)) => {
            ARMED.set(Some((left - 1, fault)));
            Ok(())
        }
    }
}
