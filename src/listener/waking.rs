//! Wakes connections that were told to close: a few at once, a crowd by and by, so that the closing
//! of thousands does not hold up those who stay. It decides nothing: that a connection is to close is
//! written in its entry before it comes here.
//!
//! Closing costs the workers some 50 µs of a processor, half of it for the last words and the socket.
//! Woken all at once ten thousand stand in the way of those who stay as one queue of 0.3 s, and woken one
//! after the other they still keep two workers from looking for what has arrived. So few are woken at a
//! time, the costly half is another thread's (`parting.rs`), and the next are woken when those before
//! them are gone. What that comes to is in `docs/measure.md` (`scripts/bench --only issuer`).

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use super::live::Entry;
use super::parting::Partings;
use crate::clock;

/// So many are woken at once.
const AT_ONCE: usize = 8;
/// The rest is woken within this time, however many they are and however slow.
const SPREAD: Duration = Duration::from_millis(330);
/// For this long they are not hurried: the crowd's thread begins.
const LEAD: Duration = Duration::from_millis(70);
/// The longest that the next ones wait for those before them.
const STEP: Duration = Duration::from_millis(1);
/// So many are on their way out at a time, and the next are woken when half of them are gone.
const AHEAD: u64 = 16;
/// The last of a crowd have so long to be gone before its thread ends.
const LAST: Duration = Duration::from_secs(1);

/// Those who are to be woken.
#[derive(Default)]
pub(super) struct Waking {
    /// Never more than there are connections.
    waiting: Mutex<VecDeque<Arc<Entry>>>,
    more: Notify,
    pub partings: Arc<Partings>,
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

    /// Wakes those who wait, with a thread for their last (see [`Partings`]).
    pub async fn run(&self) -> Infallible {
        loop {
            self.more.notified().await;
            let attended = self.partings.attend();
            loop {
                let goal = self.pace(attended.is_some()).await;
                tokio::select! {
                    biased;
                    // Another crowd.
                    () = self.more.notified() => {}
                    _ = timeout(LAST, self.partings.until(goal)) => break,
                }
            }
            drop(attended);
        }
    }

    /// Wakes all who wait now: the next ones when those before them have ended, and more at a time
    /// where that would take too long. Returns the count of ends that all of them come to.
    async fn pace(&self, attended: bool) -> u64 {
        let (began, first) = (clock::monotonic(), self.partings.count());
        let mut woken = 0;
        loop {
            let elapsed = clock::monotonic().saturating_duration_since(began);
            let room = (first + woken + AHEAD).saturating_sub(self.partings.count());
            let lot = self.lot(elapsed, woken, room.min(AHEAD));
            woken += lot.len() as u64;
            for entry in &lot {
                if attended {
                    entry.join_a_crowd();
                }
                entry.wake();
            }
            if self.waiting().is_empty() {
                return first + woken;
            }
            // Those who are slow are not waited for.
            let goal = (first + woken).saturating_sub(AHEAD / 2);
            let _ = timeout(STEP, self.partings.until(goal)).await;
        }
    }

    /// The next to be woken: as many as there is room for, or as many as are missing from a steady
    /// pace.
    fn lot(&self, elapsed: Duration, woken: u64, room: u64) -> Vec<Arc<Entry>> {
        let mut waiting = self.waiting();
        let left = waiting.len() as u64;
        let part = elapsed.saturating_sub(LEAD).min(SPREAD).as_micros();
        let due = u128::from(woken + left) * part / SPREAD.as_micros();
        let due = u64::try_from(due).unwrap_or(u64::MAX).saturating_sub(woken);
        let count = usize::try_from(due.max(room).min(left)).unwrap_or(usize::MAX);
        waiting.drain(..count).collect()
    }

    /// Nothing panics while it is held.
    fn waiting(&self) -> MutexGuard<'_, VecDeque<Arc<Entry>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
