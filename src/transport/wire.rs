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
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A stream of messages in both directions. Every future is safe to drop: what it has read or not
/// yet written stays where it is.
pub trait Wire: Send {
    /// The name in the audit log: `raw`, `websocket`.
    const NAME: &'static str;

    /// The next message that is here already; no I/O.
    ///
    /// # Errors
    /// [`WireError::TooLong`].
    fn next(&mut self) -> Result<Option<Bytes>, WireError>;

    /// Waits for more bytes. False at the end of the stream.
    ///
    /// # Errors
    /// The connection broke.
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

    /// Ends the stream in the transport's own way.
    fn close(&mut self) -> impl Future<Output = ()> + Send;

    /// Gives memory back while nothing is going on.
    fn rest(&mut self);
}
