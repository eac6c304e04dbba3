//! One connection, one request at a time: write a line, read until its answer.

use std::future::{Future, pending};
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::fault::ClientError;
use super::lines::{LineError, Lines, MAX_LINE};
use super::message::{self, Event, Incoming, Request};
use crate::peer::Agreed;

/// How long a given-up call may take to be acknowledged by the end of the stream.
const GRACE: Duration = Duration::from_millis(500);
/// How long the alert behind a failed write may take.
const LAST_WORD: Duration = Duration::from_millis(500);
/// Pages of one listing, and rounds of one request that is sent again with the server's state.
const MAX_PAGES: usize = 1000;
const MAX_ROUNDS: usize = 10;

/// Why the caller gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A person pressed Ctrl-C.
    Interrupted,
    /// The time that was given is over.
    Timeout(Duration),
}

/// Every page of a listing.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The elements of all pages, raw, in the server's order.
    pub items: Vec<Box<RawValue>>,
    /// The result itself, where there was only one page.
    pub only: Option<Box<RawValue>>,
}

/// An MCP client over one byte stream.
///
/// Does nothing at the same time: a second request waits for the first one's answer. That is what a
/// command line needs; programs use an SDK through `connect`.
#[derive(Debug)]
pub struct Client<S> {
    stream: S,
    lines: Lines,
    peer: String,
    agreed: Option<Agreed>,
    next_id: u64,
    heard: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// `peer`: how messages call the server.
    pub fn over(stream: S, peer: impl Into<String>) -> Self {
        Self {
            stream,
            lines: Lines::new(MAX_LINE),
            peer: peer.into(),
            agreed: None,
            next_id: 1,
            heard: false,
        }
    }

    /// With what the handshake agreed on, for [`Self::agreed`].
    #[must_use]
    pub fn with_agreed(mut self, agreed: Agreed) -> Self {
        self.agreed = Some(agreed);
        self
    }

    /// What the TLS handshake agreed on, where there was one.
    #[must_use]
    pub fn agreed(&self) -> Option<Agreed> {
        self.agreed
    }

    /// How messages call the server.
    #[must_use]
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// One request to its result, hearing nothing on the way.
    ///
    /// # Errors
    /// As [`Self::request_until`].
    pub async fn request(&mut self, request: &Request<'_>) -> Result<Box<RawValue>, ClientError> {
        self.request_until(request, &mut |_| {}, &mut Box::pin(pending()))
            .await
    }

    /// One request to its result. `on` hears progress and logs; when `stop` is ready the call is
    /// cancelled on the server, and the connection is of no further use.
    ///
    /// # Errors
    /// The connection, the protocol, a JSON-RPC error, or the stop.
    pub async fn request_until(
        &mut self,
        request: &Request<'_>,
        on: &mut (dyn FnMut(Event) + Send),
        stop: &mut (dyn Future<Output = Stop> + Unpin + Send),
    ) -> Result<Box<RawValue>, ClientError> {
        let mut request = request.clone();
        let given = request.params.len();
        for _ in 0..MAX_ROUNDS {
            let result = self.round(&request, on, stop).await?;
            let Some(state) = self.state_to_return(&result)? else {
                return Ok(result);
            };
            request.params.truncate(given);
            request.params.push(("requestState", state));
        }
        Err(self.protocol("it asks again and again for the same request"))
    }

    /// Every element under `key` of a list method, over all pages.
    ///
    /// # Errors
    /// As [`Self::request_until`], or a server that never comes to an end.
    pub async fn list(
        &mut self,
        method: &str,
        key: &str,
        stop: &mut (dyn Future<Output = Stop> + Unpin + Send),
    ) -> Result<Listing, ClientError> {
        let mut listing = Listing {
            items: Vec::new(),
            only: None,
        };
        let mut cursor: Option<String> = None;
        for page in 0..MAX_PAGES {
            let mut request = Request::new(method);
            if let Some(cursor) = &cursor {
                request = request.with_text("cursor", cursor);
            }
            let result = self.request_until(&request, &mut |_| {}, stop).await?;
            let next = self.page(&result, key, &mut listing.items)?;
            if next.is_none() {
                listing.only = (page == 0).then_some(result);
                return Ok(listing);
            }
            if next == cursor {
                return Err(self.protocol("a page of its list leads back to itself"));
            }
            cursor = next;
        }
        Err(self.protocol("its list has more than 1000 pages"))
    }

    /// Closes the write side, so that the server ends the session; nothing can be asked any more.
    pub async fn close(&mut self) {
        // The server learns of the end one way or the other; nothing is waiting for an answer.
        let _ = self.stream.shutdown().await;
    }

    async fn round(
        &mut self,
        request: &Request<'_>,
        on: &mut (dyn FnMut(Event) + Send),
        stop: &mut (dyn Future<Output = Stop> + Unpin + Send),
    ) -> Result<Box<RawValue>, ClientError> {
        let id = self.next_id;
        self.next_id += 1;
        let line = request.line(id);
        let why = tokio::select! {
            biased;
            sent = self.send(&line) => { sent?; None }
            why = &mut *stop => Some(why),
        };
        if let Some(why) = why {
            // Part of a line may be out: nothing can follow it on this connection.
            return Err(self.stopped(why));
        }
        loop {
            let line = tokio::select! {
                biased;
                line = self.lines.next(&mut self.stream) => line,
                why = &mut *stop => {
                    self.cancel(id, why).await;
                    return Err(self.stopped(why));
                }
            };
            let line = match line {
                Ok(Some(line)) => line,
                Ok(None) => return Err(self.closed()),
                Err(cause) => return Err(ClientError::of_line(&self.peer, cause, self.heard)),
            };
            self.heard = true;
            match message::read(&line, id).map_err(|cause| self.protocol(&cause))? {
                Some(Incoming::Result(result)) => return Ok(result),
                Some(Incoming::Error(error)) => return Err(ClientError::Answered(error)),
                Some(Incoming::Event(event)) => on(event),
                Some(Incoming::Other) | None => {}
            }
        }
    }

    async fn send(&mut self, line: &[u8]) -> Result<(), ClientError> {
        let sent = match self.stream.write_all(line).await {
            Ok(()) => self.stream.flush().await,
            failed => failed,
        };
        let Err(cause) = sent else { return Ok(()) };
        // A server that refused us may have closed already; its alert, if it came, says more than the
        // failed write.
        match tokio::time::timeout(LAST_WORD, self.lines.next(&mut self.stream)).await {
            Ok(Err(LineError::Io(read))) if read.get_ref().is_some() => {
                Err(ClientError::of_io(&self.peer, &read, self.heard))
            }
            _ => Err(ClientError::of_io(&self.peer, &cause, self.heard)),
        }
    }

    /// Tells the server, then waits briefly for it to end the stream: a process that exits at once
    /// could take the notification with it.
    async fn cancel(&mut self, id: u64, why: Stop) {
        let reason = match why {
            Stop::Interrupted => "interrupted by the user",
            Stop::Timeout(_) => "no answer in time",
        };
        let farewell = async {
            self.stream
                .write_all(&message::cancelled(id, reason))
                .await?;
            self.stream.shutdown().await?;
            while let Ok(Some(_)) = self.lines.next(&mut self.stream).await {}
            Ok::<(), std::io::Error>(())
        };
        // Whatever fails here: the caller has given up already.
        let _ = tokio::time::timeout(GRACE, farewell).await;
    }

    fn stopped(&self, why: Stop) -> ClientError {
        match why {
            Stop::Interrupted => ClientError::Cancelled,
            Stop::Timeout(after) => ClientError::Timeout {
                peer: self.peer.clone(),
                after,
            },
        }
    }

    fn closed(&self) -> ClientError {
        ClientError::Closed {
            peer: self.peer.clone(),
            heard: self.heard,
        }
    }

    fn protocol(&self, cause: &str) -> ClientError {
        ClientError::Protocol {
            peer: self.peer.clone(),
            cause: cause.to_owned(),
        }
    }

    /// `requestState` of a result that asks for the same request again without wanting anything from
    /// a person; `None` for a complete result.
    fn state_to_return(&self, result: &RawValue) -> Result<Option<Box<RawValue>>, ClientError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Kind {
            result_type: Option<String>,
            request_state: Option<Box<RawValue>>,
            input_requests: Option<Box<RawValue>>,
        }
        let kind: Kind = serde_json::from_str(result.get())
            .map_err(|cause| self.protocol(&cause.to_string()))?;
        match kind.result_type.as_deref() {
            None | Some("complete") => Ok(None),
            Some("input_required")
                if kind.input_requests.is_none() && kind.request_state.is_some() =>
            {
                Ok(kind.request_state)
            }
            Some("input_required") => {
                Err(self.protocol("it asks for input, which this client did not offer"))
            }
            Some(other) => {
                Err(self.protocol(&format!("its result is of the unknown type `{other}`")))
            }
        }
    }

    /// Appends one page's elements and gives the next page's cursor.
    fn page(
        &self,
        result: &RawValue,
        key: &str,
        items: &mut Vec<Box<RawValue>>,
    ) -> Result<Option<String>, ClientError> {
        let bad = |cause: serde_json::Error| self.protocol(&cause.to_string());
        let members: std::collections::HashMap<String, Box<RawValue>> =
            serde_json::from_str(result.get()).map_err(bad)?;
        let page = members
            .get(key)
            .ok_or_else(|| self.protocol(&format!("its list has no `{key}`")))?;
        let page: Vec<Box<RawValue>> = serde_json::from_str(page.get()).map_err(bad)?;
        items.extend(page);
        match members.get("nextCursor") {
            None => Ok(None),
            Some(cursor) => serde_json::from_str(cursor.get()).map_err(bad),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use tokio::io::{AsyncBufReadExt, BufReader, DuplexStream};

    type Step = Box<dyn Fn(&Value) -> Vec<Value> + Send>;

    /// A scripted server: each step takes one line and writes what the step says.
    async fn script(far: DuplexStream, steps: Vec<Step>) -> Vec<Value> {
        let (read, mut write) = tokio::io::split(far);
        let mut lines = BufReader::new(read).lines();
        let mut seen = Vec::new();
        for step in steps {
            let Some(line) = lines.next_line().await.unwrap() else {
                return seen;
            };
            let message: Value = serde_json::from_str(&line).unwrap();
            for answer in step(&message) {
                write
                    .write_all(format!("{answer}\n").as_bytes())
                    .await
                    .unwrap();
            }
            seen.push(message);
        }
        while let Some(line) = lines.next_line().await.unwrap() {
            seen.push(serde_json::from_str(&line).unwrap());
        }
        seen
    }

    fn result(message: &Value, result: Value) -> Value {
        json!({"jsonrpc": "2.0", "id": message["id"], "result": result})
    }

    #[tokio::test]
    async fn hears_progress_and_returns_the_result_byte_for_byte() {
        let (near, far) = tokio::io::duplex(1024);
        let server = tokio::spawn(async move {
            let (read, mut write) = tokio::io::split(far);
            let line = BufReader::new(read)
                .lines()
                .next_line()
                .await
                .unwrap()
                .unwrap();
            let id = serde_json::from_str::<Value>(&line).unwrap()["id"].clone();
            let progress = json!({"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":id,"progress":1,"total":2}});
            // A late answer to somebody else, an empty line, white space inside: all of it is allowed.
            let text = format!(
                "{{\"jsonrpc\":\"2.0\",\"id\":99,\"result\":{{}}}}\r\n\r\n{progress}\n{{\"id\":{id}, \"result\": {{\"n\": 1.50}},\"jsonrpc\":\"2.0\"}}\n"
            );
            for byte in text.as_bytes() {
                write.write_all(&[*byte]).await.unwrap();
            }
        });
        let mut client = Client::over(near, "test");
        let mut heard = Vec::new();
        let mut request = Request::new("tools/call").with_text("name", "x");
        request.progress = true;
        let result = client
            .request_until(
                &request,
                &mut |event| heard.push(event),
                &mut Box::pin(pending()),
            )
            .await
            .unwrap();
        assert_eq!(result.get(), r#"{"n": 1.50}"#);
        assert!(matches!(
            heard[..],
            [Event::Progress {
                total: Some(2.0),
                ..
            }]
        ));
        server.await.unwrap();
    }

    #[tokio::test]
    async fn an_error_an_end_and_nonsense_are_told_apart() {
        let (near, far) = tokio::io::duplex(1024);
        let server = tokio::spawn(script(
            far,
            vec![Box::new(|m| {
                vec![
                    json!({"jsonrpc":"2.0","id":m["id"],"error":{"code":4403,"message":"no","data":{"grant":"tools:x"}}}),
                ]
            })],
        ));
        let mut client = Client::over(near, "test");
        let error = client
            .request(&Request::new("tools/call"))
            .await
            .unwrap_err();
        let ClientError::Answered(answer) = &error else {
            panic!("{error}")
        };
        assert_eq!(
            (answer.code, answer.data.as_ref().unwrap().get()),
            (4403, r#"{"grant":"tools:x"}"#)
        );
        assert_eq!(error.fault(), super::super::fault::Fault::Caller);
        client.close().await;
        server.await.unwrap();

        let (near, far) = tokio::io::duplex(1024);
        drop(far);
        let error = Client::over(near, "test")
            .request(&Request::new("x"))
            .await
            .unwrap_err();
        assert!(
            matches!(error, ClientError::Closed { heard: false, .. }),
            "{error}"
        );

        let (near, mut far) = tokio::io::duplex(1024);
        far.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        let error = Client::over(near, "test")
            .request(&Request::new("x"))
            .await
            .unwrap_err();
        assert!(matches!(error, ClientError::Protocol { .. }), "{error}");
    }

    #[tokio::test]
    async fn giving_up_cancels_this_very_request_on_the_server() {
        let (near, far) = tokio::io::duplex(1024);
        let (started, starts) = tokio::sync::oneshot::channel();
        let started = std::sync::Mutex::new(Some(started));
        let server = tokio::spawn(script(
            far,
            vec![Box::new(move |_| {
                started.lock().unwrap().take().unwrap().send(()).unwrap();
                vec![]
            })],
        ));
        let mut client = Client::over(near, "test");
        let mut stop = Box::pin(async {
            starts
                .await
                .map_or(Stop::Interrupted, |()| Stop::Interrupted)
        });
        let error = client
            .request_until(&Request::new("tools/call"), &mut |_| {}, &mut stop)
            .await
            .unwrap_err();
        assert!(matches!(error, ClientError::Cancelled));
        let seen = server.await.unwrap();
        assert_eq!(seen.len(), 2);
        assert_eq!(seen[1]["method"], "notifications/cancelled");
        assert_eq!(seen[1]["params"]["requestId"], seen[0]["id"]);
    }

    #[tokio::test]
    async fn a_list_is_all_of_its_pages() {
        let (near, far) = tokio::io::duplex(1024);
        let server = tokio::spawn(script(
            far,
            vec![
                Box::new(|m| {
                    vec![result(
                        m,
                        json!({"tools": [{"name": "a"}], "nextCursor": ""}),
                    )]
                }),
                Box::new(|m| vec![result(m, json!({"tools": [{"name": "b"}]}))]),
            ],
        ));
        let mut client = Client::over(near, "test");
        let listing = client
            .list("tools/list", "tools", &mut Box::pin(pending()))
            .await
            .unwrap();
        assert_eq!(
            listing.items.iter().map(|i| i.get()).collect::<Vec<_>>(),
            [r#"{"name":"a"}"#, r#"{"name":"b"}"#]
        );
        assert!(listing.only.is_none());
        client.close().await;
        let seen = server.await.unwrap();
        // The empty string is a cursor like any other.
        assert_eq!(
            (
                seen[0]["params"].get("cursor"),
                &seen[1]["params"]["cursor"]
            ),
            (None, &json!(""))
        );
        assert_ne!(seen[0]["id"], seen[1]["id"]);
    }

    #[tokio::test]
    async fn returns_the_servers_state_and_refuses_to_invent_input() {
        let (near, far) = tokio::io::duplex(1024);
        let server = tokio::spawn(script(
            far,
            vec![
                Box::new(|m| {
                    vec![result(
                        m,
                        json!({"resultType": "input_required", "requestState": "s1"}),
                    )]
                }),
                Box::new(|m| vec![result(m, json!({"resultType": "complete", "content": []}))]),
                Box::new(|m| {
                    vec![result(
                        m,
                        json!({"resultType": "input_required", "requestState": "s", "inputRequests": {"a": {}}}),
                    )]
                }),
            ],
        ));
        let mut client = Client::over(near, "test");
        let request = Request::new("tools/call").with_text("name", "x");
        client.request(&request).await.unwrap();
        assert!(matches!(
            client.request(&request).await,
            Err(ClientError::Protocol { .. })
        ));
        client.close().await;
        let seen = server.await.unwrap();
        assert_eq!(
            (
                &seen[1]["params"]["requestState"],
                &seen[1]["params"]["name"]
            ),
            (&json!("s1"), &json!("x"))
        );
    }
}
