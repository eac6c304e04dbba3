//! The bridge from its start to its end, over as many connections as it takes.

use std::pin::pin;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::backoff::Backoff;
use super::carry::{End, Heard, Pipes, locked};
use super::ledger::{Ledger, answer};
use crate::client::fault::ClientError;
use crate::client::lines::{LineError, Lines, MAX_LINE};

/// How a bridge gets a connection.
pub trait Dial {
    /// What it gets.
    type Stream: AsyncRead + AsyncWrite;
    /// A new connection after its handshake.
    fn dial(&mut self) -> impl Future<Output = Result<Self::Stream, ClientError>>;
    /// The reason behind a connection that ended without a word, or the same error.
    fn reason(&mut self, error: ClientError) -> impl Future<Output = ClientError>;
    /// How messages call the server.
    fn peer(&self) -> String;
}

/// How patient a bridge is.
#[derive(Clone, Debug)]
pub struct BridgeOptions {
    /// How long the first connection may take to come about.
    pub first: Duration,
    /// How long requests may wait for a reconnect before they are answered with an error.
    pub patience: Duration,
    /// The waits between attempts.
    pub backoff: Backoff,
}

impl Default for BridgeOptions {
    /// Ten seconds each.
    fn default() -> Self {
        Self {
            first: Duration::from_secs(10),
            patience: Duration::from_secs(10),
            backoff: Backoff::default(),
        }
    }
}

/// The bridge between a client's pipes and a server.
pub struct Bridge<D, I, O> {
    dial: D,
    pipes: Pipes<I, O>,
    ledger: Mutex<Ledger>,
    options: BridgeOptions,
    report: Box<dyn FnMut(&str)>,
}

impl<D: Dial, I: AsyncRead + Unpin, O: AsyncWrite + Unpin> Bridge<D, I, O> {
    /// `report` is told in one line when a connection is lost, and when a server has answered on the
    /// next one.
    pub fn new(
        dial: D,
        input: I,
        output: O,
        options: BridgeOptions,
        report: Box<dyn FnMut(&str)>,
    ) -> Self {
        let pipes = Pipes {
            input,
            lines: Lines::new(MAX_LINE),
            output,
            pending: None,
            gone: || false,
        };
        Self {
            dial,
            pipes,
            ledger: Mutex::default(),
            options,
            report,
        }
    }

    /// Calls are cancelled when the client closes its side and this says that it reads no more.
    #[must_use]
    pub fn until(mut self, gone: fn() -> bool) -> Self {
        self.pipes.gone = gone;
        self
    }

    /// Runs until the client closes its side and has every answer.
    ///
    /// # Errors
    /// Never connected, refused, or lost when answers were still to come and no further connection
    /// could bring them. Requests in flight have been answered with an error by then.
    pub async fn run(mut self) -> Result<(), ClientError> {
        let mut stream = self.first().await?;
        let mut again = false;
        loop {
            let peer = self.dial.peer();
            let report = &mut self.report;
            let mut tell = || {
                if std::mem::take(&mut again) {
                    report(&format!("connected to `{peer}` again"));
                }
            };
            let mut heard = Heard::nothing(&mut tell);
            let end = self
                .pipes
                .carry(stream, &self.ledger, &peer, &mut heard)
                .await;
            if heard.yes() {
                self.options.backoff.reset();
            }
            let error = match end {
                End::Finished | End::OutputGone => return Ok(()),
                End::Fatal(error) => return self.end(error).await,
                End::Lost(error) => self.dial.reason(error).await,
            };
            if error.is_refusal() || locked(&self.ledger).closing {
                return self.end(error).await;
            }
            let lines = locked(&self.ledger).fail(&error.to_string());
            if self.say(lines).await.is_err() {
                return Ok(());
            }
            (self.report)(&format!("{error}; connecting again"));
            stream = match self.again().await? {
                Some(stream) => stream,
                None => return Ok(()),
            };
            again = true;
        }
    }

    async fn first(&mut self) -> Result<D::Stream, ClientError> {
        let mut too_late = pin!(tokio::time::sleep(self.options.first));
        let mut told = false;
        loop {
            let error = match self.dial.dial().await {
                Ok(stream) => return Ok(stream),
                Err(error) if error.is_refusal() => return Err(error),
                Err(error) => error,
            };
            if !std::mem::replace(&mut told, true) {
                (self.report)(&format!("{error}; trying again"));
            }
            tokio::select! {
                () = &mut too_late => return Err(error),
                () = tokio::time::sleep(self.options.backoff.next_wait()) => {}
            }
        }
    }

    /// The last word: everything that waits is answered with the error.
    async fn end(&mut self, error: ClientError) -> Result<(), ClientError> {
        let text = error.to_string();
        let mut lines = locked(&self.ledger).fail_all(&text);
        lines.extend(
            self.pipes
                .pending
                .take()
                .and_then(|line| answer(&line, &text)),
        );
        let complete = lines.is_empty() && locked(&self.ledger).closing && !error.is_refusal();
        // The client may be gone as well; the error is returned either way.
        let _ = self.say(lines).await;
        if complete { Ok(()) } else { Err(error) }
    }

    async fn say(&mut self, lines: Vec<Bytes>) -> std::io::Result<()> {
        for line in lines {
            self.pipes.write(&line).await?;
        }
        Ok(())
    }

    /// Another connection; `None` when the client closes its side meanwhile.
    async fn again(&mut self) -> Result<Option<D::Stream>, ClientError> {
        let mut patience = Patience {
            until: Box::pin(tokio::time::sleep(self.options.patience)),
            over: false,
        };
        loop {
            match self.attempt(&mut patience).await {
                None => return Ok(None),
                Some(Ok(stream)) => return Ok(Some(stream)),
                Some(Err(error)) if error.is_refusal() => {
                    self.end(error).await?;
                    return Ok(None);
                }
                Some(Err(_)) => {}
            }
        }
    }

    /// One wait and one attempt. One line of the client is held back; when the patience is over, what
    /// it asks is answered with an error instead. `None` when the client closes its side.
    async fn attempt(&mut self, patience: &mut Patience) -> Option<Result<D::Stream, ClientError>> {
        let wait = self.options.backoff.next_wait();
        let (dial, pipes) = (&mut self.dial, &mut self.pipes);
        let mut attempt = pin!(async {
            tokio::time::sleep(wait).await;
            dial.dial().await
        });
        loop {
            tokio::select! {
                result = &mut attempt => return Some(result),
                () = &mut patience.until, if !patience.over => patience.over = true,
                line = pipes.lines.next(&mut pipes.input), if pipes.pending.is_none() => match line {
                    Ok(Some(line)) => pipes.pending = Some(line),
                    Ok(None) | Err(LineError::Io(_)) => return None,
                    Err(LineError::TooLong(_)) => {}
                },
            }
            if patience.over
                && let Some(line) = pipes.pending.take()
                && let Some(answer) = answer(&line, "there is no connection to the server")
            {
                pipes.write(&answer).await.ok()?;
            }
        }
    }
}

struct Patience {
    until: std::pin::Pin<Box<tokio::time::Sleep>>,
    over: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::fault::Alert;
    use serde_json::{Value, json};
    use std::cell::RefCell;
    use std::rc::Rc;
    use tokio::io::{
        AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream, Lines as TokioLines,
        ReadHalf, WriteHalf,
    };
    use tokio::sync::mpsc;

    type Outcome = Result<DuplexStream, ClientError>;

    /// Gives the connections that the test hands out, one after the other.
    struct Scripted(mpsc::Receiver<Outcome>);

    impl Dial for Scripted {
        type Stream = DuplexStream;
        async fn dial(&mut self) -> Outcome {
            match self.0.recv().await {
                Some(outcome) => outcome,
                None => std::future::pending().await,
            }
        }
        async fn reason(&mut self, error: ClientError) -> ClientError {
            error
        }
        fn peer(&self) -> String {
            "test".to_owned()
        }
    }

    struct Server {
        lines: TokioLines<BufReader<ReadHalf<DuplexStream>>>,
        write: WriteHalf<DuplexStream>,
    }

    impl Server {
        fn pair() -> (DuplexStream, Self) {
            let (near, far) = tokio::io::duplex(256);
            let (read, write) = tokio::io::split(far);
            (
                near,
                Self {
                    lines: BufReader::new(read).lines(),
                    write,
                },
            )
        }
        async fn takes(&mut self) -> Value {
            serde_json::from_str(&self.lines.next_line().await.unwrap().unwrap()).unwrap()
        }
        async fn says(&mut self, line: &str) {
            self.write.write_all(line.as_bytes()).await.unwrap();
        }
    }

    /// The client's ends of the pipes, and the running bridge.
    struct Desk {
        input: Option<DuplexStream>,
        output: BufReader<DuplexStream>,
        connections: mpsc::Sender<Outcome>,
        told: Rc<RefCell<Vec<String>>>,
        bridge: tokio::task::JoinHandle<Result<(), ClientError>>,
    }

    impl Desk {
        fn new(patience: Duration) -> Self {
            let (input, inner_input) = tokio::io::duplex(256);
            let (output, inner_output) = tokio::io::duplex(256);
            let (connections, outcomes) = mpsc::channel(8);
            let options = BridgeOptions {
                first: Duration::from_secs(10),
                patience,
                backoff: Backoff::new(Duration::from_millis(1), Duration::from_millis(1)),
            };
            let told = Rc::<RefCell<Vec<String>>>::default();
            let telling = Rc::clone(&told);
            // The report is not `Send`, so the bridge is made where it runs.
            let bridge = tokio::task::spawn_local(async move {
                Bridge::new(
                    Scripted(outcomes),
                    inner_input,
                    inner_output,
                    options,
                    Box::new(move |line| telling.borrow_mut().push(line.to_owned())),
                )
                .run()
                .await
            });
            Self {
                input: Some(input),
                output: BufReader::new(output),
                connections,
                told,
                bridge,
            }
        }
        async fn connect(&self) -> Server {
            let (near, server) = Server::pair();
            self.connections.send(Ok(near)).await.unwrap();
            server
        }
        async fn writes(&mut self, text: &str) {
            self.input
                .as_mut()
                .unwrap()
                .write_all(text.as_bytes())
                .await
                .unwrap();
        }
        async fn reads(&mut self) -> String {
            let mut line = String::new();
            self.output.read_line(&mut line).await.unwrap();
            line
        }
        async fn reads_json(&mut self) -> Value {
            serde_json::from_str(&self.reads().await).unwrap()
        }
        /// How often it was told so.
        fn told(&self, what: &str) -> usize {
            let told = self.told.borrow();
            told.iter().filter(|line| line.ends_with(what)).count()
        }
        async fn ends(mut self) -> Result<(), ClientError> {
            self.input = None;
            let mut rest = String::new();
            self.output.read_to_string(&mut rest).await.unwrap();
            assert_eq!(rest, "");
            self.bridge.await.unwrap()
        }
    }

    async fn local<F: Future>(test: F) -> F::Output {
        tokio::task::LocalSet::new().run_until(test).await
    }

    #[tokio::test]
    async fn passes_bytes_in_both_directions_and_waits_for_the_last_answer() {
        local(async {
            let mut desk = Desk::new(Duration::from_secs(60));
            let mut server = desk.connect().await;
            // Spacing, escapes, a repeated key, `\r\n` and an empty line: none of it is ours to change.
            let odd = "{ \"id\" :1,\"method\":\"a\",\"x\":\"\\u0041\",\"x\":1.50}\r\n";
            desk.writes(&format!("{odd}\n{{\"method\":\"notifications/x\"}}\n"))
                .await;
            let mut got = vec![0; odd.len()];
            server.lines.get_mut().read_exact(&mut got).await.unwrap();
            assert_eq!(got, odd.as_bytes());
            assert_eq!(server.lines.next_line().await.unwrap().unwrap(), "");
            server.takes().await;
            desk.input = None;
            // Closed, but one answer is still to come.
            assert!(server.lines.next_line().await.unwrap().is_none());
            server.says("{\"method\":\"notifications/y\"}\r\n").await;
            let answer = "{\"result\":{ \"n\":1e2 },  \"id\":1}\n";
            server.says(answer).await;
            assert_eq!(desk.reads().await, "{\"method\":\"notifications/y\"}\r\n");
            assert_eq!(desk.reads().await, answer);
            // What comes after the last answer and before the server's end is passed on as well.
            server.says("{\"id\":null,\"error\":{}}\n").await;
            drop(server);
            assert_eq!(desk.reads().await, "{\"id\":null,\"error\":{}}\n");
            desk.ends().await.unwrap();
        })
        .await;
    }

    #[tokio::test]
    async fn answers_what_was_in_flight_and_goes_on_with_the_next_connection() {
        local(async {
            let mut desk = Desk::new(Duration::from_secs(60));
            let mut server = desk.connect().await;
            desk.writes("{\"id\":\"a\",\"method\":\"tools/call\"}\n{\"id\":2,\"method\":\"x\"}\n")
                .await;
            server.takes().await;
            server.takes().await;
            server.says("{\"id\":2,\"result\":{}}\n").await;
            assert_eq!(desk.reads_json().await["id"], 2);
            drop(server);
            let failed = desk.reads_json().await;
            assert_eq!(
                (&failed["id"], &failed["error"]["code"]),
                (&json!("a"), &json!(4503))
            );
            // Asked while there is no connection: held back, then served.
            desk.writes("{\"id\":3,\"method\":\"x\"}\n").await;
            let mut server = desk.connect().await;
            assert_eq!(server.takes().await["id"], 3);
            // A handshake may be over before the server has looked at the certificate: nothing is
            // told until it says something.
            assert_eq!(
                (desk.told("connecting again"), desk.told("`test` again")),
                (1, 0)
            );
            server.says("{\"id\":3,\"result\":{}}\n").await;
            assert_eq!(desk.reads_json().await["id"], 3);
            desk.writes("{\"id\":4,\"method\":\"x\"}\n").await;
            server.takes().await;
            server.says("{\"id\":4,\"result\":{}}\n").await;
            assert_eq!(desk.reads_json().await["id"], 4);
            assert_eq!(
                (desk.told("connecting again"), desk.told("`test` again")),
                (1, 1)
            );
            desk.input = None;
            assert!(server.lines.next_line().await.unwrap().is_none());
            drop(server);
            desk.ends().await.unwrap();
        })
        .await;
    }

    #[tokio::test]
    async fn opens_a_legacy_session_again_and_swallows_the_second_answer() {
        local(async {
            let mut desk = Desk::new(Duration::from_secs(60));
            let mut server = desk.connect().await;
            let initialize = "{\"id\":0,\"method\":\"initialize\",\"params\":{\"protocolVersion\":\"2025-11-25\"}}\n";
            let answer = "{\"id\":0,\"result\":{\"protocolVersion\":\"2025-11-25\"}}\n";
            desk.writes(initialize).await;
            let first = server.takes().await;
            server.says(answer).await;
            assert_eq!(desk.reads().await, answer);
            desk.writes("{\"method\":\"notifications/initialized\"}\n").await;
            let ready = server.takes().await;
            drop(server);
            let mut server = desk.connect().await;
            assert_eq!(server.takes().await, first);
            server.says(answer).await;
            assert_eq!(server.takes().await, ready);
            desk.writes("{\"id\":1,\"method\":\"ping\"}\n").await;
            assert_eq!(server.takes().await["id"], 1);
            server.says("{\"id\":1,\"result\":{}}\n").await;
            assert_eq!(desk.reads_json().await["id"], 1);
            assert_eq!(desk.told("`test` again"), 1);
            // A server that has become another one cannot carry the session on.
            desk.writes("{\"id\":2,\"method\":\"ping\"}\n").await;
            server.takes().await;
            drop(server);
            assert_eq!(desk.reads_json().await["id"], 2);
            let mut server = desk.connect().await;
            server.takes().await;
            server.says("{\"id\":0,\"result\":{\"protocolVersion\":\"2024-11-05\"}}\n").await;
            assert!(matches!(desk.ends().await, Err(ClientError::Protocol { .. })));
        })
        .await;
    }

    #[tokio::test]
    async fn a_refusal_ends_it_and_is_not_tried_again() {
        let refused = || {
            Err(ClientError::Refused {
                peer: "test".into(),
                alert: Alert::Revoked,
            })
        };
        local(async {
            let desk = Desk::new(Duration::from_secs(60));
            desk.connections.send(refused()).await.unwrap();
            assert!(matches!(
                desk.ends().await,
                Err(ClientError::Refused { .. })
            ));
            // The same on a reconnect: what came meanwhile is answered first.
            let mut desk = Desk::new(Duration::from_secs(60));
            let mut server = desk.connect().await;
            desk.writes("{\"id\":1,\"method\":\"x\"}\n").await;
            server.takes().await;
            drop(server);
            assert_eq!(desk.reads_json().await["id"], 1);
            desk.connections.send(refused()).await.unwrap();
            assert!(matches!(
                (&mut desk.bridge).await.unwrap(),
                Err(ClientError::Refused { .. })
            ));
            // And a connection that ends before the server has said anything was none.
            let mut desk = Desk::new(Duration::from_secs(60));
            drop(desk.connect().await);
            drop(desk.connect().await);
            let mut server = desk.connect().await;
            while desk.told("connecting again") < 2 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(desk.told("`test` again"), 0);
            server.says("{\"method\":\"notifications/y\"}\n").await;
            desk.reads().await;
            assert_eq!(desk.told("`test` again"), 1);
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn when_no_connection_comes_back_requests_are_answered_with_an_error() {
        local(async {
            let mut desk = Desk::new(Duration::from_secs(3));
            drop(desk.connect().await);
            desk.writes(
                "{\"id\":1,\"method\":\"x\"}\n{\"method\":\"n\"}\n{\"id\":2,\"method\":\"x\"}\n",
            )
            .await;
            for id in [1, 2] {
                let failed = desk.reads_json().await;
                assert_eq!(
                    (&failed["id"], &failed["error"]["code"]),
                    (&json!(id), &json!(4503))
                );
            }
            desk.ends().await.unwrap();
        })
        .await;
    }

    #[tokio::test]
    async fn a_slow_client_holds_the_server_back_and_requests_still_get_through() {
        local(async {
            let mut desk = Desk::new(Duration::from_secs(60));
            let mut server = desk.connect().await;
            // More than every buffer on the way holds, and nobody reads it.
            let flood = tokio::task::spawn_local(async move {
                for n in 0..20_000 {
                    server
                        .says(&format!(
                            "{{\"method\":\"notifications/n\",\"params\":{n}}}\n"
                        ))
                        .await;
                }
                server
            });
            desk.writes("{\"id\":1,\"method\":\"x\"}\n").await;
            assert!(!flood.is_finished());
            for n in 0..20_000 {
                assert_eq!(desk.reads_json().await["params"], n);
            }
            let mut server = flood.await.unwrap();
            assert_eq!(server.takes().await["id"], 1);
            server.says("{\"id\":1,\"result\":{}}\n").await;
            assert_eq!(desk.reads_json().await["id"], 1);
            desk.input = None;
            assert!(server.lines.next_line().await.unwrap().is_none());
            drop(server);
            desk.ends().await.unwrap();
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_does_not_end_the_session_is_left() {
        local(async {
            let mut desk = Desk::new(Duration::from_secs(60));
            let mut server = desk.connect().await;
            desk.writes("{\"id\":1,\"method\":\"subscriptions/listen\"}\n")
                .await;
            server.takes().await;
            desk.ends().await.unwrap();
        })
        .await;
    }
}
