//! What a session needs of a transport that carries a stream of messages.

use std::io;

use bytes::Bytes;

/// Why a transport cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// A message over the limit: answered without an id, then the connection is closed.
    #[error("a message is longer than {max} bytes")]
    TooLong {
        /// The limit in bytes.
        max: usize,
    },
    /// The peer breaks the rules of the transport; the connection cannot go on.
    #[error("{0}")]
    Violation(&'static str),
    /// The peer said goodbye in the transport's own way and takes no more answers.
    #[error("the peer closed the connection")]
    Closed,
    /// The peer gave no sign of life.
    #[error("the peer gives no sign of life")]
    Dead,
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Why this side ends a stream. A transport that has words for it tells the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goodbye {
    /// Everything was said.
    Done,
    /// The server stops, or the peer was silent for too long.
    GoingAway,
    /// The peer may not stay; what it is told.
    Refused(&'static str),
}

/// A stream of messages in both directions. Every future is safe to drop: what it has read or not
/// yet written stays where it is.
pub trait Wire: Send {
    /// The name in the audit log: `raw`, `websocket`.
    const NAME: &'static str;

    /// The next message that is here already; no I/O.
    ///
    /// # Errors
    /// [`WireError::TooLong`], [`WireError::Violation`], [`WireError::Closed`], each after the
    /// messages that came before it.
    fn next(&mut self) -> Result<Option<Bytes>, WireError>;

    /// Waits for more bytes. False at the end of the stream.
    ///
    /// # Errors
    /// The connection broke, or the peer is dead.
    fn fill(&mut self) -> impl Future<Output = Result<bool, WireError>> + Send;

    /// What is left after the end of the stream and counts as a message.
    ///
    /// # Errors
    /// [`WireError::TooLong`].
    fn last(&mut self) -> Result<Option<Bytes>, WireError>;

    /// Appends one message to what is to be written; `write` appends its bytes.
    fn put(&mut self, write: impl FnOnce(&mut Vec<u8>));

    /// Bytes that wait to be written.
    fn waiting(&self) -> usize;

    /// Writes all that waits.
    ///
    /// # Errors
    /// The connection broke.
    fn flush(&mut self) -> impl Future<Output = Result<(), WireError>> + Send;

    /// Ends the stream in the transport's own way. May wait for the peer to end it too: the caller
    /// sets a limit.
    fn close(&mut self, goodbye: Goodbye) -> impl Future<Output = ()> + Send;

    /// Gives memory back while nothing is going on.
    fn rest(&mut self);
}
