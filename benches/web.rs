//! The load over WebSocket and HTTP: the same message, the same connections, against a floor and
//! against Countersign.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::floor::Speech;
use crate::load::{self, CallCost, Counts, Expect, Line, Outcome};
use crate::pki::Pki;
use crate::process::{Memory, Server};

/// What is spoken, and in which era.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    WebSocket,
    Http1,
    /// With a session of an older revision.
    Legacy,
    Http2,
}

impl Way {
    pub(crate) const fn speech(self) -> Speech {
        match self {
            Self::WebSocket => Speech::Websocket,
            Self::Http1 | Self::Legacy => Speech::Http1,
            Self::Http2 => Speech::Http2,
        }
    }

    const fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http2 => b"h2",
            _ => b"http/1.1",
        }
    }

    fn line(self) -> Line {
        match self {
            Self::Legacy => Line::legacy_call("self__whoami", "{}"),
            _ => Line::call("self__whoami", "{}"),
        }
    }
}

/// What every call of the modern era says in its head.
const HEAD: [(&str, &str); 5] = [
    ("content-type", "application/json"),
    ("accept", "application/json, text/event-stream"),
    ("mcp-protocol-version", "2026-07-28"),
    ("mcp-method", "tools/call"),
    ("mcp-name", "self__whoami"),
];

/// One connection, or on HTTP/2 a part of one.
pub(crate) struct Talker {
    kind: Kind,
    line: Line,
    expect: Expect,
    first: bool,
}

enum Kind {
    WebSocket(Wire),
    /// The head up to the body's length.
    Http1(Wire, String),
    Http2(SendRequest<Full<Bytes>>, HeaderMap),
}

/// A connection and what was read of it.
struct Wire {
    stream: TlsStream<TcpStream>,
    /// What is to be sent.
    out: Vec<u8>,
    got: Vec<u8>,
}

impl Talker {
    pub(crate) async fn open(
        server: &Server,
        config: &Arc<ClientConfig>,
        way: Way,
        expect: Expect,
    ) -> Outcome<Self> {
        let stream = load::connect(server.address, config).await?;
        let wire = Wire {
            stream,
            out: Vec::new(),
            got: Vec::new(),
        };
        let kind = match way {
            Way::WebSocket => Kind::WebSocket(wire.upgraded().await?),
            Way::Http1 => {
                let fields = HEAD.map(|(name, value)| format!("{name}: {value}\r\n"));
                Kind::Http1(wire, fields.concat())
            }
            Way::Legacy => legacy(wire).await?,
            Way::Http2 => {
                let (sender, connection) =
                    http2::handshake(TokioExecutor::new(), TokioIo::new(wire.stream)).await?;
                tokio::spawn(connection);
                let fields = HEAD.iter().map(|(name, value)| {
                    (
                        HeaderName::from_static(name),
                        HeaderValue::from_static(value),
                    )
                });
                Kind::Http2(sender, fields.collect())
            }
        };
        Ok(Self {
            kind,
            line: way.line(),
            expect,
            first: true,
        })
    }

    /// Another request at the same time, where one connection carries several.
    fn beside(&self) -> Option<Self> {
        let Kind::Http2(sender, head) = &self.kind else {
            return None;
        };
        Some(Self {
            kind: Kind::Http2(sender.clone(), head.clone()),
            line: self.line.clone(),
            expect: self.expect,
            first: true,
        })
    }

    /// One call; the bytes of the answer's message.
    pub(crate) async fn call(&mut self, id: u64) -> Outcome<usize> {
        let message = self.line.message(id);
        let first = std::mem::take(&mut self.first);
        match &mut self.kind {
            Kind::WebSocket(wire) => {
                mask(&message, &mut wire.out);
                wire.send().await?;
                let frame = wire.frame().await?;
                self.expect.check(&wire.got[frame.clone()], first)?;
                wire.got.drain(..frame.end);
                Ok(frame.len())
            }
            Kind::Http1(wire, head) => {
                wire.post(head, &message).await?;
                let body = wire.answer().await?;
                self.expect.check(&wire.got[body.clone()], first)?;
                wire.got.drain(..body.end);
                Ok(body.len())
            }
            Kind::Http2(sender, head) => {
                let mut request =
                    Request::post("https://localhost/mcp").body(Full::new(message.into()))?;
                *request.headers_mut() = head.clone();
                sender.ready().await?;
                let answer = sender.send_request(request).await?;
                if !answer.status().is_success() {
                    return Err(format!("the server answered {}", answer.status()).into());
                }
                let body = answer.into_body().collect().await?.to_bytes();
                self.expect.check(&body, first)?;
                Ok(body.len())
            }
        }
    }
}

/// Opens a session; a floor, which has none, is told one that is as long.
async fn legacy(mut wire: Wire) -> Outcome<Kind> {
    let plain = "content-type: application/json\r\naccept: application/json, text/event-stream\r\n"
        .to_owned();
    let hello = concat!(
        r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","#,
        r#""capabilities":{},"clientInfo":{"name":"bench","version":"1"}}}"#
    );
    wire.post(&plain, hello.as_bytes()).await?;
    let body = wire.answer().await?;
    let session = field(&wire.got[..body.start], b"mcp-session-id");
    let session = session.map_or("0".repeat(32), |value| {
        String::from_utf8_lossy(value).into()
    });
    wire.got.drain(..body.end);
    let head = format!("{plain}mcp-protocol-version: 2025-11-25\r\nmcp-session-id: {session}\r\n");
    Ok(Kind::Http1(wire, head))
}

/// The value of one field of a head, as it stands there.
fn field<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    head.split(|byte| *byte == b'\n').find_map(|line| {
        let (known, value) = line.split_at_checked(name.len())?;
        let value = value.strip_prefix(b":")?;
        known.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
    })
}

/// Appends a text frame of a client.
fn mask(message: &[u8], out: &mut Vec<u8>) {
    const MASK: [u8; 4] = [0x5a, 0x11, 0xc3, 0x7e];
    out.push(0x81);
    match (u8::try_from(message.len()), u16::try_from(message.len())) {
        (Ok(short @ ..=125), _) => out.push(0x80 | short),
        (_, Ok(middle)) => {
            out.push(0x80 | 126);
            out.extend(middle.to_be_bytes());
        }
        _ => {
            out.push(0x80 | 127);
            out.extend((message.len() as u64).to_be_bytes());
        }
    }
    out.extend(MASK);
    let start = out.len();
    out.extend_from_slice(message);
    for word in out[start..].chunks_mut(MASK.len()) {
        for (byte, key) in word.iter_mut().zip(MASK) {
            *byte ^= key;
        }
    }
}

impl Wire {
    /// Sends what was put together.
    async fn send(&mut self) -> Outcome<()> {
        self.stream.write_all(&self.out).await?;
        self.out.clear();
        Ok(self.stream.flush().await?)
    }

    async fn more(&mut self) -> Outcome<()> {
        if self.stream.read_buf(&mut self.got).await? == 0 {
            return Err("the server closed the connection".into());
        }
        Ok(())
    }

    async fn post(&mut self, head: &str, body: &[u8]) -> Outcome<()> {
        self.out
            .extend_from_slice(b"POST /mcp HTTP/1.1\r\nhost: localhost\r\n");
        self.out.extend_from_slice(head.as_bytes());
        write!(self.out, "content-length: {}\r\n\r\n", body.len())?;
        self.out.extend_from_slice(body);
        self.send().await
    }

    /// Where the body of the next answer stands; its head is before it. Nothing is copied: the load
    /// must not be what is waited for.
    async fn answer(&mut self) -> Outcome<std::ops::Range<usize>> {
        let begin = loop {
            if let Some(end) = memchr::memmem::find(&self.got, b"\r\n\r\n") {
                break end + 4;
            }
            self.more().await?;
        };
        let head = &self.got[..begin];
        let length = field(head, b"content-length").and_then(|text| str::from_utf8(text).ok());
        let length: usize = match length {
            Some(length) if head.starts_with(b"HTTP/1.1 200") => length.parse()?,
            _ => {
                let head = String::from_utf8_lossy(head);
                return Err(format!("the server answered: {head}").into());
            }
        };
        while self.got.len() < begin + length {
            self.more().await?;
        }
        Ok(begin..begin + length)
    }

    /// Where the payload of the next frame stands.
    async fn frame(&mut self) -> Outcome<std::ops::Range<usize>> {
        loop {
            let got = &self.got;
            let (begin, length) = match got.get(1).copied() {
                Some(127) if got.len() >= 10 => {
                    (10, u64::from_be_bytes(got[2..10].try_into()?).try_into()?)
                }
                Some(126) if got.len() >= 4 => {
                    (4, usize::from(u16::from_be_bytes([got[2], got[3]])))
                }
                Some(short @ ..=125) => (2, usize::from(short)),
                _ => (2, usize::MAX - 2),
            };
            if got.len() >= begin + length {
                if got[0] != 0x81 {
                    return Err(format!("the server sent a frame {:#x}", got[0]).into());
                }
                return Ok(begin..begin + length);
            }
            self.more().await?;
        }
    }

    async fn upgraded(mut self) -> Outcome<Self> {
        let ask = "GET /mcp HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-protocol: mcp\r\n\
                   sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        self.out.extend_from_slice(ask.as_bytes());
        self.send().await?;
        while !self.got.ends_with(b"\r\n\r\n") {
            self.more().await?;
        }
        if !self.got.starts_with(b"HTTP/1.1 101") {
            return Err(format!("no upgrade: {}", String::from_utf8_lossy(&self.got)).into());
        }
        self.got = Vec::new();
        Ok(self)
    }
}

/// `connections` with `in_flight` requests each, one new for each answer.
pub(crate) async fn calls(
    server: &Server,
    pki: &Pki,
    way: Way,
    expect: Expect,
    (connections, in_flight): (usize, usize),
    window: Duration,
) -> Outcome<CallCost> {
    let counts = Arc::new(Counts::default());
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..connections {
        let config = pki
            .client_of(n, false, way.alpn())
            .map_err(|e| e.to_string())?;
        let talker = Talker::open(server, &config, way, expect).await?;
        for _ in 1..in_flight {
            let beside = talker.beside().ok_or("one request at a time")?;
            tasks.spawn(talk(beside, counts.clone()));
        }
        tasks.spawn(talk(talker, counts.clone()));
    }
    let request = way.line().message(100_000).len();
    load::watched(server, &counts, tasks, request, window).await
}

async fn talk(mut talker: Talker, counts: Arc<Counts>) -> Outcome<()> {
    for id in 1.. {
        if counts.stop.load(Ordering::Relaxed) {
            break;
        }
        let bytes = talker.call(id).await?;
        counts.received.fetch_add(bytes as u64, Ordering::Relaxed);
        counts.calls.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Opens `size` connections, makes one call on each, and says what each holds in the server.
pub(crate) async fn crowd(
    server: &Server,
    pki: &Pki,
    way: Way,
    expect: Expect,
    size: usize,
) -> Outcome<Memory> {
    let weigh = || server.settled_memory().map_err(|e| e.to_string());
    drop(open(server, pki, way, expect, 200).await?);
    let before = weigh()?;
    let crowd = open(server, pki, way, expect, size).await?;
    let after = weigh()?;
    drop(crowd);
    let share = |before: u64, after: u64| after.saturating_sub(before) / size as u64;
    Ok(Memory {
        rss: share(before.rss, after.rss),
        private: share(before.private, after.private),
    })
}

async fn open(
    server: &Server,
    pki: &Pki,
    way: Way,
    expect: Expect,
    size: usize,
) -> Outcome<Vec<Talker>> {
    const WIDTH: usize = 32;
    let configs = (0..pki.clients.len())
        .map(|n| {
            pki.client_of(n, false, way.alpn())
                .map_err(|e| e.to_string())
        })
        .collect::<Result<Vec<_>, _>>()?;
    let next = AtomicUsize::new(0);
    let some = || async {
        let mut mine = Vec::new();
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= size {
                return Outcome::Ok(mine);
            }
            let mut talker = Talker::open(server, &configs[n % configs.len()], way, expect).await?;
            talker.call(1).await?;
            mine.push(talker);
        }
    };
    let all = futures_util::future::try_join_all((0..WIDTH).map(|_| some())).await?;
    Ok(all.into_iter().flatten().collect())
}
