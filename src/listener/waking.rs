//! Wakes connections that were told to close: a few at once, a crowd by and by, so that the closing
//! of thousands does not hold up those who stay. It decides nothing: that a connection is to close is
//! written in its entry before it comes here.
//!
//! Closing costs a processor some 50 µs, half of it for the last words and the socket. Woken all at once
//! ten thousand stand in the way of those who stay as one queue of 0.3 s, and woken one after the other
//! they still keep two workers from looking for what has arrived. So only a few are on their way out at a
//! time, the costly half is another thread's (`parting.rs`), and as that thread is done with one it wakes
//! the next, by a pace that leaves the processors time for others. What that comes to is in
//! `docs/measure.md` (`scripts/bench --only issuer`).

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
/// Between two looks at whether they are to be hurried.
const STEP: Duration = Duration::from_millis(1);
/// So many are on their way out at a time; one that is gone has the next one woken.
const AHEAD: u64 = 2;
/// The last of a crowd have so long to be gone before its thread ends.
const LAST: Duration = Duration::from_secs(1);

/// Those who are to be woken.
#[derive(Default)]
pub(super) struct Waking {
    crowd: Arc<Mutex<Crowd>>,
    more: Notify,
    pub partings: Arc<Partings>,
}

#[derive(Default)]
struct Crowd {
    /// Never more than there are connections.
    waiting: VecDeque<Arc<Entry>>,
    /// So many have waited since nobody did.
    all: u64,
}

/// Nothing panics while it is held.
fn lock(crowd: &Mutex<Crowd>) -> MutexGuard<'_, Crowd> {
    crowd.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Waking {
    /// Wakes the first of them, and leaves the others to [`Self::run`].
    pub fn wake(&self, mut told: Vec<Arc<Entry>>) {
        let rest = told.split_off(told.len().min(AT_ONCE));
        told.iter().for_each(|entry| entry.wake());
        if !rest.is_empty() {
            let mut crowd = lock(&self.crowd);
            if crowd.waiting.is_empty() {
                crowd.all = 0;
            }
            crowd.all += rest.len() as u64;
            crowd.waiting.extend(rest);
            drop(crowd);
            self.more.notify_one();
        }
    }

    /// Wakes those who wait, with a thread for their last (see [`Partings`]).
    pub async fn run(&self) -> Infallible {
        loop {
            self.more.notified().await;
            let crowd = Arc::clone(&self.crowd);
            let attended = self.partings.attend(move || {
                let next = lock(&crowd).waiting.pop_front();
                if let Some(entry) = next {
                    entry.join_a_crowd();
                    entry.wake();
                }
            });
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

    /// Wakes the first of those who wait now, and sees to it that all are woken in time, whether or not
    /// those before them end. Returns the count of ends that all of them come to.
    async fn pace(&self, attended: bool) -> u64 {
        let (began, first) = (clock::monotonic(), self.partings.count());
        let mut room = AHEAD;
        loop {
            let elapsed = clock::monotonic().saturating_duration_since(began);
            for entry in self.lot(elapsed, room) {
                if attended {
                    entry.join_a_crowd();
                }
                entry.wake();
            }
            room = 0;
            if let Some(all) = self.all_are_woken() {
                return first + all;
            }
            tokio::time::sleep(STEP).await;
        }
    }

    /// How many were woken, when nobody waits any more.
    fn all_are_woken(&self) -> Option<u64> {
        let crowd = lock(&self.crowd);
        crowd.waiting.is_empty().then_some(crowd.all)
    }

    /// The next to be woken: as many as there is room for, or as many as are missing from a steady
    /// pace.
    fn lot(&self, elapsed: Duration, room: u64) -> Vec<Arc<Entry>> {
        let mut crowd = lock(&self.crowd);
        let left = crowd.waiting.len() as u64;
        let part = elapsed.saturating_sub(LEAD).min(SPREAD).as_micros();
        let due = u128::from(crowd.all) * part / SPREAD.as_micros();
        let woken = crowd.all.saturating_sub(left);
        let due = u64::try_from(due).unwrap_or(u64::MAX).saturating_sub(woken);
        let count = usize::try_from(due.max(room).min(left)).unwrap_or(usize::MAX);
        crowd.waiting.drain(..count).collect()
    }
}
