//! The one thread that talks to a token, and those who wait for it: so many at most, so long at
//! most, and while it does not answer nobody waits at all.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};

use super::key::Scheme;
use super::refusal::TokenError;

/// Signatures that wait at the same time.
const QUEUE: usize = 64;

/// How long one is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long the end of the thread is waited for.
const PARTING: Duration = Duration::from_secs(1);

/// How long opening may take: the library is loaded, and a PIN may be slow on purpose.
const OPENING: Duration = Duration::from_secs(15);

/// What the thread uses. It never leaves the thread.
pub(super) trait Keeper {
    fn sign(&mut self, scheme: Scheme, message: &[u8]) -> Result<Vec<u8>, TokenError>;
}

struct Job {
    scheme: Scheme,
    message: Vec<u8>,
    answer: SyncSender<Result<Vec<u8>, TokenError>>,
}

/// The way to the thread, which ends with it.
pub(super) struct Link {
    jobs: Option<SyncSender<Job>>,
    /// Ends when the thread has let the token go.
    done: Mutex<Receiver<()>>,
    /// Somebody waited in vain, and the thread has not come back since.
    silent: Arc<AtomicBool>,
    token: String,
    patience: Duration,
}

impl Link {
    /// Starts the thread and waits until `open` is through. What it found out comes with the link.
    pub fn start<K: Keeper, T: Send + 'static>(
        token: String,
        open: impl FnOnce() -> Result<(K, T), TokenError> + Send + 'static,
    ) -> Result<(Self, T), TokenError> {
        Self::start_with(token, PATIENCE, open)
    }

    fn start_with<K: Keeper, T: Send + 'static>(
        token: String,
        patience: Duration,
        open: impl FnOnce() -> Result<(K, T), TokenError> + Send + 'static,
    ) -> Result<(Self, T), TokenError> {
        let (jobs, queue) = sync_channel(QUEUE);
        let (opened, found) = sync_channel(1);
        let (doing, done) = sync_channel(1);
        let silent = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&silent);
        let run = move || {
            // Dropped last of all: nothing is ever sent.
            let _doing: SyncSender<()> = doing;
            match open() {
                Ok((keeper, about)) => {
                    // Nobody waits for it any more: the token is let go again.
                    if opened.send(Ok(about)).is_ok() {
                        work(keeper, &queue, &seen);
                    }
                }
                Err(error) => drop(opened.send(Err(error))),
            }
        };
        std::thread::Builder::new()
            .name(String::from("token"))
            .spawn(run)
            .map_err(|_| TokenError::Gone(token.clone()))?;
        let about = aside(|| found.recv_timeout(OPENING)).map_err(|why| match why {
            RecvTimeoutError::Timeout => TokenError::Silent {
                token: token.clone(),
                seconds: OPENING.as_secs(),
            },
            RecvTimeoutError::Disconnected => TokenError::Gone(token.clone()),
        })??;
        let link = Self {
            jobs: Some(jobs),
            done: Mutex::new(done),
            silent,
            token,
            patience,
        };
        Ok((link, about))
    }

    /// A signature, or a refusal within the time that is waited.
    pub fn sign(&self, scheme: Scheme, message: &[u8]) -> Result<Vec<u8>, TokenError> {
        if self.silent.load(Ordering::Acquire) {
            return Err(self.is_silent());
        }
        let (answer, answered) = sync_channel(1);
        let job = Job {
            scheme,
            message: message.to_vec(),
            answer,
        };
        let gone = || TokenError::Gone(self.token.clone());
        let jobs = self.jobs.as_ref().ok_or_else(gone)?;
        jobs.try_send(job).map_err(|why| match why {
            TrySendError::Full(_) => TokenError::Busy(self.token.clone()),
            TrySendError::Disconnected(_) => gone(),
        })?;
        match aside(|| answered.recv_timeout(self.patience)) {
            Ok(signature) => signature,
            Err(RecvTimeoutError::Disconnected) => Err(gone()),
            Err(RecvTimeoutError::Timeout) => {
                self.silent.store(true, Ordering::Release);
                Err(self.is_silent())
            }
        }
    }

    fn is_silent(&self) -> TokenError {
        TokenError::Silent {
            token: self.token.clone(),
            seconds: self.patience.as_secs(),
        }
    }
}

impl Drop for Link {
    /// Waits a moment until the token is let go: a process must not end in the middle of a call into
    /// a library that is being unloaded. A thread that hangs is left behind.
    fn drop(&mut self) {
        self.jobs = None;
        if !self.silent.load(Ordering::Acquire) {
            let done = self.done.get_mut().unwrap_or_else(PoisonError::into_inner);
            let _ = aside(|| done.recv_timeout(PARTING));
        }
    }
}

fn work(mut keeper: impl Keeper, queue: &Receiver<Job>, silent: &AtomicBool) {
    while let Ok(job) = queue.recv() {
        let signature = keeper.sign(job.scheme, &job.message);
        silent.store(false, Ordering::Release);
        // Whoever asked may have given up.
        let _ = job.answer.send(signature);
    }
}

/// Waits without keeping the runtime's other tasks waiting.
fn aside<T>(wait: impl FnOnce() -> T) -> T {
    match Handle::try_current() {
        Ok(here) if here.runtime_flavor() == RuntimeFlavor::MultiThread => {
            tokio::task::block_in_place(wait)
        }
        _ => wait(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    /// Signs with what the test hands it, and waits until it does.
    struct Prompted(Receiver<Vec<u8>>);

    impl Keeper for Prompted {
        fn sign(&mut self, _: Scheme, _: &[u8]) -> Result<Vec<u8>, TokenError> {
            self.0.recv().map_err(|_| TokenError::NotBuilt)
        }
    }

    fn link(patience: Duration) -> (Link, SyncSender<Vec<u8>>) {
        let (hand, taken) = sync_channel(QUEUE * 4);
        let open = move || Ok((Prompted(taken), 7));
        let (link, about) = Link::start_with("t".to_owned(), patience, open).unwrap();
        assert_eq!(about, 7);
        (link, hand)
    }

    const SCHEME: Scheme = Scheme::EcdsaSha256;

    #[test]
    fn a_hung_token_refuses_at_once_until_it_is_back() {
        let (link, hand) = link(Duration::from_millis(50));
        hand.send(b"first".to_vec()).unwrap();
        assert_eq!(link.sign(SCHEME, b"").unwrap(), b"first");
        // It hangs: one waits, the next ones do not even reach it.
        for _ in 0..3 {
            assert!(matches!(
                link.sign(SCHEME, b""),
                Err(TokenError::Silent { .. })
            ));
        }
        hand.send(b"late".to_vec()).unwrap();
        hand.send(b"again".to_vec()).unwrap();
        while link.silent.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        assert_eq!(link.sign(SCHEME, b"").unwrap(), b"again");
    }

    #[test]
    fn a_token_that_ends_or_refuses_to_open_says_so() {
        let (link, hand) = link(Duration::from_secs(60));
        hand.send(b"first".to_vec()).unwrap();
        link.sign(SCHEME, b"").unwrap();
        drop(hand);
        assert!(matches!(link.sign(SCHEME, b""), Err(TokenError::NotBuilt)));
        let open = || Err::<(Prompted, ()), _>(TokenError::WrongPin("t".to_owned()));
        let refused = Link::start("t".to_owned(), open).map(drop);
        assert!(matches!(refused, Err(TokenError::WrongPin(_))));
    }

    #[test]
    fn the_queue_has_an_end() {
        let (link, hand) = link(Duration::from_secs(60));
        let link = Arc::new(link);
        std::thread::scope(|scope| {
            let asking = || scope.spawn(|| link.sign(SCHEME, b""));
            // One is with the token, and as many wait as may: the next is refused.
            let waiting: Vec<_> = (0..=QUEUE).map(|_| asking()).collect();
            let refused = loop {
                let (answer, _dropped) = sync_channel(1);
                let job = Job {
                    scheme: SCHEME,
                    message: Vec::new(),
                    answer,
                };
                match link.jobs.as_ref().unwrap().try_send(job) {
                    Err(TrySendError::Full(_)) => break link.sign(SCHEME, b""),
                    _ => std::thread::yield_now(),
                }
            };
            assert!(matches!(refused, Err(TokenError::Busy(_))));
            for _ in 0..QUEUE * 3 {
                let _ = hand.try_send(Vec::new());
            }
            for one in waiting {
                assert!(matches!(
                    one.join().unwrap(),
                    Ok(_) | Err(TokenError::Busy(_))
                ));
            }
        });
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn the_runtime_goes_on_while_a_task_waits() {
        let (link, hand) = link(Duration::from_secs(60));
        let waits = tokio::spawn(async move { link.sign(SCHEME, b"").unwrap() });
        // The only worker waits for the token, and this task is served all the same.
        let helps = tokio::spawn(async move { hand.send(b"done".to_vec()).unwrap() });
        helps.await.unwrap();
        assert_eq!(waits.await.unwrap(), b"done");
    }
}
