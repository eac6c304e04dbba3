//! Wakes connections that were told to close: a few at once, a crowd by and by, so that the closing
//! of thousands does not hold up those who stay. It decides nothing: that a connection is to close is
//! written in its entry before it comes here.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

use super::live::Entry;

/// So many are woken at once.
const AT_ONCE: usize = 64;
/// Between two lots of the rest.
const STEP: Duration = Duration::from_millis(1);
/// The rest is divided into so many lots, so that it is woken within about a third of a second,
/// however many there are.
const LOTS: usize = 300;

/// Those who are to be woken.
#[derive(Default)]
pub(super) struct Waking {
    /// Never more than there are connections.
    waiting: Mutex<VecDeque<Arc<Entry>>>,
    more: Notify,
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

    /// Wakes those who wait, lot by lot.
    pub async fn run(&self) -> Infallible {
        loop {
            self.more.notified().await;
            let mut clock = tokio::time::interval(STEP);
            // A late lot is made up for: the end does not come later.
            clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let mut lot = 0;
            loop {
                clock.tick().await;
                let woken: Vec<_> = {
                    let mut waiting = self.waiting();
                    lot = lot.max(waiting.len().div_ceil(LOTS));
                    let count = lot.min(waiting.len());
                    waiting.drain(..count).collect()
                };
                if woken.is_empty() {
                    break;
                }
                woken.iter().for_each(|entry| entry.wake());
            }
        }
    }

    /// Nothing panics while it is held.
    fn waiting(&self) -> MutexGuard<'_, VecDeque<Arc<Entry>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
