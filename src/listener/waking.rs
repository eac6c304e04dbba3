//! Wakes connections that were told to close: a few at once, a crowd by and by, so that the closing
//! of thousands does not hold up those who stay. It decides nothing: that a connection is to close is
//! written in its entry before it comes here.
//!
//! Closing costs some 40 µs of a processor. Woken all at once ten thousand stand in the way of those
//! who stay as one queue of 0.2 s; one after the other they leave the runtime's other workers free for
//! most of the time (with two workers and two processors a call beside them still takes up to some
//! milliseconds instead of a quarter of one: `scripts/bench --only issuer`).

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::live::Entry;
use crate::clock;

/// So many are woken at once.
const AT_ONCE: usize = 8;
/// The rest is woken within this time, however many they are and however slow.
const SPREAD: Duration = Duration::from_millis(350);
/// The longest that the next ones wait for those before them.
const STEP: Duration = Duration::from_millis(1);

/// Those who are to be woken.
#[derive(Default)]
pub(super) struct Waking {
    /// Never more than there are connections.
    waiting: Mutex<VecDeque<Arc<Entry>>>,
    more: Notify,
    /// Connections that have ended, whatever for: it only sets the pace.
    ended: AtomicU64,
    one_ended: Notify,
}

impl Waking {
    /// Wakes the first of them, and leaves the others to [`Self::run`].
    pub fn wake(&self, mut told: Vec<Arc<Entry>>) {
        let rest = told.split_off(told.len().min(AT_ONCE));
        told.iter().for_each(|entry| entry.wake());
        if !rest.is_empty() {
            self.waiting().extend(rest);
            self.more.notify_one();
        }
    }

    /// A connection has ended.
    pub fn ended(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
        self.one_ended.notify_one();
    }

    /// Wakes those who wait: the next ones when those before them have ended, and more at a time
    /// where that would take too long.
    pub async fn run(&self) -> Infallible {
        // One worker stays free for those who stay.
        let width = Handle::current().metrics().num_workers().saturating_sub(1);
        loop {
            self.more.notified().await;
            let (began, mut woken) = (clock::monotonic(), 0);
            loop {
                let elapsed = clock::monotonic().saturating_duration_since(began);
                let lot = self.lot(elapsed, woken, width.max(1));
                if lot.is_empty() {
                    break;
                }
                woken += lot.len();
                let goal = self.ended.load(Ordering::Relaxed) + lot.len() as u64;
                lot.iter().for_each(|entry| entry.wake());
                // Those who are slow are not waited for.
                let _ = timeout(STEP, self.until(goal)).await;
            }
        }
    }

    /// The next to be woken: `width` of them, or as many as are missing from a steady pace.
    fn lot(&self, elapsed: Duration, woken: usize, width: usize) -> Vec<Arc<Entry>> {
        let mut waiting = self.waiting();
        let all = woken + waiting.len();
        let part = elapsed.as_micros().min(SPREAD.as_micros());
        let due = usize::try_from(all as u128 * part / SPREAD.as_micros()).unwrap_or(all);
        let count = due.saturating_sub(woken).max(width).min(waiting.len());
        waiting.drain(..count).collect()
    }

    async fn until(&self, goal: u64) {
        while self.ended.load(Ordering::Relaxed) < goal {
            self.one_ended.notified().await;
        }
    }

    /// Nothing panics while it is held.
    fn waiting(&self) -> MutexGuard<'_, VecDeque<Arc<Entry>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
