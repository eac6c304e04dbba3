//! Notifications on their way out: a bounded queue of one connection, and the sinks that running
//! calls write progress and log messages to.
//!
//! Progress and log messages are hints: when the queue is full they are dropped, and the call goes
//! on. Nothing of a call is sent after its answer.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use bytes::Bytes;
use futures_util::task::AtomicWaker;

use crate::backend::{Note, Notes};
use crate::jsonrpc::{write_notification, write_string};
use crate::mcp::Severity;

/// Notifications that may wait on one connection.
const QUEUE: usize = 256;
/// Bytes that may wait on one connection.
const QUEUE_BYTES: usize = 1024 * 1024;

/// The queue of one connection.
#[derive(Debug, Default)]
pub struct Outbox {
    queue: Mutex<Queue>,
    reader: AtomicWaker,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Vec<u8>>,
    bytes: usize,
    rung: bool,
}

impl Outbox {
    /// Appends a message unless the queue is full; whether it did.
    pub fn push(&self, message: Vec<u8>) -> bool {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.messages.len() >= QUEUE || queue.bytes + message.len() > QUEUE_BYTES {
            return false;
        }
        queue.bytes += message.len();
        queue.messages.push_back(message);
        drop(queue);
        self.reader.wake();
        true
    }

    /// Takes all that waits.
    pub fn take(&self) -> VecDeque<Vec<u8>> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.bytes = 0;
        queue.rung = false;
        std::mem::take(&mut queue.messages)
    }

    /// Wakes the reader although nothing may wait.
    pub fn ring(&self) {
        self.queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .rung = true;
        self.reader.wake();
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .messages
            .is_empty()
    }

    /// Ready when something waits. One reader.
    pub async fn ready(&self) {
        poll_fn(|cx| {
            self.reader.register(cx.waker());
            let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            if queue.messages.is_empty() && !queue.rung {
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        })
        .await;
    }
}

/// Where one call's notes go.
#[derive(Debug)]
pub struct CallNotes {
    outbox: Arc<Outbox>,
    token: Option<Bytes>,
    level: Option<Severity>,
    over: AtomicBool,
    release: AtomicBool,
    /// The last progress, as the bits of an `f64`; it must grow.
    last: AtomicU64,
}

impl CallNotes {
    /// `token`: raw, from the call's `_meta`; `level`: the least severe message that is wanted.
    #[must_use]
    pub fn new(outbox: Arc<Outbox>, token: Option<Bytes>, level: Option<Severity>) -> Self {
        let last = AtomicU64::new(f64::NEG_INFINITY.to_bits());
        Self {
            outbox,
            token,
            level,
            over: AtomicBool::new(false),
            release: AtomicBool::new(false),
            last,
        }
    }

    /// The call is answered: what comes after this is dropped.
    pub fn finish(&self) {
        self.over.store(true, Ordering::Release);
    }

    /// Whether the call lets its stream go, since it was last asked.
    pub fn takes_release(&self) -> bool {
        self.release.swap(false, Ordering::AcqRel)
    }

    fn progress(&self, progress: f64, total: Option<f64>, message: Option<&str>) {
        let Some(token) = &self.token else { return };
        let before = f64::from_bits(self.last.load(Ordering::Relaxed));
        if !progress.is_finite() || progress <= before {
            return;
        }
        self.last.store(progress.to_bits(), Ordering::Relaxed);
        let mut params = br#""progressToken":"#.to_vec();
        params.extend_from_slice(token);
        params.extend_from_slice(format!(r#","progress":{progress}"#).as_bytes());
        if let Some(total) = total.filter(|total| total.is_finite()) {
            params.extend_from_slice(format!(r#","total":{total}"#).as_bytes());
        }
        if let Some(message) = message {
            params.extend_from_slice(br#","message":"#);
            write_string(&mut params, message);
        }
        self.send("notifications/progress", &params);
    }

    fn log(&self, level: Severity, logger: Option<&str>, data: &str) {
        if self.level.is_none_or(|least| level < least) {
            return;
        }
        let mut params = format!(r#""level":"{}","#, level.as_str()).into_bytes();
        if let Some(logger) = logger {
            params.extend_from_slice(br#""logger":"#);
            write_string(&mut params, logger);
            params.push(b',');
        }
        params.extend_from_slice(br#""data":"#);
        params.extend_from_slice(data.as_bytes());
        self.send("notifications/message", &params);
    }

    fn send(&self, method: &str, params: &[u8]) {
        let mut message = Vec::with_capacity(params.len() + 80);
        write_notification(&mut message, method, params);
        self.outbox.push(message);
    }
}

impl Notes for CallNotes {
    fn note(&self, note: Note) {
        if self.over.load(Ordering::Acquire) {
            return;
        }
        match note {
            Note::Progress {
                progress,
                total,
                message,
            } => {
                self.progress(progress, total, message.as_deref());
            }
            Note::Log {
                level,
                logger,
                data,
            } => self.log(level, logger.as_deref(), &data),
            Note::Release => {
                self.release.store(true, Ordering::Release);
                self.outbox.ring();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(outbox: &Outbox) -> Vec<serde_json::Value> {
        outbox
            .take()
            .iter()
            .map(|m| serde_json::from_slice(m).unwrap())
            .collect()
    }

    #[test]
    fn progress_grows_and_ends_with_the_call() {
        let outbox = Arc::new(Outbox::default());
        let token = Some(Bytes::from_static(b"\"t\""));
        let notes = CallNotes::new(Arc::clone(&outbox), token, None);
        for progress in [1.0, 1.0, f64::NAN, 0.5, 2.5] {
            notes.note(Note::Progress {
                progress,
                total: Some(4.0),
                message: Some("m".into()),
            });
        }
        let all = sent(&outbox);
        let values: Vec<_> = all
            .iter()
            .map(|m| m["params"]["progress"].as_f64().unwrap())
            .collect();
        assert_eq!(values, [1.0, 2.5]);
        assert_eq!(all[0]["params"]["progressToken"], "t");
        notes.finish();
        notes.note(Note::Progress {
            progress: 3.0,
            total: None,
            message: None,
        });
        assert!(outbox.take().is_empty());
    }

    #[test]
    fn only_messages_that_are_severe_enough_are_sent() {
        let outbox = Arc::new(Outbox::default());
        let log = |level| Note::Log {
            level,
            logger: None,
            data: "1".into(),
        };
        let silent = CallNotes::new(Arc::clone(&outbox), None, None);
        silent.note(log(Severity::Emergency));
        assert!(sent(&outbox).is_empty());
        let notes = CallNotes::new(Arc::clone(&outbox), None, Some(Severity::Warning));
        notes.note(log(Severity::Info));
        notes.note(log(Severity::Error));
        let all = sent(&outbox);
        assert_eq!(all.len(), 1);
        assert_eq!(
            all[0]["params"],
            serde_json::json!({"level":"error","data":1})
        );
    }

    #[test]
    fn a_full_queue_drops_and_does_not_grow() {
        let outbox = Outbox::default();
        for _ in 0..10_000 {
            outbox.push(vec![b'x'; 100]);
        }
        assert_eq!(outbox.take().len(), QUEUE);
        outbox.push(vec![0; QUEUE_BYTES + 1]);
        assert!(outbox.take().is_empty());
    }
}
