//! Keeps a view in step with its store, and tells who must react.
//!
//! It knows nothing of files or databases: waiting for a change is the store's business.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock::{self, UnixTime};

use super::record::{Change, Outline};
use super::store::{PRUNED_AT_ONCE, Reply, Store, StoreError};
use super::view::View;

/// A heartbeat at least so often; a server counts as live for two and a half of them.
const BEAT: Duration = Duration::from_secs(2);
/// A store that has not answered after this long is unreachable.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between attempts at a store that fails, doubling.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Enrolments to a stretch when loading; changes to a batch when following.
const STRETCH: u32 = 4096;
const BATCH: u32 = 512;
/// Certificates are forgotten when they are expired for this long (the clock may be set back), and
/// changes when they are that old.
const FORGET_AFTER: i64 = 24 * 3600;
const SWEEP_EVERY: Duration = Duration::from_secs(3600);

/// Changes that the view now holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Oldest first.
    pub changes: Vec<Change>,
    /// The view holds everything up to and with this `seq`.
    pub upto: u64,
    /// The store was replaced by an older copy of itself, or changes were pruned that were not seen,
    /// and the view was made anew: anything may have changed, and `changes` is empty.
    pub reloaded: bool,
}

/// The one that feeds a view.
pub struct Feed {
    store: Arc<dyn Store>,
    view: Arc<View>,
    server: String,
    applied: u64,
    last_beat: Instant,
    last_sweep: Instant,
}

impl Feed {
    /// Loads the view. `server` is this process's name among the servers of the registry.
    ///
    /// The first heartbeat goes out before the first row is read: from then on a revocation waits
    /// for this server, so none can slip between its loading and its serving.
    ///
    /// # Errors
    /// The store cannot be read, or cannot take a heartbeat.
    pub async fn load(
        store: Arc<dyn Store>,
        server: String,
    ) -> Result<(Self, Arc<View>), StoreError> {
        let view = Arc::new(View::default());
        let now = clock::monotonic();
        let mut feed = Self {
            store,
            view: Arc::clone(&view),
            server,
            applied: 0,
            last_beat: now,
            last_sweep: now,
        };
        feed.beat().await?;
        feed.applied = feed.read_all(|_| ()).await?;
        feed.beat().await?;
        view.contact_made();
        Ok((feed, view))
    }

    /// Runs until the future is dropped: change, apply, `on_applied`, heartbeat. `on_applied` is
    /// called after each batch that the view has taken in, before the server's heartbeat confirms
    /// it: whoever closes connections does it there. It must not block.
    ///
    /// While the store fails the view stays as it is, and [`View::staleness`] grows.
    pub async fn run(mut self, on_applied: impl Fn(&Applied) + Send + Sync + 'static) {
        match self.follow(&on_applied).await {}
    }

    /// As [`Self::run`], until `stop` is ready; then takes this server off the list of live ones,
    /// so that no revocation waits for it.
    pub async fn run_until(
        mut self,
        stop: impl Future<Output = ()>,
        on_applied: impl Fn(&Applied) + Send + Sync + 'static,
    ) {
        tokio::select! {
            never = self.follow(&on_applied) => match never {},
            () = stop => {}
        }
        if let Err(error) = within(&*self.store, self.store.farewell(&self.server)).await {
            tracing::warn!(%error, "the registry was not told that this server stops");
        }
    }

    async fn follow(&mut self, on_applied: &(impl Fn(&Applied) + Sync)) -> Infallible {
        let mut pause = RETRY.0;
        let mut failing = false;
        loop {
            match self.step(on_applied).await {
                Ok(()) => {
                    if std::mem::take(&mut failing) {
                        tracing::info!(registry = self.store.place(), "the registry is back");
                    }
                    pause = RETRY.0;
                }
                Err(error) => {
                    self.view.contact_failed(error.to_string());
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "the registry fails: serving from memory");
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY.1);
                }
            }
        }
    }

    /// Waits for a change or the time of a heartbeat, and sees to it.
    async fn step(&mut self, on_applied: &(impl Fn(&Applied) + Sync)) -> Result<(), StoreError> {
        let patience = BEAT.saturating_sub(age(self.last_beat));
        let newest = within(&*self.store, self.store.changed(self.applied, patience)).await?;
        let before = self.applied;
        if newest < before {
            self.start_over("an older copy took its place", on_applied)
                .await?;
        }
        while self.applied < newest {
            self.take_in(on_applied).await?;
        }
        self.view.contact_made();
        if self.applied != before || age(self.last_beat) >= BEAT {
            self.beat().await?;
        }
        self.sweep().await
    }

    /// The next batch of changes.
    async fn take_in(&mut self, on_applied: &impl Fn(&Applied)) -> Result<(), StoreError> {
        let store = &*self.store;
        let changes = within(store, store.changes(self.applied, BATCH)).await?;
        if changes
            .first()
            .is_some_and(|first| first.seq != self.applied + 1)
        {
            let why = "changes were pruned that this server had not seen";
            return self.start_over(why, on_applied).await;
        }
        let Some(upto) = changes.last().map(|change| change.seq) else {
            return Err(StoreError::Corrupt {
                place: store.place().to_owned(),
                what: format!("the change feed ends before change {}", self.applied + 1),
            });
        };
        let outlines = within(store, store.touched(self.applied, upto)).await?;
        self.view.apply(&outlines);
        self.applied = upto;
        on_applied(&Applied {
            changes,
            upto,
            reloaded: false,
        });
        Ok(())
    }

    /// The feed does not lead from what the view holds to what the store holds. Pins that the store
    /// does not know are gone; revocations stay.
    async fn start_over(
        &mut self,
        why: &str,
        on_applied: &impl Fn(&Applied),
    ) -> Result<(), StoreError> {
        tracing::warn!(
            registry = self.store.place(),
            applied = self.applied,
            why,
            "the registry is loaded anew, keeping revocations"
        );
        let mut present = HashSet::new();
        let upto = self
            .read_all(|page| present.extend(page.iter().map(|o| o.fingerprint)))
            .await?;
        self.view.forget_except(&present);
        self.applied = upto;
        on_applied(&Applied {
            changes: Vec::new(),
            upto,
            reloaded: true,
        });
        Ok(())
    }

    /// Puts every enrolment into the view; the answer is the `seq` that it holds at least.
    async fn read_all(&mut self, mut seen: impl FnMut(&[Outline])) -> Result<u64, StoreError> {
        let ending = forgotten_before();
        // Asked first: what changes while the rows are read is read again as a change.
        let upto = within(&*self.store, self.store.newest()).await?;
        let mut from = Some(0);
        while let Some(start) = from {
            let page = within(&*self.store, self.store.page(start, STRETCH, ending)).await?;
            self.view.apply(&page.outlines);
            seen(&page.outlines);
            from = page.next;
            if age(self.last_beat) >= BEAT {
                self.beat().await?;
            }
        }
        Ok(upto)
    }

    async fn beat(&mut self) -> Result<(), StoreError> {
        within(
            &*self.store,
            self.store.heartbeat(&self.server, self.applied),
        )
        .await?;
        self.last_beat = clock::monotonic();
        Ok(())
    }

    /// Forgets what expired, and shortens the feed a little. Every server of a fleet does so.
    async fn sweep(&mut self) -> Result<(), StoreError> {
        if age(self.last_sweep) < SWEEP_EVERY {
            return Ok(());
        }
        let store = &*self.store;
        let pruned = within(store, store.prune(forgotten_before())).await?;
        // A long feed is shortened in many steps, each between two looks at what is new.
        if pruned < u64::from(PRUNED_AT_ONCE) {
            self.last_sweep = clock::monotonic();
            let gone = self.view.sweep(forgotten_before());
            tracing::debug!(gone, "forgot certificates that expired");
        }
        Ok(())
    }
}

fn age(of: Instant) -> Duration {
    clock::monotonic().saturating_duration_since(of)
}

fn forgotten_before() -> UnixTime {
    UnixTime(clock::unix_now().0.saturating_sub(FORGET_AFTER))
}

/// A store that hangs is a store that fails.
async fn within<T>(store: &dyn Store, reply: Reply<'_, T>) -> Result<T, StoreError> {
    tokio::time::timeout(PATIENCE, reply)
        .await
        .unwrap_or_else(|_| {
            Err(StoreError::Unreachable {
                place: store.place().to_owned(),
                cause: format!("no answer within {} seconds", PATIENCE.as_secs()),
            })
        })
}
