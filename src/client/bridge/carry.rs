//! One connection of the bridge: two pumps that never wait for each other.
//!
//! A line is written to the client as a whole or not at all, whatever happens to the server; so the
//! downward pump is never dropped while it writes.

use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Notify, mpsc};

use super::ledger::{Ledger, Opening, Up, error};
use crate::client::fault::ClientError;
use crate::client::lines::{LineError, Lines, MAX_LINE};
use crate::client::peek::{Peek, negotiated, peek};

/// How long a server may take to open a legacy session again.
const REOPENING: Duration = Duration::from_secs(10);
/// How long after its input the output of a client that is gone may still seem to be there, in
/// hundredths of a second.
const PARTING: u32 = 10;
/// How long the reading side may take to find the reason for a failed write.
const LAST_WORD: Duration = Duration::from_secs(1);
/// How long a server may take to end the session of a client that has closed its side and waits for
/// nothing but listens. Until then lines still come: answers without an id, notifications.
const LINGER: Duration = Duration::from_secs(2);

/// The client's side of the bridge, which outlives every connection.
pub struct Pipes<I, O> {
    pub input: I,
    pub lines: Lines,
    pub output: O,
    /// A line that came while there was no connection.
    pub pending: Option<Bytes>,
    /// Whether the client reads no more.
    pub gone: fn() -> bool,
}

/// Whether the server has said anything on a connection. Not before has it let the client in: in TLS
/// 1.3 a refusal comes after the client's handshake is over.
pub struct Heard<'a> {
    yes: bool,
    /// Told so, once or more often.
    tell: &'a mut dyn FnMut(),
}

impl<'a> Heard<'a> {
    /// Nothing so far.
    pub fn nothing(tell: &'a mut dyn FnMut()) -> Self {
        Self { yes: false, tell }
    }

    /// Whether a line came that the client was given.
    pub const fn yes(&self) -> bool {
        self.yes
    }

    fn line(&mut self) {
        if !std::mem::replace(&mut self.yes, true) {
            (self.tell)();
        }
    }
}

/// How a connection ended.
pub enum End {
    /// The client closed its side and has every answer.
    Finished,
    /// The client takes no more output.
    OutputGone,
    /// The connection broke.
    Lost(ClientError),
    /// The connection stands, but the session cannot go on.
    Fatal(ClientError),
}

impl<I: AsyncRead + Unpin, O: AsyncWrite + Unpin> Pipes<I, O> {
    pub async fn write(&mut self, line: &[u8]) -> std::io::Result<()> {
        write(&mut self.output, line).await
    }

    /// Carries lines until the connection or the client ends.
    pub async fn carry<S: AsyncRead + AsyncWrite>(
        &mut self,
        stream: S,
        ledger: &Mutex<Ledger>,
        peer: &str,
        heard: &mut Heard<'_>,
    ) -> End {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut lines = Lines::new(MAX_LINE);
        let opening = locked(ledger).opening().cloned();
        if let Some(opening) = opening
            && let Err(end) = self
                .reopen(&mut reader, &mut lines, &mut writer, &opening, peer)
                .await
                .map(|answered| answered.then(|| (heard.tell)()))
        {
            return end;
        }
        let wake = Notify::new();
        let (own, mut owned) = mpsc::channel(16);
        let mut upward = pin!(up(
            &mut self.input,
            &mut self.lines,
            &mut self.pending,
            self.gone,
            &mut writer,
            ledger,
            own,
            &wake
        ));
        let mut down = Down {
            reader,
            lines,
            output: &mut self.output,
            ledger,
            wake: &wake,
            peer,
            heard,
        };
        let mut downward = pin!(down.run(&mut owned));
        let lost = tokio::select! {
            end = &mut downward => return end,
            lost = &mut upward => lost,
        };
        let Some(cause) = lost else {
            return downward.await;
        };
        let end = if let Ok(end) = tokio::time::timeout(LAST_WORD, wait(&mut downward)).await {
            end
        } else {
            locked(ledger).abandoned = true;
            wake.notify_one();
            downward.await
        };
        match end {
            End::Lost(ClientError::Closed { heard, .. }) => {
                End::Lost(ClientError::of_io(peer, &cause, heard))
            }
            end => end,
        }
    }

    /// Opens a legacy session again, as the client opened it the first time. Whether the server has
    /// answered.
    async fn reopen<S: AsyncRead + AsyncWrite>(
        &mut self,
        reader: &mut ReadHalf<S>,
        lines: &mut Lines,
        writer: &mut WriteHalf<S>,
        opening: &Opening,
        peer: &str,
    ) -> Result<bool, End> {
        let lost = |cause: &std::io::Error| End::Lost(ClientError::of_io(peer, cause, false));
        write(writer, &opening.line)
            .await
            .map_err(|cause| lost(&cause))?;
        // Without a first answer the client is still waiting for this one: it goes the normal way.
        let Some(revision) = &opening.revision else {
            return Ok(false);
        };
        loop {
            let line = match tokio::time::timeout(REOPENING, lines.next(reader)).await {
                Err(_) => {
                    return Err(End::Lost(ClientError::Timeout {
                        peer: peer.to_owned(),
                        after: REOPENING,
                    }));
                }
                Ok(Err(cause)) => return Err(End::Lost(ClientError::of_line(peer, cause, false))),
                Ok(Ok(None)) => {
                    return Err(End::Lost(ClientError::Closed {
                        peer: peer.to_owned(),
                        heard: false,
                    }));
                }
                Ok(Ok(Some(line))) => line,
            };
            match peek(&line) {
                Peek::Response { id } if id.key == opening.id => match negotiated(&line) {
                    Ok(now) if now == *revision => break,
                    Ok(now) => {
                        return Err(fatal(
                            peer,
                            &format!("its revision was {revision} and is {now} now"),
                        ));
                    }
                    Err(cause) => {
                        return Err(fatal(
                            peer,
                            &format!("it does not open the session again: {cause}"),
                        ));
                    }
                },
                _ => self.write(&line).await.map_err(|_| End::OutputGone)?,
            }
        }
        if let Some(initialized) = &opening.initialized {
            write(writer, initialized)
                .await
                .map_err(|cause| lost(&cause))?;
        }
        Ok(true)
    }
}

/// From the client to the server. `None` when the client closed its side, else why a write failed.
#[expect(
    clippy::too_many_arguments,
    reason = "the parts of one bridge, each borrowed by itself"
)]
async fn up<I: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    input: &mut I,
    lines: &mut Lines,
    pending: &mut Option<Bytes>,
    gone: fn() -> bool,
    writer: &mut W,
    ledger: &Mutex<Ledger>,
    own: mpsc::Sender<Bytes>,
    wake: &Notify,
) -> Option<std::io::Error> {
    loop {
        let next = match pending.take() {
            Some(line) => Ok(Some(line)),
            None => lines.next(input).await,
        };
        let answer = match next {
            Ok(Some(line)) => {
                let verdict = locked(ledger).up(&line);
                match verdict {
                    Up::Answer(answer) => answer,
                    Up::Forward => match write(writer, &line).await {
                        Ok(()) => continue,
                        Err(cause) => return Some(cause),
                    },
                }
            }
            Err(LineError::TooLong(max)) => {
                error("null", &format!("a line is longer than {max} bytes"))
            }
            Ok(None) | Err(LineError::Io(_)) => break,
        };
        // The receiver goes only when this future goes too.
        let _ = own.send(answer).await;
    }
    // Whoever only closed its side hears its answers; whoever is gone wants none.
    if !locked(ledger).only_listens() && is_gone(gone).await {
        let cancellations = locked(ledger).give_up();
        for line in cancellations {
            if let Err(cause) = write(writer, &line).await {
                return Some(cause);
            }
        }
    }
    locked(ledger).closing = true;
    wake.notify_one();
    writer.shutdown().await.err()
}

/// A client that ends closes its two sides one after the other.
async fn is_gone(gone: fn() -> bool) -> bool {
    for _ in 0..PARTING {
        if gone() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    gone()
}

struct Down<'a, 'b, S, O> {
    reader: ReadHalf<S>,
    lines: Lines,
    output: &'a mut O,
    ledger: &'a Mutex<Ledger>,
    wake: &'a Notify,
    peer: &'a str,
    heard: &'a mut Heard<'b>,
}

impl<S: AsyncRead + AsyncWrite, O: AsyncWrite + Unpin> Down<'_, '_, S, O> {
    /// From the server to the client.
    async fn run(&mut self, own: &mut mpsc::Receiver<Bytes>) -> End {
        let mut linger = None;
        loop {
            match self.state() {
                State::Going => {}
                State::Abandoned => return self.rest(own).await,
                State::Leaving => {
                    linger.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
                }
            }
            let lingering = async {
                match &mut linger {
                    Some(sleep) => sleep.as_mut().await,
                    None => std::future::pending().await,
                }
            };
            let line = tokio::select! {
                biased;
                () = self.wake.notified() => continue,
                () = lingering => return self.rest(own).await,
                Some(line) = own.recv() => line,
                next = self.lines.next(&mut self.reader) => match next {
                    Ok(Some(line)) => {
                        self.heard.line();
                        locked(self.ledger).down(&line);
                        line
                    }
                    Ok(None) => return self.ended(),
                    Err(cause) => return End::Lost(ClientError::of_line(self.peer, cause, self.heard.yes())),
                },
            };
            if write(self.output, &line).await.is_err() {
                return End::OutputGone;
            }
        }
    }

    fn state(&self) -> State {
        let ledger = locked(self.ledger);
        match (ledger.abandoned, ledger.closing && ledger.only_listens()) {
            (true, _) => State::Abandoned,
            (false, true) => State::Leaving,
            (false, false) => State::Going,
        }
    }

    /// What the bridge itself still has to say.
    async fn rest(&mut self, own: &mut mpsc::Receiver<Bytes>) -> End {
        while let Ok(line) = own.try_recv() {
            if write(self.output, &line).await.is_err() {
                return End::OutputGone;
            }
        }
        if locked(self.ledger).abandoned {
            self.closed()
        } else {
            End::Finished
        }
    }

    fn ended(&self) -> End {
        let ledger = locked(self.ledger);
        if ledger.closing && ledger.only_listens() {
            End::Finished
        } else {
            self.closed()
        }
    }

    fn closed(&self) -> End {
        End::Lost(ClientError::Closed {
            peer: self.peer.to_owned(),
            heard: self.heard.yes(),
        })
    }
}

enum State {
    Going,
    /// The client has closed its side, and nothing but listens waits.
    Leaving,
    Abandoned,
}

fn fatal(peer: &str, cause: &str) -> End {
    End::Fatal(ClientError::Protocol {
        peer: peer.to_owned(),
        cause: cause.to_owned(),
    })
}

/// Polls by reference, so that a timeout drops the waiting and not the pump.
async fn wait<F: Future + Unpin>(future: &mut F) -> F::Output {
    future.await
}

async fn write<W: AsyncWrite + Unpin>(writer: &mut W, line: &[u8]) -> std::io::Result<()> {
    writer.write_all(line).await?;
    writer.flush().await
}

/// The ledger is never left half-changed, so a poisoned lock is as good as another.
pub fn locked(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}
