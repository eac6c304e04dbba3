//! A bell that is asked with every turn that a task gets.
//!
//! tokio's `Notify` takes a lock each time a wait is begun, asked or given up, and a connection asks twice
//! for every call. So the wait is kept, and asked only when something has rung or another task asks.

use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Wakes who waits, and counts how often it has, first: who is woken looks here whether it must ask.
#[derive(Debug, Default)]
pub struct Bell {
    notify: Notify,
    rings: AtomicU32,
}

impl Bell {
    /// Wakes all who wait now.
    pub fn ring_for_all(&self) {
        self.rings.fetch_add(1, Ordering::Release);
        self.notify.notify_waiters();
    }

    /// Wakes one who waits, or who waits next.
    pub fn ring_for_one(&self) {
        self.rings.fetch_add(1, Ordering::Release);
        self.notify.notify_one();
    }

    /// How often it rang.
    #[must_use]
    pub fn rings(&self) -> u32 {
        self.rings.load(Ordering::Acquire)
    }

    /// Ready when it has rung.
    pub fn rung(&self) -> Notified<'_> {
        self.notify.notified()
    }
}

/// Whether a wait that was asked before need be asked again: not as long as nothing has rung since,
/// and it would wake the same task.
#[derive(Debug, Default)]
pub struct Vigil {
    rings: u32,
    waker: Option<Waker>,
}

impl Vigil {
    /// Asks `wait` where that can say anything new. `rings`: how often was rung, counted before who
    /// waits is woken, and read before this is called: what rings meanwhile is asked for the next time.
    pub fn ask<T>(
        &mut self,
        cx: &mut Context<'_>,
        rings: u32,
        wait: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let same = |waker: &Waker| waker.will_wake(cx.waker());
        if self.rings == rings && self.waker.as_ref().is_some_and(same) {
            return Poll::Pending;
        }
        self.rings = rings;
        self.waker = None;
        let asked = wait(cx);
        if asked.is_pending() {
            self.waker = Some(cx.waker().clone());
        }
        asked
    }
}
