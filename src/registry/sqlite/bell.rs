//! How one process hears that another has committed.
//!
//! Watching the database's own files tells too early and too often: with SQLite's write-ahead log
//! the last write to a file comes *before* the sync and before the commit can be seen, so a reader
//! that wakes by it finds nothing and is not woken again; and every heartbeat would wake everybody.
//! So the writer touches a file of its own after each commit that appended to the change feed. It
//! carries no truth: who misses it (or finds it gone) learns by the poll.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::watch;

/// The net under the notification, and what remains without it.
const POLL: Duration = Duration::from_secs(1);
const POLL_DEAF: Duration = Duration::from_millis(100);

pub(super) struct Bell {
    path: PathBuf,
    rung: Arc<watch::Sender<()>>,
    watcher: Mutex<Option<RecommendedWatcher>>,
    deaf: Arc<AtomicBool>,
}

impl Bell {
    /// The bell of the database at `path`. Nothing is watched before somebody listens.
    pub fn of(path: &Path) -> Self {
        let mut name = path.as_os_str().to_owned();
        name.push("-bell");
        Self {
            path: name.into(),
            rung: Arc::new(watch::Sender::new(())),
            watcher: Mutex::new(None),
            deaf: Arc::new(AtomicBool::new(true)),
        }
    }

    /// After the commit of change `seq`. That it cannot be written delays others by a poll and is
    /// no failure of the commit.
    pub fn ring(&self, seq: u64) {
        self.rung.send_replace(());
        if let Err(error) = self.touch(&format!("{seq:020}\n")) {
            tracing::debug!(path = %self.path.display(), %error, "the bell cannot be rung");
        }
    }

    /// Rings that come from now on, this process's own and those of others.
    pub fn listen(&self) -> watch::Receiver<()> {
        self.rung.subscribe()
    }

    /// Sees to it that the file is watched, and says after what time to look without a ring.
    pub fn watch(&self) -> Duration {
        if !self.deaf.load(Ordering::Acquire) {
            return POLL;
        }
        let mut watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner);
        *watcher = None;
        self.deaf.store(false, Ordering::Release);
        match self.start() {
            Ok(started) => {
                *watcher = Some(started);
                POLL
            }
            Err(error) => {
                self.deaf.store(true, Ordering::Release);
                tracing::debug!(path = %self.path.display(), %error, "the bell cannot be watched");
                POLL_DEAF
            }
        }
    }

    fn start(&self) -> notify::Result<RecommendedWatcher> {
        self.touch("")?;
        let (rung, deaf, path) = (
            Arc::clone(&self.rung),
            Arc::clone(&self.deaf),
            self.path.clone(),
        );
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                match event.map(|event| event.kind) {
                    Ok(EventKind::Access(_)) => return,
                    // Modified or created. A removed file shows first as a changed link count.
                    Ok(_) if path.exists() => {}
                    Ok(_) | Err(_) => deaf.store(true, Ordering::Release),
                }
                rung.send_replace(());
            })?;
        watcher.watch(&self.path, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    }

    fn touch(&self, text: &str) -> std::io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(&self.path)?.write_all(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn hears(rings: &mut watch::Receiver<()>) -> bool {
        tokio::time::timeout(Duration::from_secs(5), rings.changed())
            .await
            .is_ok()
    }

    #[tokio::test]
    async fn a_ring_is_heard_by_another_even_after_the_file_was_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("registry.db");
        let (ringing, listening) = (Bell::of(&path), Bell::of(&path));
        let mut rings = listening.listen();
        assert_eq!(listening.watch(), POLL, "the file can be watched");
        ringing.ring(1);
        assert!(hears(&mut rings).await);

        std::fs::remove_file(&ringing.path).expect("it is there");
        while !listening.deaf.load(Ordering::Acquire) {
            assert!(hears(&mut rings).await, "the removal is noticed");
        }
        assert_eq!(
            listening.watch(),
            POLL,
            "the file is made and watched again"
        );
        rings.mark_unchanged();
        ringing.ring(2);
        assert!(hears(&mut rings).await);
    }

    #[tokio::test]
    async fn where_nothing_can_be_watched_it_is_polled_often() {
        let bell = Bell::of(Path::new("/nonexistent/registry.db"));
        assert_eq!(bell.watch(), POLL_DEAF);
        let mut rings = bell.listen();
        bell.ring(1);
        assert!(
            hears(&mut rings).await,
            "at least this process hears itself"
        );
    }
}
