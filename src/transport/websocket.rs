//! The WebSocket (RFC 6455): one message a text message. The handshake belongs to HTTP; this begins
//! after it.
//!
//! The rules of the protocol are tungstenite's. This keeps its codec away from the socket: bytes are
//! read into memory that a thread shares and decoded there, and what the codec has to say (pongs,
//! the answer to a close) joins the messages on their way out. So an idle connection holds one small
//! buffer, a dropped future loses nothing, and while a peer does not read, nothing more is taken
//! from it. Extensions (compression among them) are never agreed on.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{Frame, FrameHeader, Utf8Bytes};
use tokio_tungstenite::tungstenite::protocol::{
    CloseFrame, Role, WebSocketConfig, WebSocketContext,
};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::clock::Alarm;

use super::pipe::{Outlet, poll_shared};
use super::wire::{Goodbye, Wire, WireError};

/// The codec's own buffer: what an idle connection holds. A larger message gets room of its own.
const CODEC_BUFFER: usize = 2048;
/// How long a peer may be quiet before it is asked for a sign of life, and again until it is taken
/// for dead.
const QUIET: Duration = Duration::from_secs(30);
/// A text frame of a server.
const TEXT: FrameHeader = FrameHeader {
    is_final: true,
    rsv1: false,
    rsv2: false,
    rsv3: false,
    opcode: OpCode::Data(Data::Text),
    mask: None,
};

/// What a server adds to the key (RFC 6455, section 1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// `Sec-WebSocket-Accept`: the proof that a server has understood the handshake with this key.
#[must_use]
pub fn accept_key(key: &[u8]) -> String {
    STANDARD.encode(digest(
        &SHA1_FOR_LEGACY_USE_ONLY,
        &[key, GUID.as_bytes()].concat(),
    ))
}

/// A WebSocket after its handshake.
#[derive(Debug)]
pub struct WsWire<S> {
    stream: S,
    talk: Talk,
    pulse: Pulse,
}

impl<S> WsWire<S> {
    /// The server's end. `max_message`: bytes of one message.
    pub fn server(stream: S, max_message: usize) -> Self {
        Self::new(stream, max_message, Role::Server)
    }

    /// The client's end.
    pub fn client(stream: S, max_message: usize) -> Self {
        Self::new(stream, max_message, Role::Client)
    }

    fn new(stream: S, max_message: usize, role: Role) -> Self {
        Self {
            stream,
            talk: Talk::new(max_message, role),
            pulse: Pulse::new(QUIET),
        }
    }

    /// With another time that the peer may be quiet.
    #[must_use]
    pub fn with_quiet(mut self, quiet: Duration) -> Self {
        self.pulse = Pulse::new(quiet);
        self
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> WsWire<S> {
    /// [`Wire::fill`] as a poll.
    ///
    /// # Errors
    /// As there.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, WireError>> {
        let Self {
            stream,
            talk,
            pulse,
        } = self;
        while talk.arrived.is_empty() && talk.over.is_none() {
            // What the codec has to say goes first: a peer that does not read is not read from.
            let read = match talk.output.poll_flush(stream, cx)? {
                Poll::Ready(()) => poll_shared(stream, cx, |bytes| talk.take(bytes))?,
                Poll::Pending => Poll::Pending,
            };
            match read {
                Poll::Ready(0) => return Poll::Ready(Err(no_goodbye())),
                Poll::Ready(_) => pulse.heard(),
                Poll::Pending => match ready!(pulse.poll(cx)) {
                    Beat::Heard => (),
                    Beat::Quiet => talk.ping(),
                    Beat::Dead => return Poll::Ready(Err(WireError::Dead)),
                },
            }
        }
        Poll::Ready(Ok(true))
    }

    /// [`Wire::flush`] as a poll.
    ///
    /// # Errors
    /// As there.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        Poll::Ready(Ok(ready!(
            self.talk.output.poll_flush(&mut self.stream, cx)
        )?))
    }

    /// [`Wire::close`] as a poll.
    pub fn poll_close(&mut self, cx: &mut Context<'_>, goodbye: Goodbye) -> Poll<()> {
        let Self { stream, talk, .. } = self;
        talk.farewell(goodbye);
        if ready!(talk.output.poll_flush(stream, cx)).is_err()
            || ready!(Pin::new(&mut *stream).poll_shutdown(cx)).is_err()
        {
            return Poll::Ready(());
        }
        // What the peer still sends is thrown away: a socket that is closed with unread bytes in it
        // resets the connection, and the close frame may be lost with it.
        while let Ok(1..) = ready!(poll_shared(stream, cx, <[u8]>::len)) {}
        Poll::Ready(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Wire for WsWire<S> {
    const NAME: &'static str = "websocket";

    fn next(&mut self) -> Result<Option<Bytes>, WireError> {
        match (self.talk.arrived.pop_front(), self.talk.over) {
            (None, Some(over)) => Err(over.error(self.talk.max_message)),
            (message, _) => Ok(message),
        }
    }

    async fn fill(&mut self) -> Result<bool, WireError> {
        poll_fn(|cx| self.poll_fill(cx)).await
    }

    fn last(&mut self) -> Result<Option<Bytes>, WireError> {
        Ok(None)
    }

    fn put(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.talk.put(write);
    }

    fn waiting(&self) -> usize {
        self.talk.output.waiting()
    }

    async fn flush(&mut self) -> Result<(), WireError> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    async fn close(&mut self, goodbye: Goodbye) {
        poll_fn(|cx| self.poll_close(cx, goodbye)).await;
    }

    fn rest(&mut self) {
        self.talk.output.rest();
        if self.talk.arrived.is_empty() {
            self.talk.arrived = VecDeque::new();
        }
    }
}

/// A stream that ends without a close frame is cut off, not closed.
fn no_goodbye() -> WireError {
    io::Error::from(io::ErrorKind::UnexpectedEof).into()
}

/// What is said on a connection, apart from the socket.
#[derive(Debug)]
struct Talk {
    codec: WebSocketContext,
    role: Role,
    max_message: usize,
    arrived: VecDeque<Bytes>,
    output: Outlet,
    /// Why nothing more is read; told after what came before it.
    over: Option<Over>,
    /// Whether our close frame is on its way: nothing may follow it.
    closed: bool,
}

/// Why nothing more is read.
#[derive(Clone, Copy, Debug)]
enum Over {
    Closed,
    TooLong,
    Violation(CloseCode, &'static str),
}

impl Over {
    const fn of(error: &Error) -> Self {
        match error {
            Error::ConnectionClosed | Error::AlreadyClosed => Self::Closed,
            Error::Capacity(_) => Self::TooLong,
            Error::Utf8(_) => Self::Violation(CloseCode::Invalid, "a message is not UTF-8"),
            _ => Self::Violation(CloseCode::Protocol, "the rules of the WebSocket are broken"),
        }
    }

    const fn error(self, max: usize) -> WireError {
        match self {
            Self::Closed => WireError::Closed,
            Self::TooLong => WireError::TooLong { max },
            Self::Violation(_, why) => WireError::Violation(why),
        }
    }
}

impl Talk {
    fn new(max_message: usize, role: Role) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(CODEC_BUFFER)
            .write_buffer_size(0)
            .max_message_size(Some(max_message))
            .max_frame_size(Some(max_message));
        Self {
            codec: WebSocketContext::new(role, Some(config)),
            role,
            max_message,
            arrived: VecDeque::new(),
            output: Outlet::default(),
            over: None,
            closed: false,
        }
    }

    /// Decodes what was read, to its end or to the end of the talk. The number of bytes.
    fn take(&mut self, bytes: &[u8]) -> usize {
        let mut source = Memory {
            input: bytes,
            output: self.output.bytes(),
        };
        while self.over.is_none() && !bytes.is_empty() {
            match self.codec.read(&mut source) {
                Ok(Message::Text(text)) => self.arrived.push_back(text.into()),
                Ok(Message::Binary(_)) => {
                    let why = "binary messages are not understood";
                    self.over = Some(Over::Violation(CloseCode::Unsupported, why));
                }
                Ok(Message::Close(_)) => {
                    // Queues the answer. That the codec is at its end by that is no error here.
                    let _ = self.codec.flush(&mut source);
                    self.closed = true;
                    self.over = Some(Over::Closed);
                }
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => (),
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => self.over = Some(Over::of(&error)),
            }
        }
        bytes.len()
    }

    fn put(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.closed {
            return;
        }
        match self.role {
            Role::Server => put_text(self.output.bytes(), write),
            Role::Client => {
                let mut payload = Vec::new();
                write(&mut payload);
                let frame = Frame::message(payload, TEXT.opcode, true);
                self.say(Message::Frame(frame));
            }
        }
    }

    fn ping(&mut self) {
        self.say(Message::Ping(Bytes::new()));
    }

    fn farewell(&mut self, goodbye: Goodbye) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        let (code, reason) = match (self.over, goodbye) {
            (Some(Over::TooLong), _) => (CloseCode::Size, "the message is too long"),
            (Some(Over::Violation(code, reason)), _) => (code, reason),
            (_, Goodbye::Refused(reason)) => (CloseCode::Policy, reason),
            (_, Goodbye::GoingAway) => (CloseCode::Away, ""),
            (_, Goodbye::Done) => (CloseCode::Normal, ""),
        };
        let reason = Utf8Bytes::from_static(reason);
        self.say(Message::Close(Some(CloseFrame { code, reason })));
    }

    /// Through the codec, which writes to memory: what it still refuses is refused because the talk
    /// is over, and then there is nobody to say it to.
    fn say(&mut self, message: Message) {
        let mut target = Memory {
            input: &[],
            output: self.output.bytes(),
        };
        let _ = self.codec.write(&mut target, message);
    }
}

/// Appends a text frame. Its header's size depends on the length of what is written, which moves to
/// make room for it.
fn put_text(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    write(out);
    let length = out.len() - start;
    let header = TEXT.len(length as u64);
    out.resize(start + header + length, 0);
    out.copy_within(start..start + length, start + header);
    let mut room = &mut out[start..start + header];
    TEXT.format(length as u64, &mut room)
        .expect("the room is as long as the header");
}

/// What the codec takes for a socket.
struct Memory<'a> {
    input: &'a [u8],
    output: &'a mut Vec<u8>,
}

impl Read for Memory<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.input.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.input.read(buffer)
    }
}

impl Write for Memory<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether the peer is alive. Looked at once in a while; a message costs it nothing.
#[derive(Debug)]
struct Pulse {
    every: Duration,
    alarm: Option<Alarm>,
    /// Times that the alarm rang since the peer was last heard.
    silent: u8,
}

enum Beat {
    Heard,
    Quiet,
    Dead,
}

impl Pulse {
    const fn new(every: Duration) -> Self {
        Self {
            every,
            alarm: None,
            silent: 0,
        }
    }

    const fn heard(&mut self) {
        self.silent = 0;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Beat> {
        let every = self.every;
        let alarm = self.alarm.get_or_insert_with(|| Alarm::after(every));
        ready!(alarm.poll(cx));
        alarm.set_after(every);
        self.silent += 1;
        Poll::Ready(match self.silent {
            1 => Beat::Heard,
            2 => Beat::Quiet,
            _ => Beat::Dead,
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    const MASK: [u8; 4] = [7, 0, 255, 9];

    /// A masked frame: the first byte and the payload.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![first];
        match payload.len() {
            short @ ..=125 => out.push(0x80 | u8::try_from(short).unwrap()),
            length => {
                out.push(0x80 | 126);
                out.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
        }
        out.extend(MASK);
        out.extend(
            payload
                .iter()
                .zip(MASK.iter().cycle())
                .map(|(byte, key)| byte ^ key),
        );
        out
    }

    fn pair(max: usize) -> (WsWire<DuplexStream>, DuplexStream) {
        let (near, far) = tokio::io::duplex(64 * 1024);
        (WsWire::server(near, max), far)
    }

    /// Everything that comes of these bytes: the messages, how it ended, and what was answered.
    async fn hear(max: usize, pieces: &[&[u8]]) -> (Vec<Bytes>, Option<WireError>, Vec<u8>) {
        let (mut wire, mut far) = pair(max);
        for piece in pieces {
            far.write_all(piece).await.unwrap();
        }
        far.shutdown().await.unwrap();
        let mut messages = Vec::new();
        let end = loop {
            match wire.next() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => match wire.fill().await {
                    Ok(_) => (),
                    Err(WireError::Io(_)) => break None,
                    Err(error) => break Some(error),
                },
                Err(error) => break Some(error),
            }
        };
        wire.close(Goodbye::Done).await;
        drop(wire);
        let mut answers = Vec::new();
        far.read_to_end(&mut answers).await.unwrap();
        (messages, end, answers)
    }

    /// The close code of a server's last frame.
    fn code(answers: &[u8]) -> u16 {
        let at = answers.iter().rposition(|byte| *byte == 0x88).unwrap();
        u16::from_be_bytes([answers[at + 2], answers[at + 3]])
    }

    #[test]
    fn the_accept_of_the_rfc() {
        let accept = accept_key(b"dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[tokio::test]
    async fn a_message_comes_whole_however_it_was_cut() {
        let whole = frame(0x81, "{\"ä\":1}".as_bytes());
        let bytes: Vec<&[u8]> = whole.chunks(1).collect();
        let (messages, ..) = hear(100, &bytes).await;
        assert_eq!(messages, ["{\"ä\":1}".as_bytes()]);
        // Cut within a character, with a ping between the pieces.
        let pieces = [
            frame(0x01, b"{\"\xc3"),
            frame(0x89, b"alive?"),
            frame(0x00, b"\xa4\""),
            frame(0x80, b":1}"),
            frame(0x81, b"[]"),
        ];
        let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        let (messages, end, answers) = hear(100, &pieces).await;
        assert_eq!(messages, ["{\"ä\":1}".as_bytes(), b"[]"]);
        assert!(end.is_none());
        assert_eq!(answers[..8], *b"\x8a\x06alive?");
        assert_eq!(code(&answers), 1000);
    }

    #[tokio::test]
    async fn each_broken_rule_has_its_close_code_and_what_came_before_is_heard() {
        let good = frame(0x81, b"good");
        let long = frame(0x81, &[b'x'; 201]);
        let cases: [(Vec<u8>, u16); 9] = [
            (frame(0x82, b"binary"), 1003),
            (frame(0x81, b"\xff\xfe"), 1007),
            ([frame(0x01, b"\xc3"), frame(0x80, b"\x28")].concat(), 1007),
            (long.clone(), 1009),
            // The limit holds before the message is there.
            (long[..8].to_vec(), 1009),
            (
                [frame(0x01, &[b'x'; 120]), frame(0x80, &[b'x'; 81])].concat(),
                1009,
            ),
            // Not masked; a reserved bit (compression); a long control frame.
            (b"\x81\x02{}".to_vec(), 1002),
            (frame(0xc1, b"{}"), 1002),
            (frame(0x89, &[0; 126]), 1002),
        ];
        for (bad, expected) in cases {
            let (messages, end, answers) = hear(200, &[&good, &bad, &good]).await;
            assert_eq!(messages, [&b"good"[..]], "{expected}");
            match expected {
                1009 => assert!(matches!(end, Some(WireError::TooLong { max: 200 }))),
                _ => assert!(matches!(end, Some(WireError::Violation(_))), "{end:?}"),
            }
            assert_eq!(code(&answers), expected);
        }
        let (messages, end, _) = hear(200, &[&good, &frame(0x81, &[b'x'; 200])]).await;
        assert_eq!((messages.len(), end.is_none()), (2, true));
    }

    #[tokio::test]
    async fn a_close_is_answered_and_nothing_follows_it() {
        let close = frame(0x88, &1000u16.to_be_bytes());
        let (mut wire, mut far) = pair(100);
        far.write_all(&[frame(0x81, b"1"), close].concat())
            .await
            .unwrap();
        assert!(wire.fill().await.unwrap());
        assert_eq!(wire.next().unwrap().unwrap(), &b"1"[..]);
        assert!(matches!(wire.next(), Err(WireError::Closed)));
        wire.put(|out| out.extend_from_slice(b"late"));
        far.shutdown().await.unwrap();
        wire.close(Goodbye::GoingAway).await;
        drop(wire);
        let mut answer = Vec::new();
        far.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, [0x88, 2, 0x03, 0xe8]);
    }

    #[tokio::test]
    async fn every_deliberate_end_has_its_code() {
        for (goodbye, expected) in [
            (Goodbye::Done, 1000),
            (Goodbye::GoingAway, 1001),
            (Goodbye::Refused("no"), 1008),
        ] {
            let (mut wire, mut far) = pair(100);
            wire.put(|out| out.extend_from_slice(b"last"));
            far.shutdown().await.unwrap();
            wire.close(goodbye).await;
            drop(wire);
            let mut answer = Vec::new();
            far.read_to_end(&mut answer).await.unwrap();
            assert_eq!(answer[..6], *b"\x81\x04last");
            assert_eq!(code(&answer), expected);
        }
    }

    #[tokio::test]
    async fn both_ends_understand_each_other_at_every_length() {
        let (near, far) = tokio::io::duplex(1000);
        let (mut server, mut client) =
            (WsWire::server(near, 1 << 20), WsWire::client(far, 1 << 20));
        let lengths = [0, 1, 125, 126, 65_535, 65_536, 1 << 20];
        let echo = tokio::spawn(async move {
            while server.fill().await.is_ok() {
                while let Ok(Some(message)) = server.next() {
                    server.put(|out| out.extend_from_slice(&message));
                    server.flush().await.unwrap();
                }
                server.rest();
            }
        });
        for length in lengths {
            let text = vec![b'a'; length];
            client.put(|out| out.extend_from_slice(&text));
            client.flush().await.unwrap();
            client.fill().await.unwrap();
            assert_eq!(client.next().unwrap().unwrap(), text);
        }
        drop(client);
        echo.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_peer_is_asked_and_a_dead_one_is_given_up() {
        let (wire, mut far) = pair(100);
        let mut wire = wire.with_quiet(Duration::from_secs(5));
        let filling = tokio::spawn(async move { wire.fill().await });
        let mut ping = [0; 2];
        far.read_exact(&mut ping).await.unwrap();
        assert_eq!(ping, [0x89, 0]);
        far.write_all(&frame(0x8a, b"")).await.unwrap();
        far.read_exact(&mut ping).await.unwrap();
        assert_eq!(ping, [0x89, 0]);
        // This time there is no answer.
        assert!(matches!(filling.await.unwrap(), Err(WireError::Dead)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_pings_and_never_reads_is_not_read_from() {
        let (near, mut far) = tokio::io::duplex(4096);
        let mut wire = WsWire::server(near, 100);
        let flood = tokio::spawn(async move {
            let ping = frame(0x89, &[b'p'; 100]);
            let mut sent = 0;
            while far.write_all(&ping).await.is_ok() {
                sent += ping.len();
            }
            sent
        });
        assert!(matches!(wire.fill().await, Err(WireError::Dead)));
        assert!(wire.waiting() <= 16 * 1024, "{}", wire.waiting());
        drop(wire);
        assert!(flood.await.unwrap() < 64 * 1024);
    }

    #[tokio::test]
    async fn a_dropped_fill_loses_nothing() {
        let (mut wire, mut far) = pair(100);
        let text = frame(0x81, b"whole");
        for byte in &text[..text.len() - 1] {
            far.write_all(&[*byte]).await.unwrap();
            let mut filling = Box::pin(wire.fill());
            assert!(futures_util::poll!(filling.as_mut()).is_pending());
        }
        far.write_all(&text[text.len() - 1..]).await.unwrap();
        assert!(wire.fill().await.unwrap());
        assert_eq!(wire.next().unwrap().unwrap(), &b"whole"[..]);
    }
}
