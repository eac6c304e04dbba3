//! What runs beside the frames of one HTTP/2 connection: its requests, and what its upgrades send.
//! All of it in the task of the connection, as on every other transport: answers that are ready
//! together leave in one write, no call costs a task, and nothing outlives the connection that it
//! came with. How many there can be is the connection's bound on streams.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_util::stream::{FuturesUnordered, StreamExt};
use hyper::rt::Executor;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Takes what hyper wants to have run.
#[derive(Clone, Default)]
pub struct Inbox(Arc<Mutex<Vec<Work>>>);

/// What runs.
#[derive(Default)]
pub struct Beside {
    inbox: Inbox,
    works: FuturesUnordered<Work>,
}

impl Inbox {
    fn works(&self) -> MutexGuard<'_, Vec<Work>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Inbox {
    fn execute(&self, work: F) {
        self.works().push(Box::pin(work));
    }
}

impl Beside {
    /// Where hyper puts what it wants to have run.
    pub fn inbox(&self) -> Inbox {
        self.inbox.clone()
    }

    /// Goes on with everything that can; whether something was finished. What is not is woken
    /// through `cx`.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        let mut finished = false;
        loop {
            // Taken out first: what runs may put in more.
            self.works.extend(self.inbox.works().drain(..));
            match self.works.poll_next_unpin(cx) {
                Poll::Ready(Some(())) => finished = true,
                Poll::Ready(None) | Poll::Pending => {
                    if self.inbox.works().is_empty() {
                        return finished;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn everything_runs_to_its_end_and_goes_with_its_owner() {
        let mut beside = Beside::default();
        let (inbox, done) = (beside.inbox(), Arc::new(AtomicUsize::new(0)));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(!beside.poll(&mut cx));
        let (ring, rings) = tokio::sync::oneshot::channel::<()>();
        let (more, count) = (inbox.clone(), Arc::clone(&done));
        inbox.execute(async move {
            let count = Arc::clone(&count);
            let inner = Arc::clone(&count);
            more.execute(async move {
                inner.fetch_add(1, Ordering::Relaxed);
            });
            let _ = rings.await;
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert!(beside.poll(&mut cx));
        assert_eq!(done.load(Ordering::Relaxed), 1);
        ring.send(()).unwrap();
        assert!(beside.poll(&mut cx));
        assert_eq!(done.load(Ordering::Relaxed), 2);
        let held = Arc::clone(&done);
        inbox.execute(async move {
            let _held = held;
            std::future::pending().await
        });
        assert!(!beside.poll(&mut cx));
        drop((beside, inbox));
        assert_eq!(Arc::strong_count(&done), 1);
    }
}
