//! Threads that connections stay on.
//!
//! On a runtime with several workers a connection is served now by one of them and now by another:
//! by whoever hears of it first. All that it has in memory then moves from one processor's cache to
//! the other's with nearly every message, and what one worker took from the allocator another gives
//! back. On two processors that was half of what a call costs beyond its floor (`docs/measure.md`).
//! So each thread of a crew has a runtime of its own, and who was let in stays with it until the
//! end; new ones go to the thread that has the fewest.
//!
//! The price: a thread that is busy with one connection makes its others wait, where a shared
//! runtime would take them over. What blocks has always belonged on `spawn_blocking`; a program's own
//! providers may not know that, so a host keeps its own runtime (`server::host`). Connections whose
//! handshake may have to wait for its signature (a key in a token) stay on the shared runtime too.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// The threads. They end when this is dropped, and the tasks that are still on them too.
#[derive(Debug)]
pub struct Crew {
    members: Vec<Member>,
}

/// One thread with its runtime.
#[derive(Debug)]
struct Member {
    runtime: Handle,
    guests: Arc<AtomicUsize>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// A place with one member; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Berth {
    guests: Arc<AtomicUsize>,
}

impl Drop for Berth {
    fn drop(&mut self) {
        self.guests.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Crew {
    /// So many threads (at least one).
    ///
    /// # Errors
    /// The system has none to give.
    pub fn start(threads: usize) -> io::Result<Self> {
        let members = (0..threads.max(1)).map(Member::start);
        Ok(Self {
            members: members.collect::<Result<_, _>>()?,
        })
    }

    /// A place with whoever has the fewest guests, and where to run them.
    pub(super) fn berth(&self) -> (Berth, &Handle) {
        let fewest = self
            .members
            .iter()
            .min_by_key(|member| member.guests.load(Ordering::Relaxed))
            .expect("a crew has at least one member");
        fewest.guests.fetch_add(1, Ordering::Relaxed);
        let berth = Berth {
            guests: Arc::clone(&fewest.guests),
        };
        (berth, &fewest.runtime)
    }
}

impl Member {
    fn start(number: usize) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name(format!("serve-{number}"))
            .spawn(move || {
                let _ = runtime.block_on(stopped);
                // What blocks on a thread of its own is not waited for: nobody waits for its result.
                runtime.shutdown_background();
            })?;
        Ok(Self {
            runtime: handle,
            guests: Arc::default(),
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of a task is the task's; there is none of the thread's own.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn guests_go_where_the_fewest_are_and_stay_there() {
        let crew = Crew::start(3).unwrap();
        let waiting = Builder::new_current_thread().build().unwrap();
        let mut berths = Vec::new();
        let mut threads: HashMap<String, usize> = HashMap::new();
        for _ in 0..9 {
            let (berth, runtime) = crew.berth();
            berths.push(berth);
            let named = runtime.spawn(async {
                let before = thread::current().id();
                tokio::task::yield_now().await;
                assert_eq!(thread::current().id(), before);
                thread::current().name().unwrap_or_default().to_owned()
            });
            *threads.entry(waiting.block_on(named).unwrap()).or_default() += 1;
        }
        assert_eq!(threads.len(), 3, "{threads:?}");
        assert!(threads.values().all(|guests| *guests == 3), "{threads:?}");
        // Whoever lost its guests gets the next ones.
        let of_first = Arc::clone(&crew.members[0].guests);
        berths.retain(|berth| !Arc::ptr_eq(&berth.guests, &of_first));
        assert_eq!(of_first.load(Ordering::Relaxed), 0);
        berths.extend([crew.berth().0, crew.berth().0]);
        assert_eq!(of_first.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn what_still_runs_ends_with_the_crew() {
        struct Told(std::sync::mpsc::SyncSender<()>);
        impl Drop for Told {
            fn drop(&mut self) {
                let _ = self.0.send(());
            }
        }
        let crew = Crew::start(1).unwrap();
        let (sender, ended) = std::sync::mpsc::sync_channel(1);
        let told = Told(sender);
        crew.berth().1.spawn(async move {
            let _told = told;
            std::future::pending::<()>().await;
        });
        assert!(ended.try_recv().is_err());
        drop(crew);
        assert_eq!(ended.try_recv(), Ok(()));
    }
}
