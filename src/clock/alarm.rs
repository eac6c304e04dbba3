//! A timer that is asked with every turn that a task gets.
//!
//! tokio's `Sleep` takes the task's waker and lets go of the one before each time it is asked, and a
//! connection asks twice for every call. So it is asked only when it has rung, was set anew, or another
//! task asks.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::task::coop::unconstrained;
use tokio::time::Sleep;

/// Longer than anybody waits.
const NEVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// tokio's own time, which its timers go by, and which a test can turn.
fn now() -> tokio::time::Instant {
    #[expect(
        clippy::disallowed_methods,
        reason = "`clock` is the one caller of now"
    )]
    tokio::time::Instant::now()
}

/// A timer for one moment after the other.
#[derive(Debug)]
pub struct Alarm {
    sleep: Pin<Box<Sleep>>,
    /// Whom it will wake, once it was asked.
    waker: Option<Waker>,
}

impl Alarm {
    /// Rings at this moment.
    #[must_use]
    pub fn at(moment: Instant) -> Self {
        Self {
            sleep: Box::pin(tokio::time::sleep_until(moment.into())),
            waker: None,
        }
    }

    /// Rings after this time.
    #[must_use]
    pub fn after(wait: Duration) -> Self {
        Self {
            sleep: Box::pin(tokio::time::sleep(wait)),
            waker: None,
        }
    }

    /// The moment.
    #[must_use]
    pub fn moment(&self) -> Instant {
        self.sleep.deadline().into_std()
    }

    /// Rings at another moment, in place of this one or after it.
    pub fn set(&mut self, moment: Instant) {
        self.sleep.as_mut().reset(moment.into());
        self.waker = None;
    }

    /// The same, this long from now; for tokio, 30 years are as good as never.
    pub fn set_after(&mut self, wait: Duration) {
        let now = now();
        let moment = now.checked_add(wait).unwrap_or(now + NEVER);
        self.set(moment.into_std());
    }

    /// Ready when the moment has come, until another is set.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let same = |waker: &Waker| waker.will_wake(cx.waker());
        // It has rung before it wakes anybody, so who is woken by it sees that here.
        if !self.sleep.is_elapsed() && self.waker.as_ref().is_some_and(same) {
            return Poll::Pending;
        }
        // Pending must mean that it will wake, and not that the task has had its share of this turn.
        let asked = pin!(unconstrained(self.sleep.as_mut())).poll(cx);
        self.waker = asked.is_pending().then(|| cx.waker().clone());
        asked
    }

    /// The same to wait for.
    pub async fn rung(&mut self) {
        std::future::poll_fn(|cx| self.poll(cx)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use tokio::task::coop::{has_budget_remaining, poll_proceed};

    use super::*;
    use crate::clock::monotonic;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    const STEP: Duration = Duration::from_millis(30);

    #[tokio::test(start_paused = true)]
    async fn it_wakes_who_asked_last_and_rings_until_it_is_set_again() {
        let wakers = [Arc::<Count>::default(), Arc::<Count>::default()];
        let ask = |alarm: &mut Alarm, who: usize| {
            let waker = Waker::from(Arc::clone(&wakers[who]));
            alarm.poll(&mut Context::from_waker(&waker)).is_ready()
        };
        let woken = || [0, 1].map(|who| wakers[who].0.load(Ordering::Relaxed));
        let now = || now().into_std();
        let mut alarm = Alarm::at(now() + STEP);
        assert_eq!(alarm.moment(), now() + STEP);
        for who in [0, 0, 1, 1] {
            assert!(!ask(&mut alarm, who));
        }
        tokio::time::sleep(STEP * 2).await;
        assert_eq!(woken(), [0, 1]);
        assert!(ask(&mut alarm, 1));
        assert!(ask(&mut alarm, 0));
        // Set while it rings, and while it waits; further off and nearer.
        alarm.set(now() + STEP * 9);
        assert!(!ask(&mut alarm, 0));
        alarm.set(now() + STEP);
        assert!(!ask(&mut alarm, 0));
        assert!(!ask(&mut alarm, 0));
        tokio::time::sleep(STEP * 2).await;
        assert_eq!(woken(), [1, 1]);
        assert!(ask(&mut alarm, 0));
        alarm.set(now() + STEP);
        assert!(!ask(&mut alarm, 0));
        alarm.set(now() + STEP * 4);
        tokio::time::sleep(STEP * 2).await;
        assert!(!ask(&mut alarm, 0));
        tokio::time::sleep(STEP * 4).await;
        assert!(ask(&mut alarm, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn it_waits_as_long_as_it_is_told() {
        let mut alarm = Alarm::after(STEP);
        let begun = now();
        alarm.rung().await;
        assert!(begun.elapsed() >= STEP);
        alarm.set_after(STEP);
        alarm.rung().await;
        assert!(begun.elapsed() >= STEP * 2);
        alarm.set_after(Duration::MAX);
        let waited = tokio::time::timeout(STEP * 1000, alarm.rung()).await;
        assert!(waited.is_err());
    }

    /// A task that has had its share of a turn is told "not yet" by whatever it asks, and asks again.
    #[tokio::test]
    async fn it_is_armed_by_a_task_that_has_had_its_share() {
        let begun = monotonic();
        tokio::spawn(async move {
            let mut alarm = Alarm::at(begun + STEP);
            std::future::poll_fn(|cx| {
                while has_budget_remaining() {
                    if let Poll::Ready(share) = poll_proceed(cx) {
                        share.made_progress();
                    }
                }
                alarm.poll(cx)
            })
            .await;
        })
        .await
        .unwrap();
        assert!(monotonic() - begun >= STEP);
    }
}
