//! Being told that a connection must end, for a task that asks with every turn that it gets.
//!
//! tokio's `Notify` takes a lock each time a wait is begun, asked or given up, and a connection asks twice
//! for every call. So the wait is kept, and asked only when something has rung or another task asks.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::live::{Close, Live};

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

/// The wait of one task for the end of its connection.
pub struct Told<'a> {
    live: &'a Live,
    draining: bool,
    wait: Pin<Box<dyn Future<Output = Close> + Send + 'a>>,
    vigil: Vigil,
}

impl<'a> Told<'a> {
    /// Waits for any reason.
    #[must_use]
    pub fn new(live: &'a Live) -> Self {
        Self {
            live,
            draining: false,
            wait: Box::pin(live.told_to_close()),
            vigil: Vigil::default(),
        }
    }

    /// From now on only for a sterner reason than draining.
    pub fn drain(&mut self) {
        self.draining = true;
        self.begin();
    }

    fn begin(&mut self) {
        self.vigil = Vigil::default();
        self.wait = if self.draining {
            Box::pin(self.live.told_to_stop())
        } else {
            Box::pin(self.live.told_to_close())
        };
    }

    /// Ready when the connection must end; ready again at once when asked again.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Close> {
        let rings = self.live.rings();
        let asked = self.vigil.ask(cx, rings, |cx| self.wait.as_mut().poll(cx));
        if asked.is_ready() {
            self.begin();
        }
        asked
    }

    /// The same to wait for.
    pub async fn hear(&mut self) -> Close {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }
}
