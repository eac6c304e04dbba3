//! One message to the server and everything that comes back for it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use super::connector::{HttpClient, io_error};
use super::mirror::Head;
use super::session::Shared;
use crate::client::lines::MAX_LINE;
use crate::client::peek::{Peek, peek};
use crate::framing::Events;

/// The wait before a broken stream is taken up again, where the server names none.
const RESUME_AFTER: Duration = Duration::from_secs(1);
/// The longest wait that a server may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Times that one stream is taken up again without having brought anything.
const RESUMES: usize = 5;
/// Pages of the tool list that are read for the headers of one call.
const PAGES: usize = 100;
/// A server's own code for headers that do not say what the body says.
const HEADER_MISMATCH: i64 = -32020;

/// One connection's exchanges.
#[derive(Clone)]
pub struct Exchange {
    pub http: HttpClient<Full<Bytes>>,
    pub uri: Uri,
    pub peer: Arc<str>,
    pub shared: Arc<Shared>,
    /// Lines for the client.
    pub out: mpsc::Sender<Bytes>,
}

/// The connection, or the session on it, is lost.
#[derive(Debug)]
pub struct Lost(pub io::Error);

/// How a stream ended.
struct Break {
    /// Where it can be taken up again.
    last: Option<HeaderValue>,
    wait: Duration,
    /// Whether it brought anything.
    heard: bool,
    /// None: it ended in order.
    error: Option<io::Error>,
}

impl Exchange {
    /// Posts a message and passes on all that is answered; every request is answered in the end.
    pub async fn carry(self, line: Bytes, head: Head) -> Result<(), Lost> {
        let response = self.post(&line, &head).await?;
        if head.is("initialize") && response.status().is_success() {
            self.shared.opened(response.headers());
        }
        match kind(&response) {
            Kind::Events => self.follow(response, &head).await,
            Kind::Json if response.status().is_success() => {
                let body = whole(response).await?;
                self.answer(&head, &body).await;
                Ok(())
            }
            Kind::Json | Kind::Other => self.refused(response, &line, &head).await,
        }
    }

    async fn post(&self, line: &Bytes, head: &Head) -> Result<Response<Incoming>, Lost> {
        let mut request = self.request(Method::POST, Full::new(line.clone()));
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(
            ACCEPT,
            HeaderValue::from_static("application/json, text/event-stream"),
        );
        self.shared.headers(head, headers);
        self.send(request).await
    }

    fn request(&self, method: Method, body: Full<Bytes>) -> Request<Full<Bytes>> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = self.uri.clone();
        request
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Lost> {
        self.http
            .request(request)
            .await
            .map_err(|error| Lost(io_error(&error)))
    }

    /// Ends the session, if there is one.
    pub async fn end(&self) {
        if self.shared.is_open() {
            let mut request = self.request(Method::DELETE, Full::default());
            self.shared.legacy(request.headers_mut());
            // A server may keep its sessions for itself (405); then they run out.
            let _ = self.send(request).await;
        }
    }

    /// The stream of a legacy session on which the server speaks unasked, for as long as it lives.
    pub async fn stand_by(self) -> Result<(), Lost> {
        let everything = Head::of(b"");
        let mut idle = 0;
        let mut last = None;
        while idle < RESUMES {
            let response = self.get(last.take()).await?;
            match (response.status(), kind(&response)) {
                (StatusCode::NOT_FOUND, _) => return Err(self.session_lost()),
                (status, Kind::Events) if status.is_success() => {
                    let end = self.read(response, &everything).await;
                    let Some(end) = end else { return Ok(()) };
                    idle = if end.heard { 0 } else { idle + 1 };
                    last = end.last;
                    tokio::time::sleep(end.wait).await;
                }
                // A server without such a stream says 405.
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    async fn get(&self, last: Option<HeaderValue>) -> Result<Response<Incoming>, Lost> {
        let mut request = self.request(Method::GET, Full::default());
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        if let Some(last) = last {
            headers.insert("last-event-id", last);
        }
        self.shared.legacy(headers);
        self.send(request).await
    }

    /// Reads the stream of one request to its answer, over breaks where the server can go on.
    async fn follow(&self, response: Response<Incoming>, head: &Head) -> Result<(), Lost> {
        let Some(mut end) = self.read(response, head).await else {
            return Ok(());
        };
        let mut idle = 0;
        while head.is_request() && head.revision.is_none() && idle < RESUMES {
            let Some(last) = end.last.take() else { break };
            tokio::time::sleep(end.wait).await;
            let response = self.get(Some(last.clone())).await?;
            if !response.status().is_success() || !matches!(kind(&response), Kind::Events) {
                break;
            }
            let Some(next) = self.read(response, head).await else {
                return Ok(());
            };
            idle = if next.heard { 0 } else { idle + 1 };
            end = Break {
                last: next.last.or(Some(last)),
                ..next
            };
        }
        if let Some(error) = end.error {
            return Err(Lost(error));
        }
        self.give_up(head, "the answer's stream ended without the answer")
            .await;
        Ok(())
    }

    /// Passes a stream's messages on; nothing is returned once the request's answer was among them
    /// or the client is gone.
    async fn read(&self, response: Response<Incoming>, head: &Head) -> Option<Break> {
        let mut end = Break {
            last: None,
            wait: RESUME_AFTER,
            heard: false,
            error: None,
        };
        let (mut body, mut buffer) = (response.into_body(), BytesMut::new());
        let mut events = Events::new(MAX_LINE);
        loop {
            loop {
                let event = match events.next(&mut buffer) {
                    Ok(Some(event)) => event,
                    Ok(None) => break,
                    Err(error) => {
                        end.error = Some(io::Error::new(io::ErrorKind::InvalidData, error));
                        return Some(end);
                    }
                };
                end.heard = true;
                if let Some(id) = event.id {
                    end.last = HeaderValue::from_str(&id).ok();
                }
                if let Some(wait) = event.retry {
                    end.wait = wait.min(LONGEST_WAIT);
                }
                let data = event.data.filter(|data| !data.trim_ascii().is_empty());
                if event.kind.as_deref().unwrap_or("message") == "message"
                    && let Some(data) = data
                    && self.pass(head, &data).await
                {
                    return None;
                }
            }
            match body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        buffer.extend_from_slice(data);
                    }
                }
                Some(Err(error)) => {
                    end.error = Some(io_error(&error));
                    return Some(end);
                }
                None => return Some(end),
            }
        }
    }

    /// Passes a message on. True when it is the last one to be passed on.
    async fn pass(&self, head: &Head, message: &[u8]) -> bool {
        let last = match (peek(message), &head.id) {
            (Peek::Response { id }, Some(asked)) => id.key == asked.key,
            _ => false,
        };
        if last {
            self.shared.heard(head, message);
        }
        let gone = self.out.send(line_of(message)).await.is_err();
        last || gone
    }

    async fn answer(&self, head: &Head, body: &[u8]) {
        if !body.trim_ascii().is_empty() {
            self.pass(head, body).await;
        } else if head.is_request() {
            self.give_up(head, "the answer is empty").await;
        }
    }

    /// An answer that is neither a stream nor a success with a message.
    async fn refused(
        &self,
        response: Response<Incoming>,
        line: &Bytes,
        head: &Head,
    ) -> Result<(), Lost> {
        let status = response.status();
        if status == StatusCode::NOT_FOUND && head.revision.is_none() && self.shared.is_open() {
            return Err(self.session_lost());
        }
        if status.is_success() {
            if head.is_request() {
                self.give_up(
                    head,
                    &format!("it is answered with `{status}` and no message"),
                )
                .await;
            }
            return Ok(());
        }
        let json = matches!(kind(&response), Kind::Json);
        let body = whole(response).await?;
        let error = if json { rpc_error(&body) } else { None };
        if let (Some(HEADER_MISMATCH), Some(tool)) =
            (error.as_ref().map(|error| error.code), &head.name)
            && head.is("tools/call")
            && !self.shared.knows(tool)
        {
            self.learn_tools(head).await?;
            if self.shared.knows(tool) {
                return Box::pin(self.clone().carry(line.clone(), Head::of(line))).await;
            }
        }
        let Some(id) = head.id.as_ref().filter(|_| head.method.is_some()) else {
            // Nobody waits for an answer to a notification; but what could not be read at all is
            // answered without an id, as on every transport.
            if head.method.is_none() && error.is_some() {
                self.pass(head, &body).await;
            }
            return Ok(());
        };
        let text = match error {
            Some(error) => error_line(&id.token, error.raw.get()),
            None => crate::client::bridge::error(
                &id.token,
                &format!("`{}` answered with `{status}`", self.peer),
            ),
        };
        let _ = self.out.send(text).await;
        Ok(())
    }

    /// Reads the tool list for the sake of the headers that its schemas ask for.
    async fn learn_tools(&self, head: &Head) -> Result<(), Lost> {
        let Some(revision) = &head.revision else {
            return Ok(());
        };
        let mut cursor: Option<String> = None;
        for page in 0..PAGES {
            let mut params = serde_json::json!({"_meta": {
                "io.modelcontextprotocol/protocolVersion": revision,
                "io.modelcontextprotocol/clientCapabilities": {},
            }});
            if let Some(cursor) = &cursor {
                params["cursor"] = cursor.as_str().into();
            }
            let list = serde_json::json!({"jsonrpc": "2.0", "id": format!("countersign-{page}"), "method": "tools/list", "params": params});
            let line = Bytes::from(list.to_string());
            let response = self.post(&line, &Head::of(&line)).await?;
            if !matches!(kind(&response), Kind::Json) {
                return Ok(());
            }
            cursor = self.shared.learn(&whole(response).await?);
            if cursor.is_none() {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn give_up(&self, head: &Head, why: &str) {
        if let Some(id) = head.id.as_ref().filter(|_| head.is_request()) {
            // Without a client there is nobody to tell.
            let _ = self
                .out
                .send(crate::client::bridge::error(&id.token, why))
                .await;
        }
    }

    /// A server that does not know the session any more: another connection opens another one.
    fn session_lost(&self) -> Lost {
        Lost(io::ErrorKind::ConnectionAborted.into())
    }
}

enum Kind {
    Json,
    Events,
    Other,
}

fn kind<B>(response: &Response<B>) -> Kind {
    let value = response
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let essence = value
        .unwrap_or("")
        .split(';')
        .next()
        .unwrap_or("")
        .trim()
        .to_ascii_lowercase();
    match essence.as_str() {
        "application/json" => Kind::Json,
        "text/event-stream" => Kind::Events,
        _ => Kind::Other,
    }
}

async fn whole(response: Response<Incoming>) -> Result<Bytes, Lost> {
    let body = Limited::new(response.into_body(), MAX_LINE).collect().await;
    body.map(http_body_util::Collected::to_bytes)
        .map_err(|error| Lost(io_error(&*error)))
}

/// One message as one line.
fn line_of(message: &[u8]) -> Bytes {
    let mut line = message.trim_ascii().to_vec();
    // Between JSON tokens a line break is white space, inside a string it cannot be.
    for byte in &mut line {
        if matches!(*byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    line.push(b'\n');
    line.into()
}

struct RpcFault {
    code: i64,
    raw: Box<RawValue>,
}

/// The error of a JSON-RPC message.
fn rpc_error(body: &[u8]) -> Option<RpcFault> {
    #[derive(Deserialize)]
    struct Message {
        error: Box<RawValue>,
    }
    #[derive(Deserialize)]
    struct Code {
        code: i64,
    }
    let message: Message = serde_json::from_slice(body).ok()?;
    let Code { code } = serde_json::from_str(message.error.get()).ok()?;
    Some(RpcFault {
        code,
        raw: message.error,
    })
}

/// The error as the answer to this request: over HTTP it may come without an id.
fn error_line(id: &str, error: &str) -> Bytes {
    line_of(format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{error}}}").as_bytes())
}
