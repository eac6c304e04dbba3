//! How one process hears that another has committed: LISTEN, on a connection of its own. What it
//! hears carries no truth: who misses it learns by the poll.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::database::Database;

/// The net under the notification while somebody listens, and what remains without.
pub(super) const LISTENED: Duration = Duration::from_secs(1);
const POLL_DEAF: Duration = Duration::from_millis(100);
/// Between two attempts to listen.
const RETRY: Duration = Duration::from_millis(500);

pub(super) struct Ear {
    database: Database,
    channel: String,
    rung: Arc<watch::Sender<()>>,
    deaf: Arc<AtomicBool>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Ear {
    /// Nothing is listened to before somebody waits.
    pub fn new(database: &Database, channel: &str) -> Self {
        Self {
            database: database.clone(),
            channel: channel.to_owned(),
            rung: Arc::new(watch::Sender::new(())),
            deaf: Arc::new(AtomicBool::new(true)),
            task: Mutex::new(None),
        }
    }

    /// Tells those of this process, after a commit.
    pub fn ring(&self) {
        self.rung.send_replace(());
    }

    /// Rings that come from now on, this process's own and those of others.
    pub fn listen(&self) -> watch::Receiver<()> {
        self.rung.subscribe()
    }

    /// Sees to it that somebody listens, and says after what time to look without a ring.
    pub fn watch(&self) -> Duration {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if task.is_none() {
            *task = Some(tokio::spawn(hear(
                self.database.clone(),
                self.channel.clone(),
                Arc::clone(&self.rung),
                Arc::clone(&self.deaf),
            )));
        }
        if self.deaf.load(Ordering::Acquire) {
            POLL_DEAF
        } else {
            LISTENED
        }
    }

    /// A poll found what no notification told: a connection may be dead without anybody having said
    /// so. It is made anew.
    pub fn missed(&self) {
        tracing::debug!(registry = %self.database.text, "a notification was missed");
        self.hang_up();
    }

    fn hang_up(&self) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = task.take() {
            task.abort();
        }
        self.deaf.store(true, Ordering::Release);
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.hang_up();
    }
}

/// Listens for ever, and again after each failure.
async fn hear(
    database: Database,
    channel: String,
    rung: Arc<watch::Sender<()>>,
    deaf: Arc<AtomicBool>,
) {
    loop {
        if let Err(error) = hear_once(&database, &channel, &rung, &deaf).await {
            tracing::debug!(registry = %database.text, %error, "no notifications");
        }
        deaf.store(true, Ordering::Release);
        rung.send_replace(());
        tokio::time::sleep(RETRY).await;
    }
}

async fn hear_once(
    database: &Database,
    channel: &str,
    rung: &watch::Sender<()>,
    deaf: &AtomicBool,
) -> Result<(), sqlx::Error> {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(Duration::from_secs(5))
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_lazy_with(database.options.clone());
    let mut listener = PgListener::connect_with(&pool).await?;
    // Without this a listener connects again by itself, and tells later than it could.
    listener.eager_reconnect(false);
    listener.listen(channel).await?;
    deaf.store(false, Ordering::Release);
    // What was committed before is not told.
    rung.send_replace(());
    while listener.try_recv().await?.is_some() {
        rung.send_replace(());
    }
    Ok(())
}
