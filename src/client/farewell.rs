//! What is still to be said when a connection is dropped: close frames, the end of a session.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinSet;

/// How long the last words of one connection may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The last words of the connections of one client.
#[derive(Clone, Debug, Default)]
pub struct Farewells(Arc<Mutex<JoinSet<()>>>);

impl Farewells {
    /// Says it beside everything else, for a moment at most. Without a runtime nothing is said.
    pub fn say(&self, words: impl Future<Output = ()> + Send + 'static) {
        self.run(async {
            // Whoever does not listen for so long misses it.
            let _ = tokio::time::timeout(LAST_WORDS, words).await;
        });
    }

    /// Runs what knows by itself when it is over.
    pub fn run(&self, task: impl Future<Output = ()> + Send + 'static) {
        if Handle::try_current().is_ok() {
            let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            while tasks.try_join_next().is_some() {}
            tasks.spawn(task);
        }
    }

    /// Waits until all of it is said; twice the moment of one at most.
    pub async fn finish(&self) {
        let mut tasks = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let all = async { while tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(LAST_WORDS * 2, all).await;
    }
}
