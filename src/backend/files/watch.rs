//! Who watches which file, and the events of the file system made into happenings.
//!
//! The directory of a watched file is watched, not the file: most programs replace a file by a
//! rename, and a watch on the old one would see nothing any more. Network file systems often
//! report nothing; then nothing is told. Events that come together are told once.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::super::{Events, Failure, Happening};
use super::root::{Kind, Root};

/// Changes within this span are told together.
const SETTLE: Duration = Duration::from_millis(20);

/// The watches of one provider.
pub struct Watches {
    max: usize,
    state: Mutex<State>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct State {
    watcher: Option<RecommendedWatcher>,
    pump: Option<AbortHandle>,
    /// URI to how many subscriptions it has.
    counts: HashMap<String, usize>,
    /// Folder to how many watched files it has.
    folders: HashMap<PathBuf, usize>,
}

/// What the watcher's thread and the pump need.
struct Shared {
    root: Arc<Root>,
    events: OnceLock<Events>,
    /// Path to URI of every watched file.
    files: Mutex<HashMap<PathBuf, String>>,
    pending: Mutex<Pending>,
    wake: Notify,
}

#[derive(Default)]
struct Pending {
    updated: BTreeSet<String>,
    list: bool,
}

impl Watches {
    /// No watch yet, and no thread.
    pub fn new(root: Arc<Root>, max: usize) -> Self {
        let shared = Shared {
            root,
            events: OnceLock::new(),
            files: Mutex::default(),
            pending: Mutex::default(),
            wake: Notify::new(),
        };
        Self {
            max,
            state: Mutex::default(),
            shared: Arc::new(shared),
        }
    }

    /// Where happenings go; the first one stays.
    pub fn attach(&self, events: Events) {
        let _ = self.shared.events.set(events);
    }

    /// One subscription more.
    pub fn watch(&self, uri: &str) -> Result<(), Failure> {
        let path = self.shared.root.resolve(uri).ok_or(Failure::NotFound)?;
        let facts = self
            .shared
            .root
            .facts(&path)
            .map_err(|_| Failure::NotFound)?;
        if facts.kind != Kind::File {
            return Err(Failure::NotFound);
        }
        let mut state = lock(&self.state);
        if let Some(count) = state.counts.get_mut(uri) {
            *count += 1;
            return Ok(());
        }
        if state.counts.len() >= self.max {
            let why = format!(
                "`{uri}` cannot be watched: {} resources are already",
                self.max
            );
            return Err(Failure::InvalidParams(why));
        }
        let absolute = self.shared.root.absolute(&path);
        let folder = absolute.parent().unwrap_or(&absolute).to_owned();
        lock(&self.shared.files).insert(absolute.clone(), uri.to_owned());
        // Always asked for again: the folder may have been replaced since another file of it was.
        if let Err(error) = self.start(&mut state, &folder) {
            lock(&self.shared.files).remove(&absolute);
            return Err(Failure::Internal(format!("watching `{uri}`: {error}")));
        }
        *state.folders.entry(folder).or_default() += 1;
        state.counts.insert(uri.to_owned(), 1);
        Ok(())
    }

    /// One subscription less.
    pub fn unwatch(&self, uri: &str) {
        let mut state = lock(&self.state);
        let Some(count) = state.counts.get_mut(uri) else {
            return;
        };
        *count -= 1;
        if *count > 0 {
            return;
        }
        state.counts.remove(uri);
        let Some(path) = self.shared.root.resolve(uri) else {
            return;
        };
        let absolute = self.shared.root.absolute(&path);
        lock(&self.shared.files).remove(&absolute);
        let folder = absolute.parent().unwrap_or(&absolute).to_owned();
        let left = state.folders.get_mut(&folder).map_or(0, |count| {
            *count -= 1;
            *count
        });
        if left == 0 {
            state.folders.remove(&folder);
            if let Some(watcher) = &mut state.watcher {
                // A folder that is gone took its watch with it.
                let _ = watcher.unwatch(&folder);
            }
        }
    }

    fn start(&self, state: &mut State, folder: &Path) -> Result<(), String> {
        if state.watcher.is_none() {
            let runtime = tokio::runtime::Handle::try_current().map_err(|e| e.to_string())?;
            let shared = Arc::clone(&self.shared);
            let watcher = notify::recommended_watcher(move |event| shared.take(event))
                .map_err(|e| e.to_string())?;
            state.watcher = Some(watcher);
            state.pump = Some(runtime.spawn(pump(Arc::clone(&self.shared))).abort_handle());
        }
        let Some(watcher) = &mut state.watcher else {
            return Ok(());
        };
        watcher
            .watch(folder, RecursiveMode::NonRecursive)
            .map_err(|e| e.to_string())
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        if let Some(pump) = lock(&self.state).pump.take() {
            pump.abort();
        }
    }
}

impl Shared {
    /// On the watcher's thread.
    fn take(&self, event: notify::Result<Event>) {
        let Ok(event) = event else {
            return self.all_changed();
        };
        if event.need_rescan() {
            return self.all_changed();
        }
        let (contents, list) = meaning(event.kind);
        if !contents && !list {
            return;
        }
        let mut updated = Vec::new();
        let mut list_changed = false;
        {
            let files = lock(&self.files);
            for path in &event.paths {
                if let Some(uri) = files.get(path) {
                    updated.push(uri.clone());
                } else if list && matches!(event.kind, EventKind::Remove(_)) {
                    // The folder itself: all that was in it.
                    let inside = files.iter().filter(|(file, _)| file.parent() == Some(path));
                    updated.extend(inside.map(|(_, uri)| uri.clone()));
                }
                let name = path.file_name().and_then(|name| name.to_str());
                list_changed |= list && name.is_some_and(|name| self.root.serves(name));
            }
        }
        self.remember(updated, list_changed);
    }

    fn all_changed(&self) {
        let all = lock(&self.files).values().cloned().collect();
        self.remember(all, true);
    }

    fn remember(&self, updated: Vec<String>, list: bool) {
        if updated.is_empty() && !list {
            return;
        }
        let mut pending = lock(&self.pending);
        pending.updated.extend(updated);
        pending.list |= list;
        drop(pending);
        self.wake.notify_one();
    }
}

/// Whether an event may change the content of its file, and whether it may change the list.
fn meaning(kind: EventKind) -> (bool, bool) {
    match kind {
        EventKind::Create(_) | EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)) => {
            (true, true)
        }
        EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Any)
        | EventKind::Access(AccessKind::Close(AccessMode::Write)) => (true, false),
        _ => (false, false),
    }
}

/// Tells what has gathered, a little after it began.
async fn pump(shared: Arc<Shared>) {
    loop {
        shared.wake.notified().await;
        tokio::time::sleep(SETTLE).await;
        let pending = std::mem::take(&mut *lock(&shared.pending));
        let Some(events) = shared.events.get() else {
            continue;
        };
        for uri in pending.updated {
            events.happened(Happening::ResourceUpdated(uri));
        }
        if pending.list {
            events.happened(Happening::ResourcesChanged);
        }
    }
}

/// None of these locks is held across anything that could panic half-way through a change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::sync::broadcast::{self, Receiver};
    use tokio::time::timeout;

    use super::*;

    struct Fixture {
        temp: tempfile::TempDir,
        root: Arc<Root>,
        watches: Watches,
        heard: Receiver<Happening>,
    }

    fn fixture(max: usize) -> Fixture {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir(temp.path().join("sub")).unwrap();
        std::fs::write(temp.path().join("sub/a.txt"), "1").unwrap();
        std::fs::write(temp.path().join("b.txt"), "1").unwrap();
        let root = Arc::new(Root::open(temp.path(), false).unwrap());
        let watches = Watches::new(Arc::clone(&root), max);
        let (sender, heard) = broadcast::channel(64);
        watches.attach(Events(sender));
        Fixture {
            temp,
            root,
            watches,
            heard,
        }
    }

    impl Fixture {
        fn uri(&self, path: &str) -> String {
            format!("{}{path}", self.root.prefix())
        }

        async fn next_update(&mut self) -> String {
            loop {
                let next = timeout(Duration::from_secs(20), self.heard.recv()).await;
                if let Happening::ResourceUpdated(uri) = next.expect("an event").unwrap() {
                    return uri;
                }
            }
        }

        /// One write can be told more than once: waits until this URI is told.
        async fn until(&mut self, uri: &str) {
            while self.next_update().await != uri {}
        }
    }

    #[tokio::test]
    async fn each_way_to_change_a_file_is_told_and_only_of_watched_files() {
        let mut f = fixture(8);
        let (a, b) = (f.uri("sub/a.txt"), f.uri("b.txt"));
        f.watches.watch(&a).unwrap();
        let path = f.temp.path().join("sub/a.txt");
        std::fs::write(f.temp.path().join("b.txt"), "not watched").unwrap();
        std::fs::write(f.temp.path().join("sub/other"), "not watched").unwrap();
        std::fs::write(&path, "2").unwrap();
        assert_eq!(f.next_update().await, a);
        std::fs::write(f.temp.path().join("sub/new"), "3").unwrap();
        std::fs::rename(f.temp.path().join("sub/new"), &path).unwrap();
        f.until(&a).await;
        std::fs::remove_file(&path).unwrap();
        f.until(&a).await;
        std::fs::write(&path, "4").unwrap();
        f.until(&a).await;
        f.watches.watch(&b).unwrap();
        std::fs::write(f.temp.path().join("b.txt"), "watched now").unwrap();
        f.until(&b).await;
    }

    #[tokio::test]
    async fn each_kind_of_change_alone_is_told() {
        for change in ["write", "rename", "remove"] {
            let mut f = fixture(8);
            let path = f.temp.path().join("sub/a.txt");
            std::fs::write(f.temp.path().join("new"), "2").unwrap();
            let a = f.uri("sub/a.txt");
            f.watches.watch(&a).unwrap();
            match change {
                "write" => std::fs::write(&path, "2").unwrap(),
                "rename" => std::fs::rename(f.temp.path().join("new"), &path).unwrap(),
                _ => std::fs::remove_file(&path).unwrap(),
            }
            assert_eq!(f.next_update().await, a, "{change}");
        }
    }

    #[tokio::test]
    async fn reading_is_no_change() {
        let mut f = fixture(8);
        let (a, b) = (f.uri("sub/a.txt"), f.uri("b.txt"));
        f.watches.watch(&a).unwrap();
        f.watches.watch(&b).unwrap();
        assert_eq!(
            std::fs::read(f.temp.path().join("sub/a.txt")).unwrap(),
            b"1"
        );
        std::fs::write(f.temp.path().join("b.txt"), "2").unwrap();
        assert_eq!(f.next_update().await, b);
    }

    #[tokio::test]
    async fn watches_are_counted_and_end() {
        let mut f = fixture(8);
        let (a, b) = (f.uri("sub/a.txt"), f.uri("b.txt"));
        let (a_path, b_path) = (f.temp.path().join("sub/a.txt"), f.temp.path().join("b.txt"));
        f.watches.watch(&a).unwrap();
        f.watches.watch(&a).unwrap();
        f.watches.watch(&b).unwrap();
        f.watches.unwatch(&a);
        std::fs::write(&a_path, "2").unwrap();
        f.until(&a).await;
        f.watches.unwatch(&a);
        f.watches.unwatch(&a);
        // Events come in order: after two of `b` none of the earlier ones of `a` is on its way.
        for _ in 0..2 {
            std::fs::write(&b_path, "2").unwrap();
            f.until(&b).await;
        }
        std::fs::write(&a_path, "3").unwrap();
        std::fs::write(&b_path, "3").unwrap();
        assert_eq!(
            f.next_update().await,
            b,
            "nothing of the file that nobody watches"
        );
        assert_eq!(lock(&f.watches.state).folders.len(), 1);
    }

    #[tokio::test]
    async fn what_is_not_there_or_too_many_is_refused() {
        let f = fixture(1);
        std::os::unix::fs::symlink("b.txt", f.temp.path().join("link")).unwrap();
        for path in ["none", "sub", "link", "sub/../b.txt", "%62.txt"] {
            let refused = f.watches.watch(&f.uri(path));
            assert!(matches!(refused, Err(Failure::NotFound)), "{path}");
        }
        f.watches.watch(&f.uri("b.txt")).unwrap();
        let refused = f.watches.watch(&f.uri("sub/a.txt"));
        assert!(matches!(refused, Err(Failure::InvalidParams(_))));
        f.watches.unwatch(&f.uri("b.txt"));
        f.watches.watch(&f.uri("sub/a.txt")).unwrap();
    }
}
