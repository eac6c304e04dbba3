//! Being told that a connection must end, for a task that asks with every turn that it gets.

use std::pin::Pin;
use std::task::{Context, Poll};

use super::bell::Vigil;
use super::live::{Close, Live};

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
