//! Work that blocks: on threads of its own, bounded in number, and told when nobody waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Semaphore;

use super::super::{Cancel, Failure};
use super::root::Refused;

/// Says when to stop: the call was cancelled, or its future was dropped.
#[derive(Clone)]
pub struct Halt {
    cancel: Cancel,
    dropped: Arc<AtomicBool>,
}

struct SetOnDrop(Arc<AtomicBool>);

impl Halt {
    pub fn new(cancel: Cancel) -> Self {
        Self {
            cancel,
            dropped: Arc::default(),
        }
    }

    #[cfg(test)]
    pub fn never() -> Self {
        Self::new(Cancel::default())
    }

    pub fn is_stopped(&self) -> bool {
        self.cancel.is_cancelled() || self.dropped.load(Ordering::Relaxed)
    }

    pub fn check(&self) -> Result<(), Refused> {
        if self.is_stopped() {
            Err(Refused::Stopped)
        } else {
            Ok(())
        }
    }
}

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `work` on a blocking thread once each of the permits is had.
pub async fn run<T: Send + 'static>(
    permits: Vec<Arc<Semaphore>>,
    cancel: Cancel,
    work: impl FnOnce(&Halt) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let mut held = Vec::with_capacity(permits.len());
    for permit in permits {
        held.push(
            permit
                .acquire_owned()
                .await
                .map_err(|e| Failure::Internal(e.to_string()))?,
        );
    }
    let halt = Halt::new(cancel);
    let _guard = SetOnDrop(Arc::clone(&halt.dropped));
    tokio::task::spawn_blocking(move || {
        // Held until the thread is free again, also when nobody waits for it any more.
        let _held = held;
        work(&halt)
    })
    .await
    .map_err(|error| Failure::Internal(format!("a task on the disk ended early: {error}")))?
}
