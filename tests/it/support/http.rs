//! An HTTP client on hyper and, for what no client library sends, on bytes.

use std::future::poll_fn;
use std::pin::Pin;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::{http1, http2};
use hyper::http::response::Parts;
use hyper::{HeaderMap, Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::client::Client;
use super::pki::{Certified, PATIENCE};
use super::served::{Served, Site, modern, tls};

/// A whole body.
#[derive(Clone)]
pub struct Whole(pub Option<Bytes>);

impl Body for Whole {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Ready(self.get_mut().0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

enum Sender {
    One(http1::SendRequest<Whole>),
    Two(http2::SendRequest<Whole>),
}

/// What every answer says, whoever gives it.
const SECURITY: [(&str, &str); 4] = [
    ("x-content-type-options", "nosniff"),
    ("cache-control", "no-store"),
    ("referrer-policy", "no-referrer"),
    (
        "content-security-policy",
        "default-src 'none'; frame-ancestors 'none'",
    ),
];

/// Each answer in this text of HTTP/1.1 has the security headers.
pub fn each_is_secured(answers: &str) {
    for (at, _) in answers.match_indices("HTTP/1.1 ") {
        let head = answers[at..].split("\r\n\r\n").next().unwrap();
        let head = head.to_ascii_lowercase();
        for (name, value) in SECURITY {
            assert!(head.contains(&format!("\r\n{name}: {value}")), "{head}");
        }
    }
}

fn is_secured(head: &Parts) {
    for (name, value) in SECURITY {
        let said = head.headers.get(name).and_then(|said| said.to_str().ok());
        assert!(said.is_some_and(|said| said.starts_with(value)), "{head:?}");
    }
}

/// One HTTP connection.
pub struct Web {
    sender: Sender,
    pub session: Option<String>,
    pub revision: &'static str,
    next_id: u64,
    driver: tokio::task::JoinHandle<()>,
}

/// An answer, whole.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The JSON of the body, or of the last event of a stream.
    pub fn json(&self) -> Value {
        let text = if self.header("content-type") == Some("text/event-stream") {
            let last = self.body.lines().rfind(|line| line.starts_with("data: {"));
            last.and_then(|line| line.strip_prefix("data: "))
                .unwrap_or_default()
        } else {
            &self.body
        };
        serde_json::from_str(text).unwrap_or_else(|_| panic!("{self:?}"))
    }
}

/// An answer that is a stream of events.
pub struct Events {
    pub status: u16,
    pub headers: HeaderMap,
    body: Incoming,
    text: String,
}

/// One event.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Event {
    pub id: Option<String>,
    pub retry: Option<String>,
    pub data: Option<String>,
}

impl Event {
    pub fn json(&self) -> Value {
        serde_json::from_str(self.data.as_deref().unwrap()).unwrap()
    }
}

impl Events {
    /// The next event; comments are passed over. None at the end.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                let mut event = Event::default();
                for line in block.lines() {
                    match line
                        .split_once(": ")
                        .unwrap_or((line.trim_end_matches(':'), ""))
                    {
                        ("id", value) => event.id = Some(value.to_owned()),
                        ("retry", value) => event.retry = Some(value.to_owned()),
                        ("data", value) => event.data = Some(value.to_owned()),
                        _ => (),
                    }
                }
                if event != Event::default() {
                    return Some(event);
                }
            }
            let body = &mut self.body;
            let frame =
                tokio::time::timeout(PATIENCE, poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)));
            match frame.await.expect("an event in time") {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.text.push_str(std::str::from_utf8(&data).unwrap());
                    }
                }
                Some(Err(_)) | None => return None,
            }
        }
    }

    pub async fn json(&mut self) -> Value {
        self.next().await.expect("an event").json()
    }
}

impl Web {
    pub async fn http1(site: &Site, served: &Served, certified: &Certified) -> Self {
        let stream = Self::stream(site, served, certified, "http/1.1").await;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let driver = tokio::spawn(async move { drop(connection.await) });
        Self::over(Sender::One(sender), driver)
    }

    pub async fn http2(site: &Site, served: &Served, certified: &Certified) -> Self {
        let stream = Self::stream(site, served, certified, "h2").await;
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, connection) = handshake.await.unwrap();
        let driver = tokio::spawn(async move { drop(connection.await) });
        Self::over(Sender::Two(sender), driver)
    }

    fn over(sender: Sender, driver: tokio::task::JoinHandle<()>) -> Self {
        Self {
            sender,
            session: None,
            revision: "2025-11-25",
            next_id: 0,
            driver,
        }
    }

    /// TLS with this ALPN.
    pub async fn stream(
        site: &Site,
        served: &Served,
        certified: &Certified,
        alpn: &str,
    ) -> TlsStream<TcpStream> {
        let client = Client::of(certified, &site.server_root).offering(&[alpn]);
        let stream = tls(&client, served.address).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(alpn.as_bytes()));
        stream
    }

    /// Whether the connection is still there.
    pub fn is_open(&self) -> bool {
        !self.driver.is_finished()
    }

    /// Waits until the server has ended the connection.
    pub async fn closed(&mut self) {
        let driver = &mut self.driver;
        tokio::time::timeout(PATIENCE, driver)
            .await
            .expect("ends in time")
            .unwrap();
    }

    pub async fn send(
        &mut self,
        request: Request<Whole>,
    ) -> Result<Response<Incoming>, hyper::Error> {
        let sent = async {
            match &mut self.sender {
                Sender::One(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await
                }
                Sender::Two(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await
                }
            }
        };
        tokio::time::timeout(PATIENCE, sent)
            .await
            .expect("an answer in time")
    }

    /// A second sender over the same HTTP/2 connection.
    pub fn http2_sender(&self) -> http2::SendRequest<Whole> {
        match &self.sender {
            Sender::Two(sender) => sender.clone(),
            Sender::One(_) => panic!("HTTP/1.1 has one"),
        }
    }

    /// A request with `Host` (HTTP/1.1) or `:authority` (HTTP/2), and these fields.
    pub fn request(
        &self,
        method: Method,
        path: &str,
        fields: &[(&str, &str)],
        body: Option<String>,
    ) -> Request<Whole> {
        let (uri, host) = match self.sender {
            Sender::One(_) => (path.to_owned(), true),
            Sender::Two(_) => (format!("https://localhost{path}"), false),
        };
        let mut request = Request::builder().method(method).uri(uri);
        if host && !fields.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", "localhost");
        }
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(Whole(body.map(Bytes::from))).unwrap()
    }

    /// Sends and reads the whole answer.
    pub async fn whole(&mut self, request: Request<Whole>) -> Answer {
        let response = self.send(request).await.expect("an answer");
        whole(response).await
    }

    /// Sends and gives the stream of the answer.
    pub async fn events(&mut self, request: Request<Whole>) -> Events {
        let response = self.send(request).await.expect("an answer");
        let (head, body) = response.into_parts();
        is_secured(&head);
        Events {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
            text: String::new(),
        }
    }

    /// The `POST` of a message with these fields beside the usual ones.
    pub fn post(&self, fields: &[(&str, &str)], message: &Value) -> Request<Whole> {
        let mut all = vec![
            ("content-type", "application/json"),
            ("accept", "application/json, text/event-stream"),
        ];
        all.extend_from_slice(fields);
        self.request(Method::POST, "/mcp", &all, Some(message.to_string()))
    }

    /// The `POST` of a modern request, with the headers that belong to it.
    pub fn modern(&mut self, method: &str, params: Value) -> Request<Whole> {
        self.next_id += 1;
        let message = modern(self.next_id, method, params);
        let name = message["params"]["name"]
            .as_str()
            .or(message["params"]["uri"].as_str());
        let mut fields = vec![
            ("mcp-protocol-version", "2026-07-28"),
            ("mcp-method", method),
        ];
        fields.extend(name.map(|name| ("mcp-name", name)));
        self.post(&fields, &message)
    }

    /// A modern request and its answer.
    pub async fn ask(&mut self, method: &str, params: Value) -> Value {
        let request = self.modern(method, params);
        self.whole(request).await.json()
    }

    /// The fields of a session.
    pub fn of_session(&self) -> Vec<(&str, &str)> {
        let mut fields = vec![("mcp-protocol-version", self.revision)];
        fields.extend(self.session.as_deref().map(|id| ("mcp-session-id", id)));
        fields
    }

    /// `initialize` and `notifications/initialized`.
    pub async fn initialize(&mut self, revision: &'static str, capabilities: Value) -> Answer {
        let params = json!({"protocolVersion":revision,"capabilities":capabilities,
            "clientInfo":{"name":"test","version":"1"}});
        let message = json!({"jsonrpc":"2.0","id":"init","method":"initialize","params":params});
        let request = self.post(&[], &message);
        let answer = self.whole(request).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        self.session = Some(answer.header("mcp-session-id").unwrap().to_owned());
        self.revision = revision;
        let told = self.tell("notifications/initialized", json!({})).await;
        assert_eq!((told.status, told.body.as_str()), (202, ""));
        answer
    }

    /// A notification in the session.
    pub async fn tell(&mut self, method: &str, params: Value) -> Answer {
        let message = json!({"jsonrpc":"2.0","method":method,"params":params});
        let request = self.post(&self.of_session(), &message);
        self.whole(request).await
    }

    /// A request in the session.
    pub fn bare(&mut self, method: &str, params: Value) -> Request<Whole> {
        self.next_id += 1;
        let id = self.next_id;
        let message = json!({"jsonrpc":"2.0","id":id,"method":method,"params":params});
        self.post(&self.of_session(), &message)
    }

    /// A request in the session and its answer.
    pub async fn ask_bare(&mut self, method: &str, params: Value) -> Value {
        let request = self.bare(method, params);
        self.whole(request).await.json()
    }

    /// `GET` in the session.
    pub async fn listen(&mut self, last: Option<&str>) -> Events {
        let mut fields = self.of_session();
        fields.push(("accept", "text/event-stream"));
        fields.extend(last.map(|last| ("last-event-id", last)));
        let request = self.request(Method::GET, "/mcp", &fields, None);
        self.events(request).await
    }
}

/// Reads an answer to its end.
pub async fn whole(response: Response<Incoming>) -> Answer {
    let (head, mut body) = response.into_parts();
    is_secured(&head);
    let mut bytes = Vec::new();
    loop {
        let frame = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx));
        match tokio::time::timeout(PATIENCE, frame)
            .await
            .expect("a body in time")
        {
            Some(Ok(frame)) => bytes.extend(frame.into_data().unwrap_or_default()),
            Some(Err(error)) => panic!("{error}"),
            None => break,
        }
    }
    let body = String::from_utf8(bytes).unwrap();
    Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body,
    }
}

/// A connection on which any bytes can be sent.
pub struct RawHttp {
    pub stream: TlsStream<TcpStream>,
}

impl RawHttp {
    pub async fn open(site: &Site, served: &Served, certified: &Certified) -> Self {
        Self {
            stream: Web::stream(site, served, certified, "http/1.1").await,
        }
    }

    pub async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Sends, and whether anything was answered.
    pub async fn try_send(&mut self, text: &str) -> bool {
        let sent = self.stream.write_all(text.as_bytes()).await.is_ok();
        let mut some = [0; 512];
        sent && self.stream.flush().await.is_ok()
            && self
                .stream
                .read(&mut some)
                .await
                .is_ok_and(|count| count > 0)
    }

    /// Everything until the server closes.
    pub async fn rest(&mut self) -> String {
        let mut all = Vec::new();
        let reading = async {
            let mut some = [0; 4096];
            while let Ok(count @ 1..) = self.stream.read(&mut some).await {
                all.extend_from_slice(&some[..count]);
            }
        };
        tokio::time::timeout(PATIENCE, reading)
            .await
            .expect("the server closes in time");
        let all = String::from_utf8_lossy(&all).into_owned();
        each_is_secured(&all);
        all
    }

    /// The head of the next answer, with what came of the body.
    pub async fn head(&mut self) -> String {
        let mut all = String::new();
        let mut some = [0; 4096];
        while !all.contains("\r\n\r\n") {
            let read = tokio::time::timeout(PATIENCE, self.stream.read(&mut some));
            let count = read.await.expect("an answer in time").unwrap();
            assert!(count > 0, "the server closed: {all}");
            all.push_str(&String::from_utf8_lossy(&some[..count]));
        }
        each_is_secured(&all);
        all
    }
}
